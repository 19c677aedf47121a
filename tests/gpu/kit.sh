#!/usr/bin/env bash
# Makes a kit that measures a GPU on a machine without Rust: target/gpu-kit/camshaft-gpu-kit.tar.xz, under 60 MiB.
#
#   tests/gpu/kit.sh [PEERS]    PEERS: a folder with gradcam_torch_gpu.py and gradcam_torch_gpu_audit.py, the
#                               PyTorch programs that Camshaft is compared with; ../shared/peers if it is there
#
# It holds two programs built with the feature `cuda`, without the bundled model; the model; photographs; what
# the CPU computes of them in f32; and run.sh with its Python scripts. Building takes ten minutes of two cores
# the first time, the CPU's results some ten more. The C library of the machine with the GPU must not be older
# than this machine's.
set -euo pipefail
cd "$(dirname "$0")/../.."

peers=${1:-../shared/peers}
photos=../shared/data/photos
[ -d "$photos" ] || photos=tests/data/photos
number_of_photos=24
most_mib=60
name=camshaft-gpu-kit
out="$PWD/target/gpu-kit"
kit="$out/$name"

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

say "programs"
# shellcheck source=tests/gpu/nvcc.sh
source tests/gpu/nvcc.sh
# A folder of its own: other features of many crates would be built in the usual one.
export CARGO_TARGET_DIR="$PWD/target/cuda"
built=$(cargo build --locked --release -p camshaft-producer -p camshaft-tests --no-default-features \
  --features camshaft-producer/cuda,camshaft-tests/cuda --bin camshaft --bench model \
  --message-format json-render-diagnostics |
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])
')
# program NAME: where Cargo put it.
program() {
  local path
  path=$(awk -v name="$1" '$1 == name { print $2 }' <<<"$built")
  [ -n "$path" ] || fail "cargo built no $1"
  echo "$path"
}
rm -rf "$kit"
mkdir -p "$kit/scripts" "$kit/photos"
install "$(program camshaft)" "$kit/camshaft"
install "$(program model)" "$kit/model-bench"
strip "$kit/camshaft" "$kit/model-bench"

say "model, photographs, scripts"
cp -r worker/model/models/cats-vs-dogs "$kit/model"
python3 - "$photos" "$kit/photos" "$number_of_photos" <<'PHOTOS'
import shutil, sys
from pathlib import Path
source, kit, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
photos = sorted(path for path in source.rglob("*.jpg") if not path.name.startswith("broken-"))
if len(photos) < number:
    sys.exit(f"{source} has {len(photos)} photographs, not {number}")
for at in range(number):
    shutil.copy(photos[at * len(photos) // number], kit)
PHOTOS
cp tests/gpu/*.py "$kit/scripts"
cp tests/gpu/run.sh "$kit"
for peer in gradcam_torch_gpu.py gradcam_torch_gpu_audit.py; do
  if [ -f "$peers/$peer" ]; then
    install -D -m 644 --target-directory="$kit/peers" "$peers/$peer"
  else
    echo "without $peer: there is no $peers/$peer"
  fi
done
cp LICENSE "$kit"
version=$("$kit/camshaft" --version)
echo "${version##* } ($(git rev-parse --short HEAD))" >"$kit/VERSION"

say "what the CPU computes in f32"
python3 tests/gpu/cases.py | while read -r case options; do
  start=$SECONDS
  # shellcheck disable=SC2086 # options are words without blanks
  "$kit/camshaft" audit "$kit/photos" --out "$out/reference" --model "$kit/model" --device cpu --precision f32 \
    $options </dev/null
  python3 - "$out/reference/predictions" "$kit/references/$case/predictions" <<'REFERENCES'
import json, sys
from pathlib import Path
source, kit = map(Path, sys.argv[1:])
for path in sorted(source.rglob("*.json")):
    record = json.loads(path.read_text())
    # Six digits of a map are enough for a cosine, and take half of the place. Logits stay as they are.
    for explanation in record["explanations"]:
        explanation["map"]["values"] = [float(f"{value:.6g}") for value in explanation["map"]["values"]]
    place = kit / path.relative_to(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record, separators=(",", ":")))
REFERENCES
  rm -rf "$out/reference"
  echo "$case: $((SECONDS - start)) s"
done

say "archive"
archive="$out/$name.tar.xz"
# The filter for x86 makes the programs a tenth smaller, and other files no larger to speak of.
filters=()
[ "$(uname -m)" != x86_64 ] || filters=(--x86)
tar --sort=name --owner=0 --group=0 --numeric-owner -C "$out" -c "$name" |
  xz --threads=2 "${filters[@]}" --lzma2=preset=6 >"$archive"
mib=$((($(stat -c %s "$archive") + 1048575) / 1048576))
echo "$archive: $mib MiB"
if [ "$mib" -ge "$most_mib" ]; then
  du -sm "$kit"/* >&2
  fail "the archive is not under $most_mib MiB"
fi
