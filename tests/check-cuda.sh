#!/usr/bin/env bash
# Checks the CUDA build on a machine without a GPU.
#
#   tests/check-cuda.sh             everything; unpacks 0.3 GB of NVIDIA's compiler the first time
#   tests/check-cuda.sh --emulated  without that compiler: some minutes after tests/run.sh has built the rest
#
# 1. Not with --emulated: the GPU's kernels compile for every generation that they are meant for, and the
#    code around them has no lints.
# 2. The crate camshaft-cuda passes its tests on an emulated device: libcuda.so.1 and libcudnn.so.9 from
#    tests/gpu/emulator, which compute on the host. Its kernels, compiled for the host, pass theirs.
# 3. The program built with the feature `cuda` starts without a driver, with one that is too old, without a
#    device, and with an emulated device, whose audit agrees with the CPU's.
#
# What only a GPU can show is in tests/gpu/run.sh: that NVIDIA's libraries take what the emulator takes, that
# the kernels load and compute the same there, how exact f16, bf16 and tf32 are, how fast it is, and what fits
# into its memory.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage: tests/check-cuda.sh [--emulated]'
with_nvcc=yes
case ${1:-} in
  '') ;;
  --emulated) with_nvcc=no ;;
  *) echo "$usage" >&2; exit 2 ;;
esac

emulator="$PWD/target/emulator"
work="$PWD/target/check-cuda"
built="${CARGO_TARGET_DIR:-target}/release/camshaft"
program="$work/camshaft"
# The bundled network with inputs of 64×64 pixels, a twelfth of the work: the emulator is no fast computer.
model="$work/cats-vs-dogs-64"
features=camshaft-worker/cuda,camshaft-producer/cuda

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# Runs a command, or a function of this script, with the emulated libraries of NVIDIA. The plans that it
# chooses are of no use to a GPU, so they are not kept among the user's.
emulated() {
  (
    export LD_LIBRARY_PATH="$emulator" CAMSHAFT_CUDA_EMULATED=1 XDG_CACHE_HOME="$work/cache"
    "$@"
  )
}

check_with_nvcc() {
  # shellcheck source=tests/gpu/nvcc.sh
  source tests/gpu/nvcc.sh
  say "lints, and the kernels by $(nvcc --version | grep -o 'release [0-9.]*')"
  # With all packages dependencies have the features that tests/run.sh built them with.
  cargo clippy --locked --release --workspace --all-targets --features "$features" -- -D warnings
  local fatbin
  fatbin=$(find "${CARGO_TARGET_DIR:-target}/release/build" -path '*/camshaft-cuda-*/out/*' -name '*.fatbin' \
    -size +10k -printf '%T@ %p %s bytes\n' | sort -n | tail -1)
  [ -n "$fatbin" ] || fail "nvcc made no kernels"
  echo "kernels: ${fatbin#* }"
}

build_emulator() {
  say "the emulator"
  command -v g++ >/dev/null || fail "there is no g++; install it"
  tests/gpu/emulator/build.sh --test
  for library in libcuda.so.1 libcudnn.so.9; do
    [ -e "$emulator/$library" ] || fail "tests/gpu/emulator/build.sh made no target/emulator/$library"
  done
}

check_crate() {
  say "camshaft-cuda's kernels on the host"
  g++ -std=c++17 -O2 -Wall -Wextra -I worker/cuda/src -DCAMSHAFT_ON_HOST -o "$work/kernels_on_host" \
    worker/cuda/tests/kernels_on_host/*.cpp -x c++ worker/cuda/src/kernels.cu
  "$work/kernels_on_host"
  say "camshaft-cuda on the emulated device"
  emulated cargo test --locked --release -p camshaft-cuda
}

# Builds `camshaft` with the feature `cuda`, and leaves the one without it where other scripts expect it.
build_program() {
  say "the program with the feature cuda"
  local kept="$work/camshaft.without-cuda"
  [ ! -e "$built" ] || ln -f "$built" "$kept"
  CAMSHAFT_CUDA_EMULATED=1 cargo build --locked --release --workspace --bin camshaft --features "$features"
  cp "$built" "$program"
  [ ! -e "$kept" ] || mv -f "$kept" "$built"
  # What it needs of NVIDIA is loaded at run time, so that it starts without.
  if ldd "$program" | grep -E 'lib(cuda|cudart|cudnn|cublas|nvrtc)'; then
    fail "the program is linked with libraries of CUDA"
  fi
  mkdir -p "$model"
  cp worker/model/models/cats-vs-dogs/model.safetensors "$model"
  sed 's/224/64/' worker/model/models/cats-vs-dogs/config.json >"$model/config.json"
}

# audit OUT [OPTION…]: audits the sample photos into $work/OUT.
audit() {
  local out="$work/$1"
  shift
  rm -rf "$out"
  "$program" audit tests/data/photos --out "$out" --model "$model" --overlay none --batch 8 --no-report "$@"
}

# results OUT FIELD VALUE: checks what every prediction in $work/OUT says of how the network ran.
results() {
  local out=$1 field=$2 value=$3 found
  found=$(grep -rhoE "\"$field\": ?\"[^\"]*\"" "$work/$out/predictions" | sed -E 's/^"[a-z]+": ?//' | sort -u || true)
  [ "$found" = "\"$value\"" ] || fail "$out: $field is ${found:-nowhere}, not \"$value\""
}

# refused PATTERN COMMAND…: checks that a command ends with status 1 and one line that has the pattern.
refused() {
  local pattern=$1 status=0
  shift
  "$@" >"$work/stdout" 2>"$work/stderr" || status=$?
  [ "$status" = 1 ] || fail "status $status, not 1: $(cat "$work/stdout" "$work/stderr")"
  [ "$(wc -l <"$work/stderr")" = 1 ] || fail "not one line: $(cat "$work/stderr")"
  grep -qiE "$pattern" "$work/stderr" || fail "it does not say $pattern: $(cat "$work/stderr")"
  cat "$work/stderr"
}

check_without_device() {
  say "without a driver"
  if ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo "SKIPPED: this machine has a driver"
  else
    refused driver audit no-driver --device cuda --limit 4
    audit auto --device auto --limit 4
    results auto device cpu
    "$program" report "$work/auto" >/dev/null
  fi
  say "with a driver that is too old"
  CAMSHAFT_EMULATE_DRIVER=12040 refused 'driver.*12\.?0?4' emulated audit old-driver --device cuda --limit 4
  CAMSHAFT_EMULATE_DRIVER=12040 emulated audit auto --device auto --limit 4
  results auto device cpu
  say "with a driver and no device"
  CAMSHAFT_EMULATE_NO_DEVICE=1 refused 'no GPU 0' emulated audit no-device --device cuda --limit 4
  CAMSHAFT_EMULATE_NO_DEVICE=1 emulated audit auto --device auto --limit 4
  results auto device cpu
}

check_with_device() {
  say "an audit on the emulated device"
  audit cpu --device cpu --precision f32
  emulated audit emulated --device cuda --precision f32
  results emulated device cuda:0
  results emulated precision f32
  "$program" report "$work/emulated" --against "$work/cpu" --fail-on 'changed>0'
  python3 tests/gpu/accuracy.py "$work/emulated" "$work/cpu" --most-logits 1e-5 --least-cosine 0.99999
  say "maps that need gradients on the emulated device"
  local maps=(--method grad-cam,layer-cam --layer conv1,layer2,layer4.2.conv3 --precision f32 --limit 4)
  audit cpu-gradients --device cpu "${maps[@]}"
  emulated audit emulated-gradients --device cuda "${maps[@]}"
  python3 tests/gpu/accuracy.py "$work/emulated-gradients" "$work/cpu-gradients" \
    --most-logits 1e-5 --least-cosine 0.9999
  say "what --device auto and --precision auto take"
  emulated audit emulated-auto --device auto --limit 4
  results emulated-auto device cuda:0
  results emulated-auto precision f16
}

mkdir -p "$work"
[ "$with_nvcc" = no ] || check_with_nvcc
build_emulator
check_crate
build_program
check_without_device
check_with_device
say "all as it should be"
