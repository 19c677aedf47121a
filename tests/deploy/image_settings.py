"""Checks an image's settings: `podman image inspect IMAGE` on standard input, the target's name as
argument. Run by build-images.sh."""

import json
import sys

ENTRYPOINTS = {"producer": ["/usr/local/bin/camshaft"], "worker": ["/usr/local/bin/camshaft-worker"]}
LABELS = ("title", "description", "version", "revision", "licenses")


def problems(target, config):
    labels = config.get("Labels") or {}
    for label in LABELS:
        if labels.get(f"org.opencontainers.image.{label}", "unknown") == "unknown":
            yield f"no label {label}"
    if config.get("User") != "65532:65532":
        yield f"user is {config.get('User')!r}"
    if config.get("Entrypoint") != ENTRYPOINTS[target]:
        yield f"entry point is {config.get('Entrypoint')!r}"
    if target == "worker" and "8080/tcp" not in config.get("ExposedPorts", {}):
        yield "port 8080 is not named"


def main():
    target = sys.argv[1]
    found = list(problems(target, json.load(sys.stdin)[0]["Config"]))
    for problem in found:
        print(f"{target}: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
