#!/usr/bin/env bash
# Checks deploy/monitoring: that Prometheus takes the rules and the configuration, that each alert
# fires where it should and nowhere else, and that rules and dashboard ask only for metrics that
# docs/monitoring.md describes. Takes some seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."

monitoring=deploy/monitoring
tools="$PWD/target/tools/prometheus"

# Prometheus' own checker comes with Debian's package of Prometheus, which is unpacked here rather
# than installed: installed, it would start a server and bring a dozen packages for its pages.
promtool="$(command -v promtool || echo "$tools/usr/bin/promtool")"
if [ ! -x "$promtool" ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  rm -rf "$tools" && mkdir -p "$tools"
  # As root, for apt's own user may not write here.
  (cd "$tools" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .)
  # A hundred megabytes, of which this is half.
  find "$tools" -type f ! -path "$promtool" -delete
fi

"$promtool" check config "$monitoring/prometheus.yaml" # and the rules that it names
"$promtool" test rules "$monitoring/alerts_test.yaml"
"$monitoring/dashboard.py" --check
python3 tests/deploy/monitoring.py --promtool "$promtool"
