"""Checks rules of deploy/compose.yaml and deploy/Dockerfile that schemas cannot express.

Reads `docker compose config --format json` from standard input, and prints each broken rule. Run by
images.sh.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The programs read these through clap: `env = "CAMSHAFT_…"` in an option's declaration.
OPTIONS = re.compile(r'env = "(CAMSHAFT_[A-Z_]+)"')
# Those of object_store's that docs/SECURITY.md and the README name.
STORE_OPTIONS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP",
}


def sources():
    for crate in ("common", "producer", "worker"):
        for path in sorted((ROOT / crate).rglob("*.rs")):
            yield path.read_text()


def options_and_drain_timeout():
    """The variables that the programs read, and the worker's default for draining."""
    text = "\n".join(sources())
    drain = re.search(r'"CAMSHAFT_DRAIN_TIMEOUT".*?default_value_t = (\d+)', text)
    return set(OPTIONS.findall(text)), int(drain[1])


def tag(image):
    """The tag of an image's name, or nothing if it has none."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[2]


def seconds(duration):
    """The seconds in one of Compose's durations, such as 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def pinned(name, image):
    if tag(image) in ("", "latest"):
        yield f"{name}: {image} has no tag, or one that says nothing"


def of_dockerfile(text, options, version):
    """Rules for the Dockerfile."""
    for name, image in re.findall(r"^ARG (\w+_IMAGE)=(\S+)", text, re.MULTILINE):
        yield from pinned(f"Dockerfile: {name}", image)
    stages = set(re.findall(r"^FROM .* AS (\S+)$", text, re.MULTILINE))
    for image in re.findall(r"^FROM (?:--\S+ )*(\S+)", text, re.MULTILINE):
        if image not in stages and not re.fullmatch(r"\$\{\w+_IMAGE\}", image):
            yield f"Dockerfile: {image} is neither a stage nor an argument with a pinned image"
    runtime = re.search(r"^ARG RUNTIME_IMAGE=(\S+)", text, re.MULTILINE)[1]
    if f'base.name="{runtime}"' not in text:
        yield f"Dockerfile: the label base.name is not {runtime}"
    if f"ARG VERSION={version}\n" not in text:
        yield f"Dockerfile: VERSION is not the workspace's {version}"
    for variable in set(re.findall(r"CAMSHAFT_[A-Z_]+", text)) - options:
        yield f"Dockerfile: no program reads {variable}"
    if not re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.MULTILINE):
        yield "Dockerfile: no USER with numbers other than root's"


def of_service(name, service, services, options, drain_timeout):
    """Rules for one service."""
    yield from pinned(name, service["image"])
    for port in service.get("ports", []):
        if port.get("host_ip") != "127.0.0.1":
            yield f"{name}: port {port['target']} is open to other machines"
    for volume in service.get("volumes", []):
        if volume["type"] == "bind" and not Path(volume["source"]).exists():
            yield f"{name}: there is no {volume['source']} to mount"
    for other, wait in service.get("depends_on", {}).items():
        if wait["condition"] == "service_healthy" and "healthcheck" not in services[other]:
            yield f"{name}: waits for {other} to be healthy, which nothing tells"
    if "build" in service:
        yield from of_our_service(name, service, options)
    if name == "worker" and seconds(service.get("stop_grace_period", "10s")) <= drain_timeout:
        yield f"{name}: is killed before it has drained for {drain_timeout} s"


def of_our_service(name, service, options):
    """Rules for services of images that are built here."""
    for variable in service["environment"]:
        if variable not in options | STORE_OPTIONS:
            yield f"{name}: no program reads {variable}"
    # Otherwise Compose may ask a registry for them, and there the name may belong to somebody else.
    if service.get("pull_policy") != "build":
        yield f"{name}: pull_policy is not build"
    if not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
        yield f"{name}: has rights that it doesn't need"


def main():
    services = json.load(sys.stdin)["services"]
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    options, drain_timeout = options_and_drain_timeout()
    problems = list(of_dockerfile(dockerfile, options, version))
    for name, service in services.items():
        problems += of_service(name, service, services, options, drain_timeout)
        build = service.get("build")
        if build and f" AS {build['target']}\n" not in dockerfile:
            problems.append(f"{name}: the Dockerfile has no target {build['target']}")
        if build and tag(service["image"]) != version:
            problems.append(f"{name}: {service['image']} is not of version {version}")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(services)} services and the Dockerfile: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
