#!/usr/bin/env bash
# Checks the CUDA build on a machine without a GPU: compiles candle's CUDA kernels with NVIDIA's
# compiler, and our code with it, lints included. Not part of tests/run.sh: it unpacks 0.3 GB and
# takes ten minutes of a core the first time, nearly all of it candle's kernels.
#
# The compiler comes as Python packages, in the versions of deploy/Dockerfile's CUDA image.
#
# Without a GPU this cannot check that the program links (there is no libcuda.so to link with), starts,
# and finds its libraries; that kernels load, fit into memory and are fast; and that a GPU computes the
# CPU's numbers. On a machine with a GPU and CUDA 13 these commands check it:
#
#   cargo run --release --features cuda -- audit tests/data/photos --out target/gpu --device cuda
#   cargo run --release -- audit tests/data/photos --out target/cpu --device cpu
#   cargo run --release -- report target/gpu --against target/cpu --fail-on 'changed>0'
set -euo pipefail
cd "$(dirname "$0")/.."

tools="$PWD/target/tools/cuda"
# cudarc knows CUDA's versions by name: a newer one has to be in the list of its build script.
packages=(
  'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*'
  'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*'
)

if ! compgen -G "$tools/lib/python3*/site-packages/nvidia/cu13/bin/nvcc" >/dev/null; then
  python3 -m venv --clear "$tools"
  "$tools/bin/pip" install --quiet --no-deps "${packages[@]}"
fi
CUDA_HOME=$(compgen -G "$tools/lib/python3*/site-packages/nvidia/cu13")
export CUDA_HOME
# As in the image. candle's build script asks nvidia-smi otherwise.
export CUDA_COMPUTE_CAP=80
export PATH="$CUDA_HOME/bin:$PATH"
# A folder of its own: with other features many crates are built again, and would replace those of the
# usual folder.
export CARGO_TARGET_DIR="$PWD/target/cuda"

nvcc --version | grep release
cargo clippy --locked --release --features camshaft-worker/cuda,camshaft-producer/cuda \
  -p camshaft-worker -p camshaft-producer --all-targets -- -D warnings
