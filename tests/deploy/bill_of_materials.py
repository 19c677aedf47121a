"""Checks a program's bill of materials (CycloneDX, JSON) on standard input against Cargo.lock: it names
crates that every program of ours is built from, and none that is not in the lock. Run by
build-images.sh."""

import json
import sys
import tomllib
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "Cargo.lock"
# The network, the broker, the store.
CERTAIN = {"candle-core", "lapin", "object_store", "camshaft-common"}


def main():
    bill = json.load(sys.stdin)
    named = {(part["name"], part["version"]) for part in bill["components"]}
    locked = {(package["name"], package["version"]) for package in tomllib.loads(LOCK.read_text())["package"]}
    missing = CERTAIN - {name for name, _ in named}
    strange = named - locked
    print(f"{bill['bomFormat']} {bill['specVersion']}: {len(named)} crates")
    if missing or strange:
        print(f"missing: {sorted(missing)}; not in Cargo.lock: {sorted(strange)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
