# Puts NVIDIA's compiler of CUDA 13.0 on the PATH and names it in CUDA_HOME, for scripts that build with the
# feature `cuda`: `source tests/gpu/nvcc.sh`, in the repository's root. It comes as Python packages, 0.3 GB
# unpacked, in the version of deploy/Dockerfile. An nvcc that CUDA_HOME names already is left alone.
# shellcheck shell=bash

cuda_tools="$PWD/target/tools/cuda"
cuda_packages=(
  'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*'
  'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*'
)

if [ ! -x "${CUDA_HOME:-}/bin/nvcc" ]; then
  if ! compgen -G "$cuda_tools/lib/python3*/site-packages/nvidia/cu13/bin/nvcc" >/dev/null; then
    python3 -m venv --clear "$cuda_tools"
    "$cuda_tools/bin/pip" install --quiet --no-deps "${cuda_packages[@]}"
  fi
  CUDA_HOME=$(compgen -G "$cuda_tools/lib/python3*/site-packages/nvidia/cu13")
fi
export CUDA_HOME
export PATH="$CUDA_HOME/bin:$PATH"
