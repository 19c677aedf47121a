#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER while fuzz targets are built: compiles this workspace's crates
# with what libFuzzer counts coverage by, and overflow checks. Crates of others stay as every
# other build has them, and so are shared with it; their generic code, which is most of the
# decoders' and of serde's, is compiled into ours and counted too. The flags are cargo-fuzz's
# for `--sanitizer none`, and stable Rust has them all.
exec "$@" \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Coverflow-checks
