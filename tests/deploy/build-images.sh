#!/usr/bin/env bash
# Builds the images `producer` and `worker` of deploy/Dockerfile, checks their content, and runs them as
# user 65532, without rights, on a root file system that is read-only: an audit of the sample photos in
# one process, and that of compose.yaml with workers.
#
# Run it by hand, as root: it compiles the workspace (ten minutes on two cores) and leaves 5 GB in
# target/images. It asks no registry. Instead of the Dockerfile's base images it uses two that it makes
# from Debian 13's packages, as the real ones are: one with this machine's Rust, the other with only
# the C libraries and certificates. It does not check the real base images and the CUDA stages.
# shellcheck disable=SC2016 # hooks expand their $1, the new root, by themselves
set -euo pipefail
cd "$(dirname "$0")/../.."

tools="$PWD/target/tools/deploy"
images="$PWD/target/images"
rust_image=localhost/stand-in/rust:trixie
runtime_image=localhost/stand-in/distroless-cc:trixie
auditable2cdx_version=0.1.0

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

sysroot=$(rustc --print sysroot)
[ "$(id -u)" = 0 ] || fail "run this as root"
[ "$sysroot" != /usr ] || fail "this copies the toolchain of rustup; there is none"
export PATH="$PATH:/usr/sbin"
for needed in podman runc mmdebstrap epmd rclone curl; do
  command -v "$needed" >/dev/null && continue
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    podman runc mmdebstrap rabbitmq-server rclone curl
done
if [ ! -x "$tools/moto/bin/moto_server" ]; then
  python3 -m venv --clear "$tools/moto"
  "$tools/moto/bin/pip" install --quiet 'moto[server]>=5.2,<6'
fi
tests/deploy/images.sh # its Compose is used below
# runc: crun refuses machines with both versions of control groups.
podman=("$(command -v podman)" --root "$images/storage" --runroot "$images/run" --runtime "$(command -v runc)")
podman() { "${podman[@]}" "$@"; }

say "stand-ins for the base images"
mkdir -p "$images"
debian() {
  mmdebstrap --quiet --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --dpkgopt='path-exclude=/usr/share/doc/*' "$@"
}
# This machine's certificates: a proxy to the registry of crates may have its own.
certificates='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs'
if ! podman image exists "$rust_image"; then
  # The folders of the image `rust`.
  SYSROOT="$sysroot" debian --variant=apt --include=ca-certificates,gcc,libc6-dev \
    --customize-hook="$certificates" \
    --customize-hook='mkdir -p "$1/usr/local/rustup/toolchain" "$1/usr/local/cargo/bin"' \
    --customize-hook='tar -C "$SYSROOT" --exclude=./share -c . | tar -C "$1/usr/local/rustup/toolchain" -x' \
    --customize-hook='ln -s ../../rustup/toolchain/bin/cargo ../../rustup/toolchain/bin/rustc "$1/usr/local/cargo/bin"' \
    trixie "$images/base.tar"
  podman import --quiet --change 'ENV CARGO_HOME=/usr/local/cargo' \
    --change 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$images/base.tar" "$rust_image"
fi
if ! podman image exists "$runtime_image"; then
  debian --variant=extract --include=libc6,libgcc-s1,libstdc++6 \
    --extract-hook='ln -s usr/lib usr/lib64 "$1"' \
    --extract-hook='mkdir -p "$1/etc/ssl/certs" "$1/home/nonroot" && chown 65532:65532 "$1/home/nonroot"' \
    --extract-hook="$certificates" \
    --extract-hook='printf "root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n" >"$1/etc/passwd"' \
    trixie "$images/base.tar"
  podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/bin' "$images/base.tar" "$runtime_image"
fi
rm -f "$images/base.tar"

say "build"
build() {
  # Docker's format: OCI's has no HEALTHCHECK.
  podman build --quiet --format docker --isolation chroot --file deploy/Dockerfile --target "$1" --tag "localhost/camshaft/$1:test" \
    --build-arg "RUST_IMAGE=$rust_image" --build-arg "RUNTIME_IMAGE=$runtime_image" \
    --build-arg "REVISION=$(git rev-parse HEAD)" .
}
for target in producer worker; do
  start=$SECONDS
  build "$target"
  echo "$target: $((SECONDS - start)) s"
done

say "what is in them"
if [ ! -x "$tools/bin/auditable2cdx" ]; then
  cargo install --quiet --locked auditable2cdx --version "$auditable2cdx_version" --root "$tools"
fi
for target in producer worker; do
  image="localhost/camshaft/$target:test"
  podman image inspect "$image" | python3 tests/deploy/image_settings.py "$target"
  root=$(podman image mount "$image")
  found=$(find "$root" \( -name sh -o -name 'bash*' -o -name dash -o -name busybox -o -name apt -o -name dpkg \) -type f -o -type l -name sh)
  [ -z "$found" ] || fail "$image has a shell or package manager: $found"
  found=$(find "$root" -perm /6000 -type f)
  [ -z "$found" ] || fail "$image has programs with rights of their owner: $found"
  program=$(find "$root/usr/local/bin" -type f)
  "$tools/bin/auditable2cdx" "$program" >"$images/$target.cdx.json"
  python3 tests/deploy/bill_of_materials.py <"$images/$target.cdx.json"
  for notice in LICENSE README.md cats-vs-dogs.md; do
    [ -s "$root/usr/share/doc/camshaft/$notice" ] || fail "$image has no $notice"
  done
  megabytes=$(du -sm "$root" | cut -f1)
  echo "$target: $megabytes MB, the program $(du -m "$program" | cut -f1)"
  [ "$megabytes" -le 130 ] || fail "$image is larger than 130 MB"
  podman image unmount "$image" >/dev/null
done

say "what they do"
# As compose.yaml and Kubernetes start them. Limits are named: podman would raise them.
confined=("${podman[@]}" run --rm --read-only --read-only-tmpfs=false --cap-drop all
  --security-opt no-new-privileges --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
out="$images/audit"
rm -rf "$out"
install -d --owner=65532 --group=65532 "$out"
# A report sorts its tables in temporary files; nothing else is written, and workers get no /tmp.
"${confined[@]}" --network none --tmpfs /tmp --volume "$PWD/tests/data/photos:/photos:ro" --volume "$out:/out" \
  localhost/camshaft/producer:test audit /photos --out /out
photos=$(find tests/data/photos -type f ! -name 'broken-*' | wc -l)
predictions=$(find "$out/predictions" -type f -user 65532 | wc -l)
[ "$predictions" = "$photos" ] || fail "$predictions predictions of $photos photos"
[ -s "$out/report/index.html" ] || fail "no report"
# Every user may write to /tmp, so that only the read-only root file system prevents it.
if "${confined[@]}" --network none localhost/camshaft/producer:test audit /usr/share/doc --out /tmp/out 2>"$images/refused"; then
  fail "it could write to its root file system"
fi
grep -q 'cannot write /tmp/out' "$images/refused" || fail "it failed otherwise: $(cat "$images/refused")"

# A worker whose broker isn't there waits for it and says so.
"${confined[@]}" --detach --name camshaft-worker-test --network host --env CAMSHAFT_HEALTH=127.0.0.1:18080 \
  --env CAMSHAFT_BROKER=amqp://127.0.0.1:1/%2f localhost/camshaft/worker:test >/dev/null
trap 'podman rm --force camshaft-worker-test >/dev/null 2>&1 || true' EXIT
for _ in $(seq 100); do
  curl --silent --fail http://127.0.0.1:18080/livez && break
  sleep 0.1
done
echo
curl --silent --fail http://127.0.0.1:18080/livez >/dev/null || fail "the worker does not answer /livez"
status=$(curl --silent --output "$images/readyz" --write-out '%{http_code}' http://127.0.0.1:18080/readyz)
[ "$status" = 503 ] || fail "/readyz says $status: $(cat "$images/readyz")"
# The image's own health check asks if the worker lives. It does, even without a broker.
podman healthcheck run camshaft-worker-test || fail "the health check finds it ill"
podman exec camshaft-worker-test /usr/local/bin/camshaft-worker --health 127.0.0.1:1 --check-health \
  2>"$images/ill" && fail "the health check finds well what isn't there"
grep -q 127.0.0.1:1 "$images/ill" || fail "the health check failed otherwise: $(cat "$images/ill")"
podman stop --time 10 camshaft-worker-test >/dev/null

say "compose.yaml's audit"
rm -rf "$images/demo"
"$tools/compose/usr/libexec/docker/cli-plugins/docker-compose" -f deploy/compose.yaml config --format json \
  | python3 tests/deploy/demo.py "$images/demo" "$tools/moto/bin/moto_server" "${confined[@]}" --no-healthcheck

say "all as it should be"
