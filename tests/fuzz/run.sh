#!/usr/bin/env bash
# Fuzzes with stable Rust and a C++ compiler (tests/run.sh installs one):
#   tests/fuzz/run.sh [SECONDS] [TARGET…]
# Runs two targets at a time, each for the number of tries that a core makes in SECONDS (60). Inputs
# that reach new code stay in target/fuzz, and the next run starts with them. If an input breaks a
# target, the script names it and ends with status 1; `target/release/fuzz-TARGET FILE` tries it again.
# The number of tries is fixed, and so is the seed: two runs from the same inputs do the same, but for
# the order of hash maps in libraries. So a failure comes from the change and not from chance or a
# faster core. FUZZ_SEED=0 chooses a random seed.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-60}
shift || true
case $seconds in
  '' | *[!0-9]*) echo "usage: tests/fuzz/run.sh [SECONDS] [TARGET…]" >&2; exit 2 ;;
esac
known=()
for target in tests/fuzz/targets/*.rs; do known+=("$(basename "$target" .rs)"); done
targets=("$@")
[ $# -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [ -f "tests/fuzz/targets/$target.rs" ] || { echo "no target $target; there are ${known[*]}" >&2; exit 2; }
done

bins=()
for target in "${targets[@]}"; do bins+=(--bin "fuzz-$target"); done
RUSTC_WORKSPACE_WRAPPER="$PWD/tests/fuzz/instrument.sh" cargo build --quiet --release -p camshaft-fuzz "${bins[@]}"

# The longest input of a target, in bytes. Longer inputs find nothing else.
longest() {
  case $1 in
    decode) echo 70000 ;; # past the target's limit on a file
    checkpoint) echo 16384 ;;
    *) echo 8192 ;;
  esac
}

# The number of tries a second that a core of 2026 makes, roughly.
pace() {
  case $1 in
    checkpoint) echo 30000 ;;
    config) echo 200000 ;;
    decode) echo 60000 ;;
    exchange) echo 100000 ;;
    listing) echo 20000 ;;
    message) echo 500000 ;;
    *) echo 100000 ;;
  esac
}

fuzz() {
  local target=$1 found=target/fuzz/$1 log=target/fuzz/$1.log more=() words=() broken
  mkdir -p "$found" "target/fuzz/broken"
  [ "$target" != decode ] || more=(tests/data/formats)
  [ ! -f "tests/fuzz/dictionaries/$target.dict" ] || words=(-dict="tests/fuzz/dictionaries/$target.dict")
  if ! "target/release/fuzz-$target" "$found" "tests/fuzz/corpus/$target" "${more[@]}" "${words[@]}" \
    -seed="${FUZZ_SEED:-1}" -runs="$((seconds * $(pace "$target")))" -max_total_time="$((seconds * 4))" -max_len="$(longest "$target")" -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="target/fuzz/broken/$target-" >"$log" 2>&1; then
    broken=$(grep -o 'Test unit written to .*' "$log" | tail -1 || true)
    {
      echo "$target: broken by an input. ${broken:-See $log}"
      grep -A1 -m1 'panicked at' "$log" || grep -m1 'ERROR: libFuzzer' "$log" || tail -5 "$log"
    } >&2
    return 1
  fi
  awk -v target="$target" '
    /INITED cov:/ { for (i = 1; i < NF; i++) if ($i == "cov:") first = $(i + 1) }
    / cov: /      { for (i = 1; i < NF; i++) if ($i == "cov:") last = $(i + 1) }
    /^INFO: Loaded 1 PC tables/ { edges = $6; sub(/^\(/, "", edges) }
    /number_of_executed_units/ { runs = $2 }
    /new_units_added/ { kept = $2 }
    /peak_rss_mb/ { rss = $2 }
    END {
      printf "%-11s %9d tries, %d of %d edges covered (%d at the start), %d inputs kept, %d MB\n",
        target, runs, last, edges, first, kept, rss
      # Without instrumentation libFuzzer would see no coverage and find nothing.
      if (last < 100) { print target ": covers next to nothing; is it instrumented?"; exit 1 }
    }' "$log"
}

failed=0
running=0
for target in "${targets[@]}"; do
  if [ "$running" -ge 2 ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
  fuzz "$target" &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit "$failed"
