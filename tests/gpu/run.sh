#!/usr/bin/env bash
# Measures a GPU with a kit of kit.sh, on a machine with an NVIDIA GPU, CUDA's libraries, and Python with PyTorch
# and torchvision, but without Rust. Prints Markdown for docs/gpu.md, in under five minutes.
#
#   tests/gpu/run.sh KIT [OPTION…]    KIT: the folder, or the archive; options: see measure.py
#
# The kit has a copy of this script, which measures the kit that it lies in: ./run.sh
#
# cuDNN 9 is found where PyTorch has it, if the machine has none of its own.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ -x "$here/camshaft" ]; then
  kit=$here
  scripts=$here/scripts
else
  kit=${1:?usage: tests/gpu/run.sh KIT [OPTION…]}
  shift
  scripts=$here
fi
unpacked=
if [ -f "$kit" ]; then
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  tar -xf "$kit" -C "$unpacked" --strip-components=1
  kit=$unpacked
fi

python=${PYTHON:-python3}
# PyTorch's packages bring cuDNN, cuBLASLt and NVRTC; the program loads them by name.
libraries=$("$python" - <<'FOLDERS' || true
import importlib.util
from pathlib import Path
spec = importlib.util.find_spec("nvidia")
places = [Path(place) for place in (spec.submodule_search_locations if spec else [])]
folders = {file.parent for place in places for file in place.glob("**/lib/lib*.so*")}
print(":".join(sorted(map(str, folders))))
FOLDERS
)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}$libraries"

PYTHONDONTWRITEBYTECODE=1 "$python" "$scripts/measure.py" "$kit" "$@"
