#!/usr/bin/env bash
# Runs the checks and the tests, on a machine with Rust, Python 3 and apt. Installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

usage='usage:
  tests/run.sh                       every lane, in the order of --list
  tests/run.sh NAME [OPTION…]        only the tests whose name contains NAME, with options for the
                                     test programs: tests/run.sh planted_faults --nocapture
  tests/run.sh --lane LANE [LANE…]   only these lanes
  tests/run.sh --list                the lanes'

lanes=(dependencies format lints deploy docs programs tests fuzz)
describe() {
  case $1 in
    dependencies) echo "licences, sources and known vulnerabilities of dependencies (cargo-deny)" ;;
    format) echo "rustfmt" ;;
    lints) echo "clippy" ;;
    deploy) echo "dashboards, images, Kubernetes manifests and the release script in deploy/" ;;
    docs) echo "rustdoc" ;;
    programs) echo "builds every program" ;;
    tests) echo "builds and runs every test, doc tests too" ;;
    fuzz) echo "fuzzes each target for 10 seconds" ;;
    *) return 1 ;;
  esac
}

tools="$PWD/target/tools"
s3s_fs_version=0.14.1 # the newest that Rust 1.95 builds
moto_version='>=5.2,<6'
cargo_deny_version=0.20.2
rotel_version=0.0.1a15 # an OpenTelemetry collector

# The tests append a line to this file for each check that they skip.
CAMSHAFT_TESTS_SKIPPED=$(mktemp)
export CAMSHAFT_TESTS_SKIPPED
output=$(mktemp)
trap 'rm -f "$CAMSHAFT_TESTS_SKIPPED" "$output"' EXIT
passed=0
failed=0

say() { printf '\n== %s\n' "$*"; }

skip() {
  echo "SKIPPED: $*"
  echo "$*" >>"$CAMSHAFT_TESTS_SKIPPED"
}

apt_install() {
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# A stamp records that a Python environment was complete once. To import its packages takes seconds.
# Raise the number in a stamp's name when its packages change.
stamped() { [ -f "$tools/stamps/$1" ]; }
stamp() { mkdir -p "$tools/stamps" && touch "$tools/stamps/$1"; }

install_compiler() {
  command -v c++ >/dev/null || apt_install g++ # libFuzzer, of the fuzz targets, is C++
  command -v nasm >/dev/null || apt_install nasm # libjpeg's SIMD
}

install_rabbitmq() {
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || apt_install rabbitmq-server
}

# What the tests start or call.
install_services() {
  install_compiler
  install_rabbitmq
  command -v chromium >/dev/null || apt_install chromium
  command -v cjpeg >/dev/null || apt_install libjpeg-turbo-progs
  if ! "$tools/bin/s3s-fs" --version 2>/dev/null | grep -q "$s3s_fs_version"; then
    # It waits most of the time; without most optimisation it is built sooner.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install --quiet --locked s3s-fs --version "$s3s_fs_version" --features binary --root "$tools"
  fi
  if [ ! -x "$tools/venv/bin/moto_server" ] || ! stamped venv-2; then
    if ! "$tools/venv/bin/python" -c 'import moto, duckdb, PIL, playwright, axe_playwright_python' 2>/dev/null; then
      python3 -m venv "$tools/venv" 2>/dev/null || { apt_install python3-venv && python3 -m venv --clear "$tools/venv"; }
      # Playwright drives Debian's browser: its own browsers are not downloaded.
      "$tools/venv/bin/pip" install --quiet "moto[server]$moto_version" 'duckdb>=1.4,<2' 'playwright>=1.55,<2' 'axe-playwright-python>=0.1.8,<0.2' pillow
    fi
    stamp venv-2
  fi
  if [ ! -x "$tools/torch/bin/python" ] || [ ! -d /usr/lib/python3/dist-packages/torch ] || ! stamped torch-1; then
    if ! "$tools/torch/bin/python" -c 'import torch, h5py, numpy, safetensors, transformers, PIL' 2>/dev/null; then
      /usr/bin/python3 -c 'import torch, h5py, numpy, venv, ensurepip' 2>/dev/null ||
        apt_install python3-torch python3-h5py python3-numpy python3-venv
      /usr/bin/python3 -m venv --clear --system-site-packages "$tools/torch"
      # The last transformers for Debian 12's PyTorch.
      "$tools/torch/bin/pip" install --quiet 'transformers==4.30.2' 'safetensors<0.5' pillow
    fi
    stamp torch-1
  fi
  # Other programs' own readers of what `camshaft export` writes, and readers of tables.
  if [ ! -x "$tools/exchange/bin/python" ] || ! stamped exchange-1; then
    if ! "$tools/exchange/bin/python" -c 'import label_studio_sdk, pycocotools, pandas, polars, pyarrow' 2>/dev/null; then
      python3 -m venv --clear "$tools/exchange"
      "$tools/exchange/bin/pip" install --quiet 'label-studio-sdk>=2.1,<3' 'pycocotools>=2.0,<3' pandas polars pyarrow
    fi
    stamp exchange-1
  fi
  if [ ! -x "$tools/rotel/rotel-agent" ] || [ ! -d "$tools/rotel-$rotel_version.dist-info" ]; then
    # It needs the shared library of the Python that its wheel is for.
    python_version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    ldconfig -p | grep -q "libpython$python_version.so.1.0" || apt_install "libpython$python_version"
    "$tools/venv/bin/pip" install --quiet --upgrade --no-deps --only-binary :all: \
      --python-version "$python_version" --target "$tools" "rotel==$rotel_version"
    chmod +x "$tools/rotel/rotel-agent"
  fi
}

lane_dependencies() {
  if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q "$cargo_deny_version"; then
    # Without optimisation it is built in a third of the time, and it runs for seconds.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked cargo-deny \
      --version "$cargo_deny_version" --root "$tools"
  fi
  local deny=("$tools/bin/cargo-deny" --config .cargo/deny.toml --locked --log-level error)
  "${deny[@]}" check licenses bans sources
  # The database is on GitHub, which not every machine reaches. If it is there, a finding fails.
  if "${deny[@]}" fetch db; then
    "${deny[@]}" check --disable-fetch advisories
  else
    skip "known vulnerabilities: the advisory database is out of reach"
  fi
}

lane_format() {
  cargo fmt --all --check
}

lane_lints() {
  install_compiler
  cargo clippy --release --workspace --all-targets -- -D warnings
  cargo clippy --release -p camshaft-producer --no-default-features -- -D warnings
}

lane_deploy() {
  install_rabbitmq
  tests/deploy/monitoring.sh
  tests/deploy/images.sh
  tests/deploy/kubernetes.sh | tee "$output"
  grep '^SKIPPED' "$output" >>"$CAMSHAFT_TESTS_SKIPPED" || true
  deploy/release.sh --check
}

lane_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
}

lane_programs() {
  install_compiler
  cargo build --release --workspace
}

# Runs `cargo test` with these arguments and adds up its results.
cargo_test() {
  local status=0 counted
  cargo test --release "$@" | tee "$output" || status=$?
  counted=$(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$output")
  passed=$((passed + ${counted% *}))
  failed=$((failed + ${counted#* }))
  return "$status"
}

# Many suites wait for a broker or a worker, and leave cores to others. The GPU engine's tests find an
# emulated driver beside them.
lane_tests() {
  install_services
  cargo build --release --workspace
  tests/gpu/emulator/build.sh
  LD_LIBRARY_PATH="$PWD/target/emulator${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" CAMSHAFT_CUDA_EMULATED=1 \
    RUST_TEST_THREADS=$((2 * $(nproc))) cargo_test --workspace
}

lane_fuzz() {
  install_compiler
  tests/fuzz/run.sh 10
}

# Prints the packages that may hold tests whose name contains $1: those with a function or a file of
# that name. Nothing if the name is in none.
packages_with() {
  local name=${1##*::} file folder
  {
    grep -rlE --include='*.rs' "fn [a-z0-9_]*$name" common producer worker tests || true
    find common producer worker tests -name '*.rs' -path "*$name*"
  } | while read -r file; do
    folder=$(dirname "$file")
    until [ -f "$folder/Cargo.toml" ]; do folder=$(dirname "$folder"); done
    sed -n 's/^name = "\(camshaft[a-z-]*\)"$/\1/p' "$folder/Cargo.toml" | head -1
  done | sort -u
}

# Only the tests whose name contains $1. All packages are selected, whatever is built: with fewer,
# Cargo would choose other features of dependencies and compile those again.
run_named() {
  local name=$1 packages
  shift
  install_services
  packages=$(packages_with "$name")
  cargo build --release --workspace --bin camshaft --bin camshaft-worker
  if [ "$packages" = camshaft-tests ]; then
    cargo_test --workspace --test suites -- "$name" "$@"
  else
    cargo_test --workspace --tests -- "$name" "$@"
  fi
}

summary() {
  local skipped
  skipped=$(wc -l <"$CAMSHAFT_TESTS_SKIPPED")
  if [ "$skipped" -gt 0 ]; then
    say "SKIPPED: $skipped checks"
    sort "$CAMSHAFT_TESTS_SKIPPED" | sed 's/^SKIPPED:* */  /; t; s/^/  /'
  fi
  [ $((passed + failed)) -eq 0 ] || printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
}

run_lanes() {
  local lane start
  for lane in "$@"; do
    say "$lane: $(describe "$lane")"
    start=$SECONDS
    "lane_$lane"
    echo "$lane: $((SECONDS - start)) s"
  done
}

case ${1:-} in
  --list)
    for lane in "${lanes[@]}"; do printf '%-13s %s\n' "$lane" "$(describe "$lane")"; done
    ;;
  --help | -h) echo "$usage" ;;
  --lane)
    shift
    [ $# -gt 0 ] || { echo "$usage" >&2; exit 2; }
    for lane in "$@"; do
      describe "$lane" >/dev/null || { echo "no lane $lane; there are ${lanes[*]}" >&2; exit 2; }
    done
    trap 'summary; rm -f "$CAMSHAFT_TESTS_SKIPPED" "$output"' EXIT
    run_lanes "$@"
    ;;
  -*) echo "$usage" >&2; exit 2 ;;
  '')
    trap 'summary; rm -f "$CAMSHAFT_TESTS_SKIPPED" "$output"' EXIT
    run_lanes "${lanes[@]}"
    ;;
  *)
    trap 'summary; rm -f "$CAMSHAFT_TESTS_SKIPPED" "$output"' EXIT
    run_named "$@"
    if [ $((passed + failed)) -eq 0 ]; then
      echo "no test's name contains \"$1\"" >&2
      exit 1
    fi
    ;;
esac
