#!/usr/bin/env bash
# Makes a release archive for the kind of machine that this runs on:
#
#   deploy/release.sh            builds target/release-archive/camshaft-VERSION-TRIPLE.tar.gz and SHA256SUMS
#   deploy/release.sh --check    only checks, in seconds, that the files it needs are there
#
# The archive holds `camshaft`, `camshaft-worker`, README, CHANGELOG, the licences, completions for shells,
# manual pages, and each program's bill of materials (CycloneDX). The bill is read from the program:
# cargo-auditable writes the crates that a program was built from into it. The C library of the machine
# that builds must not be newer than that of the machines that run the programs.
set -euo pipefail
cd "$(dirname "$0")/.."

# As in deploy/Dockerfile and tests/deploy/build-images.sh.
cargo_auditable_version=0.7.7
auditable2cdx_version=0.1.0
tools="$PWD/target/tools"
programs=(camshaft camshaft-worker)
documents=(README.md CHANGELOG.md LICENSE)
model_card=worker/model/models/cats-vs-dogs/README.md

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || fail "Cargo.toml names no version of the workspace"
triple=$(rustc -vV | sed -n 's/^host: //p')
[ -n "$triple" ] || fail "rustc names no host"
for file in "${documents[@]}" "$model_card"; do
  [ -s "$file" ] || fail "$file is missing"
done
grep -q "CARGO_AUDITABLE_VERSION=$cargo_auditable_version\$" deploy/Dockerfile ||
  fail "deploy/Dockerfile uses another version of cargo-auditable than $cargo_auditable_version"
grep -q "auditable2cdx_version=$auditable2cdx_version\$" tests/deploy/build-images.sh ||
  fail "tests/deploy/build-images.sh uses another version of auditable2cdx than $auditable2cdx_version"

case ${1:-} in
  --check)
    echo "release: camshaft-$version-$triple can be made"
    exit 0
    ;;
  '') ;;
  *) fail "unknown argument $1; see the head of $0" ;;
esac

install_tool() {
  local name=$1 wanted=$2
  [ -x "$tools/bin/$name" ] && grep -q "^\"$name $wanted " "$tools/.crates.toml" && return
  cargo install --quiet --locked "$name" --version "$wanted" --root "$tools"
}
install_tool cargo-auditable "$cargo_auditable_version"
install_tool auditable2cdx "$auditable2cdx_version"

PATH="$tools/bin:$PATH" cargo auditable build --locked --release -p camshaft-producer -p camshaft-worker
built="${CARGO_TARGET_DIR:-target}/release"

name="camshaft-$version-$triple"
out="$PWD/target/release-archive"
folder="$out/$name"
rm -rf "$out"
mkdir -p "$folder"
for program in "${programs[@]}"; do
  install "$built/$program" "$folder/$program"
  # Function names stay, for the trace of a panic; lines and types are some 50 MB.
  strip --strip-debug "$folder/$program"
  "$tools/bin/auditable2cdx" "$folder/$program" >"$folder/$program.cdx.json"
  python3 tests/deploy/bill_of_materials.py <"$folder/$program.cdx.json"
  "$folder/$program" --version | grep -q "$version" || fail "$program does not say that it is $version"
done
install -m 644 "${documents[@]}" "$folder"
# For shells and for `man`, which know each program by its name.
mkdir "$folder/completions"
"$folder/camshaft" completions bash >"$folder/completions/camshaft.bash"
"$folder/camshaft" completions zsh >"$folder/completions/_camshaft"
"$folder/camshaft" completions fish >"$folder/completions/camshaft.fish"
"$folder/camshaft" man "$folder/man"
# The licence of the checkpoint inside the programs.
install -m 644 "$model_card" "$folder/cats-vs-dogs.md"
# libjpeg-turbo's, which asks for its notice beside programs that have it inside.
libjpeg=$(cargo metadata --locked --format-version 1 |
  python3 -c 'import json, sys; print(*[p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "mozjpeg-sys"])')
install -m 644 "$(dirname "$libjpeg")/LICENSE" "$folder/libjpeg-turbo.txt"

# Sorted, without names or ids of this machine's users, and with the time of the commit: the same
# files give the same archive.
time=$(git log -1 --format=@%ct 2>/dev/null || echo @0)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="$time" -C "$out" -c "$name" | gzip -n -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >SHA256SUMS)
rm -rf "$folder"
echo "$out/$name.tar.gz: $(du -m "$out/$name.tar.gz" | cut -f1) MB"
cat "$out/SHA256SUMS"
