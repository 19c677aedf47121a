#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER for fuzz targets: compiles this workspace's crates with libFuzzer's
# coverage counters and overflow checks. Other crates are compiled as in every other build, so that
# both builds share them. Their generic code, which is most of the decoders and of serde, is compiled
# into our crates and so is counted too. The flags are those of cargo-fuzz with `--sanitizer none`;
# stable Rust has them all.
exec "$@" \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Coverflow-checks
