#!/usr/bin/env bash
# Builds the emulated libcuda.so.1 and libcudnn.so.9 into target/emulator, with g++ alone; see README.md.
# Prints the folder. Does nothing if nothing has changed. With --test it checks the emulator itself, too.
set -euo pipefail
cd "$(dirname "$0")"

sources=$PWD
kernels=$(cd ../../../worker/cuda/src && pwd)
mkdir -p ../../../target/emulator
out=$(cd ../../../target/emulator && pwd)
echo "$out"

self_test() {
  [ "${1:-}" != --test ] || "$out/self_test" >&2
}

if [ -e "$out/built" ] && [ -z "$(find "$sources" "$kernels" \( -name '*.cpp' -o -name '*.h' -o \
  -name '*.cu' -o -name build.sh \) -newer "$out/built")" ]; then
  self_test "$@"
  exit 0
fi

# For this machine alone: loops over channels are to use its vectors.
flags=(-std=c++17 -O3 -march=native -fPIC -pthread -Wall -Wextra "-I$kernels")
compile() { g++ "${flags[@]}" "$@"; }

compile -c memory.cpp -o "$out/memory.o"
compile -c streams.cpp -o "$out/streams.o"
compile -c context.cpp -o "$out/context.o"
compile -c driver_memory.cpp -o "$out/driver_memory.o"
compile -c kernels.cpp -o "$out/kernels.o"
compile -DCAMSHAFT_ON_HOST -x c++ -c "$kernels/kernels.cu" -o "$out/kernels_of_engine.o"
compile -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" \
  "$out"/{memory,streams,context,driver_memory,kernels,kernels_of_engine}.o

compile -shared -Wl,-soname,libcudnn.so.9 -Wl,-rpath,'$ORIGIN' -o "$out/libcudnn.so.9" \
  cudnn.cpp checks.cpp engines.cpp convolution.cpp "$out/libcuda.so.1"

# Without these, a driver elsewhere in the library path whose name is tried earlier would be loaded.
ln -sf libcuda.so.1 "$out/libcuda.so"
ln -sf libcudnn.so.9 "$out/libcudnn.so"
compile -Wl,-rpath,'$ORIGIN' -o "$out/self_test" self_test.cpp "$out/libcudnn.so.9" "$out/libcuda.so.1"
touch "$out/built"
self_test "$@"
