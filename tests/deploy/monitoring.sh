#!/usr/bin/env bash
# Checks deploy/monitoring: Prometheus accepts the rules and the configuration, each alert fires if it
# should and only then, and rules and dashboard ask only for metrics that docs/monitoring.md describes. Takes some seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."

monitoring=deploy/monitoring
tools="$PWD/target/tools/prometheus"

# promtool is part of Debian's package of Prometheus. The package is unpacked here, not installed:
# installed, it would start a server and need a dozen packages for its pages.
promtool="$(command -v promtool || echo "$tools/usr/bin/promtool")"
if [ ! -x "$promtool" ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  rm -rf "$tools" && mkdir -p "$tools"
  # As root: apt's own user may not write here.
  (cd "$tools" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .)
  # The package unpacks to a hundred megabytes; promtool is half of that.
  find "$tools" -type f ! -path "$promtool" -delete
fi

"$promtool" check config "$monitoring/prometheus.yaml" # and the rules that it names
"$promtool" test rules "$monitoring/alerts_test.yaml"
"$monitoring/dashboard.py" --check
python3 tests/deploy/monitoring.py --promtool "$promtool"
