#!/usr/bin/env bash
# Tests the NEON kernel on a machine without an Arm CPU: builds worker/kernels for 64-bit Arm and
# runs its tests in qemu, in two minutes. Not part of tests/run.sh, since it needs Rust's
# standard library for Arm: rustup's if it is installed, otherwise Debian's (package
# libstd-rust-web-dev, with the compiler it belongs to).
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
tools="$PWD/target/tools/arm"
apt_install() {
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

for needed in aarch64-linux-gnu-gcc qemu-aarch64-static; do
  command -v "$needed" >/dev/null || apt_install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"

if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add "$target" 2>/dev/null; then
  apt_install rustc-web
  # Arm's packages are unpacked here rather than installed: no second architecture for dpkg.
  if [ ! -d "$tools/usr/lib/rustlib/$target" ]; then
    mkdir -p "$tools/lists/partial"
    options=(-o APT::Architectures::=arm64 -o APT::Architecture=arm64
      -o "Dir::State::lists=$tools/lists" -o "Dir::Cache=$tools" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update -qq
    version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
    (cd "$tools" && apt-get "${options[@]}" download "libstd-rust-web-dev=$version")
    dpkg -x "$tools"/libstd-rust-web-dev_*_arm64.deb "$tools"
    rm -rf "$tools/lists" "$tools"/*.deb "$tools"/*.bin
  fi
  export RUSTC=/usr/bin/rustc
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="--sysroot $tools/usr"
fi
# A folder of its own: another compiler's results would replace those of the usual one.
export CARGO_TARGET_DIR="$PWD/target/arm"
cargo test --release --target "$target" -p camshaft-kernels --lib -- "$@"
