#!/usr/bin/env bash
# Runs every check and every test, on a machine with Rust, Python 3 and apt; installs what
# is missing. Arguments go to the tests: `tests/run.sh killing_workers` runs those that match.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="$PWD/target/tools"
s3s_fs_version=0.14.1 # the newest that Rust 1.95 builds
moto_version='>=5.2,<6'
cargo_deny_version=0.20.2
rotel_version=0.0.1a15 # an OpenTelemetry collector

say() { printf '\n== %s\n' "$*"; }

apt_install() {
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

say "services for the tests"
if [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
  apt_install rabbitmq-server
fi
if ! command -v c++ >/dev/null; then # the fuzz targets' libFuzzer is C++
  apt_install g++
fi
if ! "$tools/bin/s3s-fs" --version 2>/dev/null | grep -q "$s3s_fs_version"; then
  cargo install --quiet --locked s3s-fs --version "$s3s_fs_version" --features binary --root "$tools"
fi
if [ ! -x "$tools/venv/bin/moto_server" ] || ! "$tools/venv/bin/python" -c 'import duckdb, PIL, playwright' 2>/dev/null; then
  python3 -m venv "$tools/venv" 2>/dev/null || { apt_install python3-venv && python3 -m venv --clear "$tools/venv"; }
  # Playwright drives Debian's browser; its own are not fetched.
  "$tools/venv/bin/pip" install --quiet "moto[server]$moto_version" 'duckdb>=1.4,<2' 'playwright>=1.55,<2' pillow
fi
if ! command -v chromium >/dev/null; then
  apt_install chromium
fi
if ! /usr/bin/python3 -c 'import torch, h5py, numpy, venv, ensurepip' 2>/dev/null; then
  apt_install python3-torch python3-h5py python3-numpy python3-venv
fi
if ! "$tools/torch/bin/python" -c 'import torch, safetensors, transformers, PIL' 2>/dev/null; then
  /usr/bin/python3 -m venv --clear --system-site-packages "$tools/torch"
  # The last transformers for Debian 12's PyTorch.
  "$tools/torch/bin/pip" install --quiet 'transformers==4.30.2' 'safetensors<0.5' pillow
fi

if [ ! -x "$tools/rotel/rotel-agent" ] || [ ! -d "$tools/rotel-$rotel_version.dist-info" ]; then
  # It needs the shared library of the Python its wheel is for.
  python_version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  ldconfig -p | grep -q "libpython$python_version.so.1.0" || apt_install "libpython$python_version"
  "$tools/venv/bin/pip" install --quiet --upgrade --no-deps --only-binary :all: \
    --python-version "$python_version" --target "$tools" "rotel==$rotel_version"
  chmod +x "$tools/rotel/rotel-agent"
fi

say "dependencies: licences, sources, advisories"
if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q "$cargo_deny_version"; then
  # Unoptimised: built in a third of the time, and it runs for seconds.
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked cargo-deny \
    --version "$cargo_deny_version" --root "$tools"
fi
deny=("$tools/bin/cargo-deny" --config .cargo/deny.toml --locked --log-level error)
"${deny[@]}" check licenses bans sources
# The database is on GitHub, which not every machine reaches. What it finds has to fail.
if "${deny[@]}" fetch db; then
  "${deny[@]}" check --disable-fetch advisories
else
  echo "SKIPPED: known vulnerabilities were not looked for: the advisory database is out of reach"
fi

say "format"
cargo fmt --all --check

say "lints"
cargo clippy --release --workspace --all-targets -- -D warnings
cargo clippy --release -p camshaft-producer --no-default-features -- -D warnings

say "what is deployed: monitoring, images, Kubernetes"
tests/deploy/monitoring.sh
tests/deploy/images.sh
tests/deploy/kubernetes.sh

say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

say "programs"
cargo build --release --workspace

say "tests"
cargo test --release --workspace -- "$@"

# Who asks for a test by name is not after this.
if [ $# -eq 0 ]; then
  say "fuzzing"
  tests/fuzz/run.sh 30
fi
