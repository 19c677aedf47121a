"""Sets a real RabbitMQ up as its operators would from the manifests, and then tests it.

kubernetes_broker.py BUILT: like the operators, this makes the virtual host, users, rights, queues and
policies over the management API. Then each user does its work, and tries what it must not do.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pika
import pika.exceptions
import yaml

import topology

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
START_SECONDS = 120
# The management's numbers are some seconds old.
COUNT_SECONDS = 60
PASSWORD = "only-for-this-test"


class Broker:
    """A RabbitMQ of Debian's in a directory of its own, with the management plugin."""

    def __init__(self, directory):
        self.amqp, self.http, distribution, names = free_ports(4)
        (directory / "plugins").write_text("[rabbitmq_management].")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.amqp}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.http}\n"
            f"default_user = admin\ndefault_pass = {PASSWORD}\nlog.console = true\n"
        )
        self.log = directory / "log"
        environment = os.environ | {
            "RABBITMQ_NODENAME": f"camshaft-{self.amqp}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_MNESIA_BASE": str(directory),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "HOME": str(directory),
        }
        # The port mapper as well: one that Erlang starts by itself stays behind.
        mapper = ["epmd", "-port", str(names), "-address", "127.0.0.1"]
        self.processes = [
            subprocess.Popen(
                command, env=environment, stdout=self.log.open("a"), stderr=subprocess.STDOUT, start_new_session=True
            )
            for command in (mapper, [SERVER])
        ]
        deadline = time.monotonic() + START_SECONDS
        while not self._is_up():
            if time.monotonic() > deadline or self.processes[-1].poll() is not None:
                self.stop()
                raise SystemExit(f"FAILED  RabbitMQ did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def _is_up(self):
        try:
            return self.put("vhosts/ready", {}) is None
        except OSError:
            return False

    def put(self, path, body):
        """Puts an object, as the messaging topology operator does."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/api/{path}", json.dumps(body).encode(), method="PUT"
        )
        request.add_header("Content-Type", "application/json")
        login = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def queue(self, user, name):
        """What the management tells a user of a queue. KEDA reads it."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/api/queues/camshaft/{name}")
        login = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def stop(self):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def apply(broker, manifests):
    """Makes what the operators would make of the objects. Passwords are not in the manifests but in Secrets."""
    quote = lambda text: urllib.parse.quote(text, safe="")
    of = lambda kind: [document for document in manifests if document["kind"] == kind]
    for vhost in of("Vhost"):
        broker.put(f"vhosts/{quote(vhost['spec']['name'])}", {})
    for user in of("User"):
        tags = ",".join(user["spec"].get("tags", []))
        broker.put(f"users/{user['metadata']['name']}", {"password": PASSWORD, "tags": tags})
    for permission in of("Permission"):
        spec = permission["spec"]
        broker.put(f"permissions/{quote(spec['vhost'])}/{spec['userReference']['name']}", spec["permissions"])
    for queue in of("Queue"):
        spec = queue["spec"]
        broker.put(
            f"queues/{quote(spec['vhost'])}/{spec['name']}",
            {
                "durable": spec["durable"],
                "auto_delete": spec["autoDelete"],
                "arguments": {**spec["arguments"], "x-queue-type": spec["type"]},
            },
        )


    for policy in of("Policy"):
        spec = policy["spec"]
        try:
            broker.put(
                f"policies/{quote(spec['vhost'])}/{quote(spec['name'])}",
                {"pattern": spec["pattern"], "apply-to": spec["applyTo"], "definition": spec["definition"]},
            )
        except urllib.error.HTTPError as error:
            reason = error.read().decode()
            # Debian's RabbitMQ is older than what the operator brings, which has had it since 3.13.
            if "not recognised" not in reason or "target-group-size" not in reason:
                raise SystemExit(f"FAILED  RabbitMQ refuses {error.url}: {reason}") from error
            print(f"SKIPPED Policy {spec['name']}: this RabbitMQ does not know target-group-size yet")


class User:
    """One of the users. It opens a channel for each action, since a refusal closes the channel."""

    def __init__(self, broker, name):
        credentials = pika.PlainCredentials(name, PASSWORD)
        self.connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", broker.amqp, "camshaft", credentials)
        )

    def does(self, what):
        """Why it could not, or None."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        try:
            what(channel)
        except pika.exceptions.AMQPError as error:
            return str(error)
        return None


def declare(queue, arguments):
    return lambda channel: channel.queue_declare(queue, durable=True, arguments=arguments)


def look(queue):
    return lambda channel: channel.queue_declare(queue, passive=True)


def publish(queue):
    properties = pika.BasicProperties(delivery_mode=2)
    return lambda channel: channel.basic_publish("", queue, b"{}", properties, mandatory=True)


def take(queue):
    return lambda channel: channel.basic_get(queue)


def outcomes(broker, queues):
    """(what, why it failed or None, whether it has to fail)."""
    producer, worker, observer = (User(broker, f"camshaft-{name}") for name in ("producer", "worker", "observer"))
    for queue, arguments in queues.items():
        yield f"producer finds {queue} as it declares it", producer.does(declare(queue, arguments)), False
        yield f"observer counts {queue}", observer.does(look(queue)), False
        yield f"worker declares {queue}", worker.does(declare(queue, arguments)), True
        yield f"observer takes from {queue}", observer.does(take(queue)), True
        yield f"worker puts off to {queue}", worker.does(publish(queue)), False
    other = queues["camshaft.jobs"] | {"x-delivery-limit": 21}
    yield "producer declares camshaft.jobs otherwise", producer.does(declare("camshaft.jobs", other)), True
    yield "producer declares a queue of another name", producer.does(declare("another", {})), True
    yield "producer enqueues", producer.does(publish("camshaft.jobs")), False
    yield "producer takes dead letters", producer.does(take("camshaft.dead")), False
    yield "producer declares the queue of notes of runs", producer.does(declare("camshaft.runs", {})), False
    yield "producer leaves a note", producer.does(publish("camshaft.runs")), False
    yield "producer reads notes", producer.does(take("camshaft.runs")), False
    yield "worker reads notes", worker.does(take("camshaft.runs")), True
    for queue in ("camshaft.jobs", "camshaft.suspects"):
        yield f"worker consumes {queue}", worker.does(take(queue)), False
    yield "worker takes dead letters", worker.does(take("camshaft.dead")), True
    yield "observer enqueues", observer.does(publish("camshaft.jobs")), True


def counted(broker):
    """What KEDA counts, over HTTP. (what, why it failed or None, whether it has to fail)."""
    name = "camshaft.jobs"
    producer, worker = User(broker, "camshaft-producer"), User(broker, "camshaft-worker")
    held = worker.connection.channel()
    for _ in range(3):
        if problem := producer.does(publish(name)):
            raise SystemExit(f"FAILED  the producer can't enqueue: {problem}")
    for _ in range(2):
        held.basic_get(name)
    deadline = time.monotonic() + COUNT_SECONDS
    while True:
        queue = broker.queue("camshaft-observer", name)
        ready, unacknowledged = queue.get("messages_ready", 0), queue.get("messages_unacknowledged", 0)
        if (ready >= 1 and unacknowledged >= 2) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    good = ready >= 1 and unacknowledged >= 2 and queue["messages"] == ready + unacknowledged
    yield "observer counts what waits and what workers hold", None if good else f"it sees {queue}", False
    try:
        broker.queue("camshaft-worker", name)
        refusal = None
    except urllib.error.HTTPError as error:
        refusal = str(error)
    yield "worker reads the broker's management", refusal, True


def main(built):
    if not Path(SERVER).exists():
        raise SystemExit(f"FAILED  no RabbitMQ on this machine ({SERVER}): apt-get install rabbitmq-server")
    manifests = [document for document in yaml.safe_load_all(built.read_text()) if document]
    delays = [2, 10, 60, 300]
    directory = Path(tempfile.mkdtemp(prefix="camshaft-broker-"))
    failed = 0
    broker = Broker(directory)
    try:
        apply(broker, manifests)
        print("ok      RabbitMQ takes vhost, users, rights and queues")
        checks = itertools.chain(outcomes(broker, topology.declared("camshaft", delays)), counted(broker))
        for what, why, refused in checks:
            good = (why is not None) == refused
            failed += not good
            if not good:
                print(f"FAILED  {what}: {why or 'it may, and must not'}")
        if not failed:
            print("ok      RabbitMQ: the programs' users may do what they need, and not what they needn't")
    except urllib.error.HTTPError as error:
        failed += 1
        print(f"FAILED  RabbitMQ refuses {error.url}: {error.read().decode()}")
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
