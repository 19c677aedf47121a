#!/usr/bin/env bash
# Compiles the kernels for the host with their tests, and runs these: 15 seconds. Needs g++ 12 or
# later. The program stays in the folder that is named; without one it is removed.
set -euo pipefail
cd "$(dirname "$0")"

folder=${1:-$(mktemp -d)}
if [ $# = 0 ]; then trap 'rm -r "$folder"' EXIT; fi
mkdir -p "$folder"

flags=(-std=c++17 -O2 -Wall -Wextra -Werror -DCAMSHAFT_ON_HOST)
"${CXX:-g++}" "${flags[@]}" -x c++ ../../src/kernels.cu ./*.cpp -o "$folder/kernels-on-host"
"$folder/kernels-on-host"
