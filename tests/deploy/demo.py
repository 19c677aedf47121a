"""Runs deploy/compose.yaml's own services as it says, without Compose: enqueue, the workers, done and
report, with its commands and variables, from the images that build-images.sh has made.

Debian's RabbitMQ and rclone, and moto, replace its broker, store and rclone, at the same ports and
names. Reads `docker compose config --format json` from standard input;
arguments: a folder to work in, then the command that runs a container. Run by build-images.sh.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# They start within seconds; a busy machine takes longer.
DEADLINE_SECONDS = 300


def wait_for(what, happened):
    """Waits until `happened` returns true."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        if time.monotonic() > end:
            sys.exit(f"FAILED: {what} did not come in {DEADLINE_SECONDS} s")
        time.sleep(0.2)


def start_broker(servers, folder, user, password):
    """Debian's RabbitMQ with the user of compose.yaml, at the usual port."""
    folder.mkdir()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:5672\ndefault_user = {user}\ndefault_pass = {password}\n"
    )
    (folder / "enabled_plugins").write_text("[].\n")
    environment = os.environ | {
        "HOME": str(folder), "RABBITMQ_NODENAME": "demo@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"), "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"), "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": str(folder / "log"), "RABBITMQ_DIST_PORT": "25699", "ERL_EPMD_PORT": "43699",
    }  # fmt: skip
    # Erlang's port mapper, which the broker would otherwise start and leave behind.
    servers.append(subprocess.Popen(["epmd"], env=environment, start_new_session=True))
    server = subprocess.Popen(
        [RABBITMQ], env=environment, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    )
    servers.append(server)
    log = folder / "log"

    def started():
        if server.poll() is not None:
            sys.exit(f"FAILED: the broker ended; {log} says why")
        return log.exists() and "Server startup complete" in log.read_text()

    wait_for("the broker", started)


def start_store(servers, folder, moto_server):
    """moto, at the port of compose.yaml's store."""
    # Otherwise moto takes the host's name, `store`, for a bucket's name.
    environment = os.environ | {"S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}
    command = [moto_server, "-H", "127.0.0.1", "-p", "8333"]
    with (folder / "store.log").open("wb") as log:
        servers.append(subprocess.Popen(command, env=environment, stderr=log, start_new_session=True))

    def answers():
        try:
            return urllib.request.urlopen("http://127.0.0.1:8333/moto-api/", timeout=5).status == 200
        except OSError:
            return False

    wait_for("the store", answers)


def rclone(service, command):
    """Runs a command of a service of rclone's with Debian's rclone; returns what it says."""
    variables = {
        name: value.replace("//store:", "//127.0.0.1:") for name, value in service["environment"].items()
    }
    # Not the caller's variables: rclone reads AWS_… too.
    variables |= {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    done = subprocess.run(["rclone", *command], env=variables, check=True, stdout=subprocess.PIPE, timeout=120)
    return done.stdout


def put_photos(service):
    """Does what the service `photos` does. Returns the number of photos, and of broken files among them."""
    mount = service["volumes"][0]
    command = [mount["source"] if word == mount["target"] else word for word in service["command"]]
    rclone(service, command)
    names = [path.name for path in Path(mount["source"]).rglob("*") if path.is_file()]
    return len(names), sum(name.startswith("broken-") for name in names)


def run(service, podman, *more):
    """A container as compose.yaml describes it, which uses this machine's network."""
    variables = [f"--env={name}={value}" for name, value in service["environment"].items()]
    folders = [f"--tmpfs={path}" for path in service.get("tmpfs", [])]
    image = re.sub(r"^(camshaft/\w+):.*", r"localhost/\1:test", service["image"])
    return [*podman, "--network=host", "--add-host=rabbitmq:127.0.0.1", "--add-host=store:127.0.0.1",
            *variables, *folders, *more, image, *(service["command"] or [])]  # fmt: skip


def audit(services, podman, photos, broken):
    subprocess.run(run(services["enqueue"], podman), check=True)
    workers = [
        # Both are on this machine's network, which has the port once.
        subprocess.Popen(run(services["worker"], podman, f"--env=CAMSHAFT_HEALTH=127.0.0.1:{port}"))
        for port in range(18080, 18080 + services["worker"]["deploy"]["replicas"])
    ]
    try:
        done = subprocess.run(run(services["done"], podman), check=True, capture_output=True, timeout=600)
        last = json.loads(done.stdout.splitlines()[-1])
        print(last)
        if (last["images"], last["done"], last["failed"]) != (photos, photos - broken, broken):
            sys.exit(f"FAILED: expected {photos - broken} of {photos} photos done and {broken} failed")
        subprocess.run(run(services["report"], podman), check=True)
    finally:
        for worker in workers:
            worker.terminate()
    if any(worker.wait(60) for worker in workers):
        sys.exit("FAILED: a worker did not end as it should")
    page = rclone(services["results"], ["cat", "store:data/audit/report/index.html"])
    if b"</html>" not in page:
        sys.exit("FAILED: no report")
    print(f"report/index.html: {len(page)} bytes")


def main():
    folder, moto_server, *podman = sys.argv[1:]
    services = json.load(sys.stdin)["services"]
    broker = services["rabbitmq"]["environment"]
    servers = []
    try:
        start_broker(
            servers, Path(folder), broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_PASS"]
        )
        start_store(servers, Path(folder), moto_server)
        audit(services, podman, *put_photos(services["photos"]))
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
