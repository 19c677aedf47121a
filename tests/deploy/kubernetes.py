"""Checks built Kubernetes manifests against schemas, and against the sources they must agree with.

kubernetes.py BUILT FOLDER VERSION…: BUILT has one file for each built overlay, FOLDER is
deploy/kubernetes. Prints a line for each check, and ends with status 1 if one failed.
"""

import re
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import topology

SCHEMAS = Path(__file__).parent / "schemas"
# Environment variables that libraries read, such as those of stores: the programs do not declare them.
OTHERS_VARIABLES = re.compile(r"(AWS|GOOGLE|AZURE|HF)_[A-Z0-9_]+|TMPDIR")
# Resident memory that CAMSHAFT_MAX_HELD_BYTES does not count: model, runtime, allocator.
BESIDE_HELD_BYTES = 2**30
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Checks:
    """Counts what failed, and prints."""

    def __init__(self):
        self.failed = 0

    def __call__(self, what, problems):
        problems = list(problems)
        self.failed += bool(problems)
        print(f"{'FAILED  ' if problems else 'ok      '}{what}")
        for problem in problems:
            print(f"          {problem}")


class Manifests(list):
    """The objects of one overlay."""

    def __init__(self, path):
        super().__init__(document for document in yaml.safe_load_all(path.read_text()) if document)
        self.name = path.stem

    def of(self, *kinds):
        return [document for document in self if document["kind"] in kinds]

    def workloads(self):
        """(object, pod template) of every workload."""
        for document in self.of("Deployment"):
            yield document, document["spec"]["template"]
        for document in self.of("CronJob"):
            yield document, document["spec"]["jobTemplate"]["spec"]["template"]

    def pods_labels(self):
        yield from (template["metadata"]["labels"] for _, template in self.workloads())
        for cluster in self.of("RabbitmqCluster"):
            name = cluster["metadata"]["name"]
            # As the operator labels its pods.
            yield {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "rabbitmq"}

    def environment(self, container):
        """{variable: value, or None if it comes from a Secret or the pod}."""
        maps = {document["metadata"]["name"]: document["data"] for document in self.of("ConfigMap")}
        variables = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                variables.update(maps[source["configMapRef"]["name"]])
        for variable in container.get("env", []):
            variables[variable["name"]] = variable.get("value")
        return variables

    def container(self, deployment):
        (found,) = [t for d, t in self.workloads() if d["metadata"]["name"] == deployment]
        return found["spec"], found["spec"]["containers"][0]


def containers_of(pod):
    return [*pod["containers"], *pod.get("initContainers", [])]


def program_of(container):
    return "camshaft" if "/producer:" in container["image"] else "worker"


def name_of(document):
    return f"{document['kind']} {document['metadata']['name']}"


def read(*paths):
    return "".join(Path(path).read_text() for path in paths)


def schema_problems(manifests, versions):
    own = {}
    for path in SCHEMAS.glob("*.yaml"):
        own |= yaml.safe_load(path.read_text())
    for document in manifests:
        kind = f"{document['apiVersion']}/{document['kind']}"
        if kind in own:
            validator = jsonschema.Draft202012Validator(strict(own[kind]))
            for error in validator.iter_errors(document["spec"]):
                yield f"{name_of(document)}: {error.json_path}: {error.message}"
            if document["kind"] == "RabbitmqCluster":
                document = pod_of(document)
            else:
                continue
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(part) for part in error.path)
                yield f"{name_of(document)} ({version}): {path}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{name_of(document)} ({version}): {error.message}"


def strict(schema):
    """The schema, in which objects that name their properties allow no others."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" not in schema:
        schema |= {"type": "object", "additionalProperties": False}
    return schema


def pod_of(cluster):
    """The settings that a RabbitmqCluster overrides in its pods, as a pod."""
    override = cluster["spec"].get("override", {}).get("statefulSet", {}).get("spec", {})
    spec = override.get("template", {}).get("spec", {"containers": []})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "override"}, "spec": spec}


def restricted_problems(manifests):
    """Breaches of the "restricted" Pod Security Standard, which the namespace enforces, and of some rules
    more."""
    for namespace in manifests.of("Namespace"):
        if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name_of(namespace)} does not enforce it"
    pods = [(name_of(document), template["spec"]) for document, template in manifests.workloads()]
    for who, pod in pods:
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{who} gets a token of Kubernetes' that it does not need"
        for container in containers_of(pod):
            if not container["securityContext"].get("readOnlyRootFilesystem"):
                yield f"{who} may write to its image"
    # The operator sets the other fields of the broker's pods.
    pods += [(name_of(cluster), pod_of(cluster)["spec"]) for cluster in manifests.of("RabbitmqCluster")]
    for who, pod in pods:
        context = pod["securityContext"]
        if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
            yield f"{who} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{who} has no seccomp profile"
        for forbidden in pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}:
            yield f"{who} has {forbidden}"
        for volume in pod.get("volumes", []):
            if not volume.keys() <= {"name", "configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}:
                yield f"{who} has a volume {volume}"
        for container in containers_of(pod):
            own = container["securityContext"]
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{who}: {container['name']} may gain privileges"
            if own["capabilities"] != {"drop": ["ALL"]}:
                yield f"{who}: {container['name']} keeps capabilities"
            if not own.get("runAsNonRoot", True) or own.get("runAsUser") == 0:
                yield f"{who}: {container['name']} may run as root"


# Where options of both programs are declared, and those of camshaft alone.
SHARED_OPTIONS = ["common/arguments/src/lib.rs"]
COMMANDS = ["producer/src/cli.rs", *(str(path) for path in sorted(Path("producer/src/cli").glob("*.rs")))]


def known_variables():
    """The variables that each program reads, by the declarations of its options."""
    sources = {
        "worker": [*SHARED_OPTIONS, "worker/src/arguments.rs", "worker/src/service.rs"],
        "camshaft": [*SHARED_OPTIONS, *COMMANDS],
    }
    return {
        program: set(re.findall(r'env = "(CAMSHAFT_[A-Z_]+)"', read(*paths)))
        for program, paths in sources.items()
    }


def setting_problems(manifests):
    known = known_variables()
    containers = [(document, each) for document, template in manifests.workloads() for each in containers_of(template["spec"])]
    used = set()
    for document, container in containers:
        wanted = set(re.findall(r"\$\(([^)]+)\)", " ".join(container.get("args", []))))
        for variable in wanted - manifests.environment(container).keys():
            yield f"{name_of(document)}: $({variable}) in its arguments is set nowhere"
        used |= wanted
    for document, container in containers:
        for variable in manifests.environment(container).keys() - known[program_of(container)] - used:
            if not OTHERS_VARIABLES.fullmatch(variable):
                yield f"{name_of(document)}: {variable} is no variable of {program_of(container)}"


def command_problems(manifests):
    source = read(*COMMANDS, *SHARED_OPTIONS)
    commands = {name.lower() for name in re.findall(r"^    (\w+)\((?:Box<)?[\w:]*Args>?\),", source, re.M)}
    flags = {field.replace("_", "-") for field in re.findall(r"^    pub(?:\(crate\))? (\w+):", source, re.M)}
    for document in manifests.of("CronJob"):
        for container in containers_of(document["spec"]["jobTemplate"]["spec"]["template"]["spec"]):
            command, *rest = container["args"]
            if command not in commands:
                yield f"{name_of(document)}: camshaft has no command {command}, only {sorted(commands)}"
            for flag in (argument for argument in rest if argument.startswith("--")):
                if flag[2:] not in flags:
                    yield f"{name_of(document)}: camshaft has no option {flag}"


def worker_problems(manifests):
    pod, worker = manifests.container("camshaft-worker")
    variables = manifests.environment(worker)

    seconds = r"const {}: Duration = Duration::from_secs\((\d+)\);"
    closing = int(re.search(seconds.format("CLOSE_TIMEOUT"), read("worker/src/service.rs"))[1])
    closing += int(re.search(seconds.format("SHUTDOWN_TIMEOUT"), read("worker/src/main.rs"))[1])
    drain = int(variables["CAMSHAFT_DRAIN_TIMEOUT"])
    if pod["terminationGracePeriodSeconds"] <= drain + closing:
        yield f"terminationGracePeriodSeconds is not above {drain} s of draining and {closing} s of closing"

    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", worker["resources"]["limits"]["memory"]).groups()
    if int(number) * UNITS[unit] < int(variables["CAMSHAFT_MAX_HELD_BYTES"]) + BESIDE_HELD_BYTES:
        yield "the memory limit leaves less than 1 GiB beside CAMSHAFT_MAX_HELD_BYTES"

    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    if int(variables["CAMSHAFT_HEALTH"].rsplit(":")[-1]) != ports["http"]:
        yield "CAMSHAFT_HEALTH and the port called http differ"
    paths = set()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = worker[probe]["httpGet"]
        paths.add(get["path"])
        if get["port"] != "http":
            yield f"{probe} asks another port than http"
    if worker["livenessProbe"]["httpGet"]["path"] != "/livez":
        yield "the liveness probe asks more than whether the process lives"
    for monitor in manifests.of("PodMonitor"):
        if monitor["metadata"]["name"] == "camshaft-worker":
            (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
            paths.add(endpoint["path"])
            if endpoint["port"] not in ports:
                yield f"the PodMonitor scrapes a port {endpoint['port']}"
    source = read(*Path("worker/src").rglob("*.rs"))
    yield from (f"workers don't answer {path}" for path in paths if f'"{path}"' not in source)

    _, audit = manifests.container("camshaft-audit")
    audited = manifests.environment(audit)
    allowed = variables["CAMSHAFT_ALLOW"].split(",")
    for place in (audited["AUDIT_SOURCE"], audited["CAMSHAFT_OUT"]):
        if not any(place == item or place.startswith(item + "/") for item in allowed):
            yield f"CAMSHAFT_ALLOW does not allow {place}"


def selector_problems(manifests):
    pods = list(manifests.pods_labels())
    chosen = lambda labels: any(labels.items() <= pod.items() for pod in pods)
    for document in manifests.of("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
        # The monitoring component selects a broker that another component brings.
        if name_of(document) == "PodMonitor camshaft-rabbitmq" and not manifests.of("RabbitmqCluster"):
            continue
        selector = document["spec"].get("podSelector") or document["spec"].get("selector") or {}
        if not chosen(selector.get("matchLabels", {})):
            yield f"{name_of(document)} selects no pod"
    reaching = [p["spec"]["podSelector"] for p in manifests.of("NetworkPolicy") if p["metadata"]["name"] == "camshaft-broker"]
    (components,) = [set(selector["matchExpressions"][0]["values"]) for selector in reaching]
    for document, template in manifests.workloads():
        uses = any("CAMSHAFT_BROKER" in manifests.environment(each) for each in containers_of(template["spec"]))
        if uses and template["metadata"]["labels"]["app.kubernetes.io/component"] not in components:
            yield f"{name_of(document)} has a broker that the network keeps from it"
    denied = [p for p in manifests.of("NetworkPolicy") if p["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    if len(denied) != 1:
        yield "no policy denies everything that is not named"


def secret_problems(manifests, readme):
    yield from (f"{name_of(secret)} is in the manifests" for secret in manifests.of("Secret"))
    named = re.findall(r"camshaft-(?:broker|store)-\$?\w+", readme)
    explained = {name.rsplit("-", 1)[0] for name in named}
    asked = set(re.findall(r"name: (camshaft-(?:broker|store)-\w+)\n", yaml.safe_dump_all(manifests)))
    yield from (f"Secret {name} is not explained" for name in asked if name.rsplit("-", 1)[0] not in explained)


def image_problems(manifests):
    version = re.search(r'^version = "(.*)"', read("Cargo.toml"), re.M)[1]
    for document, template in manifests.workloads():
        for container in containers_of(template["spec"]):
            if not re.fullmatch(rf"registry\.example\.com/camshaft/(producer|worker|worker-cuda):{re.escape(version)}", container["image"]):
                yield f"{name_of(document)}: {container['image']} is not of version {version}"


def scaling_problems(manifests):
    for scaled in manifests.of("ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]["name"]
        found = [d for d in manifests.of("Deployment") if d["metadata"]["name"] == target]
        if len(found) != 1:
            yield f"there is no Deployment {target}"
        yield from (f"{name_of(d)} has replicas, and KEDA sets them" for d in found if "replicas" in d["spec"])
        _, worker = manifests.container("camshaft-worker")
        queue = manifests.environment(worker)["CAMSHAFT_QUEUE"]
        asked = {trigger["metadata"]["queueName"] for trigger in scaled["spec"]["triggers"]}
        if asked != {f"{queue}.jobs", f"{queue}.suspects"}:
            yield f"workers consume other queues than {sorted(asked)}"
        references = {trigger["authenticationRef"]["name"] for trigger in scaled["spec"]["triggers"]}
        if references != {a["metadata"]["name"] for a in manifests.of("TriggerAuthentication")}:
            yield "the triggers' authentication is not there"
        for trigger in scaled["spec"]["triggers"]:
            # KEDA's rabbitmq_scaler.go: by AMQP it gets the ready messages only.
            counting = {key: trigger["metadata"].get(key) for key in ("protocol", "mode", "excludeUnacknowledged")}
            if counting != {"protocol": "http", "mode": "QueueLength", "excludeUnacknowledged": "false"}:
                yield f"{trigger['name']} does not count what workers hold: {counting}"
        keys = {s["key"] for a in manifests.of("TriggerAuthentication") for s in a["spec"]["secretTargetRef"]}
        if keys != {"management-url"}:
            yield f"KEDA reads {sorted(keys)} of its Secret, and the README explains management-url"
        yield from keda_network_problems(manifests)
        pod, _ = manifests.container("camshaft-worker")
        drain = manifests.environment(worker)["CAMSHAFT_DRAIN_TIMEOUT"]
        row = [drain, pod["terminationGracePeriodSeconds"], scaled["spec"]["triggers"][0]["metadata"]["value"]]
        if f"| {' | '.join(map(str, row))} |" not in read("deploy/kubernetes/README.md"):
            yield f"the README has no row for draining, grace and images for each worker of {row}"
    if not manifests.of("ScaledObject") and manifests.name in ("cpu", "gpu", "operator"):
        yield from ("replicas are not set" for d in manifests.of("Deployment") if "replicas" not in d["spec"])


def keda_network_problems(manifests):
    """KEDA must reach the management of a broker that is in the cluster."""
    for policy in manifests.of("NetworkPolicy"):
        if policy["metadata"]["name"] != "camshaft-rabbitmq":
            continue
        keda = {"kubernetes.io/metadata.name": "keda"}
        ports = {
            port["port"]
            for rule in policy["spec"]["ingress"]
            if any(peer.get("namespaceSelector", {}).get("matchLabels") == keda for peer in rule["from"])
            for port in rule["ports"]
        }
        if ports != {15671, 15672}:
            yield f"the network lets KEDA reach {sorted(ports)} of the broker"


def broker_problems(manifests):
    if not manifests.of("RabbitmqCluster"):
        return
    _, worker = manifests.container("camshaft-worker")
    variables = manifests.environment(worker)
    delays = [int(delay) for delay in variables["CAMSHAFT_RETRY_DELAYS"].split(",")]
    expected = topology.declared(variables["CAMSHAFT_QUEUE"], delays)
    queues = {queue["spec"]["name"]: queue["spec"] for queue in manifests.of("Queue")}
    yield from (f"{name} is not there" for name in expected.keys() - queues.keys())
    yield from (f"{name} is nobody's" for name in queues.keys() - expected.keys())
    for name in expected.keys() & queues.keys():
        queue = queues[name]
        arguments = {"x-queue-type": queue["type"], **queue["arguments"]}
        if arguments != expected[name]:
            yield f"{name} has {arguments}, and the programs say {expected[name]}"
        if not queue["durable"] or queue["autoDelete"]:
            yield f"{name} is not durable"

    # docs/SECURITY.md: | user | configure | write | read |
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", read("docs/SECURITY.md"), re.M)
    users = {"`enqueue`, `runs`, `redrive`": "producer", "worker": "worker", "`status`": "observer"}
    documented = {
        f"camshaft-{users[who]}": tuple(right.replace(r"\|", "|") for right in rights) for who, *rights in rows
    }
    given = {}
    for permission in manifests.of("Permission"):
        rights = permission["spec"]["permissions"]
        given[permission["spec"]["userReference"]["name"]] = (rights["configure"], rights["write"], rights["read"])
    if given != documented:
        yield f"rights are {given}, and docs/SECURITY.md says {documented}"
    tags = {user["metadata"]["name"]: user["spec"].get("tags", []) for user in manifests.of("User")}
    if given.keys() != tags.keys():
        yield "users and permissions differ"
    # It counts messages over HTTP, for KEDA.
    if {name: tagged for name, tagged in tags.items() if tagged} != {"camshaft-observer": ["management"]}:
        yield f"users have the tags {tags}"
    clusters = {cluster["metadata"]["name"] for cluster in manifests.of("RabbitmqCluster")}
    (policy,) = manifests.of("Policy")
    covered = re.compile(policy["spec"]["pattern"])
    yield from (f"{name_of(policy)} leaves {name} out" for name in expected if not covered.search(name))
    if not covered.search("camshaft.runs"):
        yield f"{name_of(policy)} leaves the notes of runs out"
    # A bookmark's queue has one member on purpose.
    if covered.search("camshaft.enqueue.0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee") or policy["spec"]["applyTo"] != "queues":
        yield f"{name_of(policy)} covers more than jobs"
    for document in manifests.of("Queue", "User", "Permission", "Vhost", "Policy"):
        if document["spec"]["rabbitmqClusterReference"]["name"] not in clusters:
            yield f"{name_of(document)} is for another cluster"
    vhosts = {vhost["spec"]["name"] for vhost in manifests.of("Vhost")}
    for document in manifests.of("Queue", "Permission", "Policy"):
        if document["spec"].get("vhost") not in vhosts:
            yield f"{name_of(document)} is in no virtual host of ours"


def mentioned_problems(folder):
    """Variables that are only mentioned, as in comments, must exist too."""
    known = set().union(*known_variables().values())
    for path in [*folder.rglob("*.env"), *folder.rglob("*.yaml"), *folder.rglob("*.md")]:
        for variable in set(re.findall(r"CAMSHAFT_[A-Z_]*[A-Z]", path.read_text())) - known:
            yield f"{path}: there is no {variable}"


CHECKS = {
    "pods are restricted": restricted_problems,
    "variables are ones the programs know": setting_problems,
    "commands and options are camshaft's": command_problems,
    "the worker's grace, memory, ports, probes and places": worker_problems,
    "selectors of pods find some": selector_problems,
    "images are of this version": image_problems,
    "replicas have one master": scaling_problems,
    "queues and rights are those of the sources and docs/SECURITY.md": broker_problems,
}


def everywhere(overlays, find):
    """Each problem once, with the overlays that have it."""
    found = {}
    for manifests in overlays:
        try:
            problems = list(find(manifests))
        except (KeyError, TypeError, ValueError) as error:
            problems = [f"could not be checked: {error!r}"]
        for problem in problems:
            found.setdefault(problem, []).append(manifests.name)
    return [f"{', '.join(names)}: {problem}" for problem, names in found.items()]


def main(built, folder, *versions):
    check = Checks()
    readme = read(folder / "README.md")
    built = {path.stem: Manifests(path) for path in sorted(built.glob("*.yaml"))}
    wanted = {"base", "cpu", "gpu", "keda", "slow-methods", "operator", "nightly"}
    wanted |= {"with-eks", "with-gke", "with-aks", "alerts"}
    check("everything was built", wanted - built.keys())
    alone = f"schemas of Kubernetes {' and '.join(versions)} and of the operators, strictly"
    check(alone, everywhere(built.values(), lambda manifests: schema_problems(manifests, versions)))
    built.pop("alerts", None)
    for what, find in CHECKS.items():
        check(what, everywhere(built.values(), find))
    secrets = everywhere(built.values(), lambda manifests: secret_problems(manifests, readme))
    check("no Secret is there, and each that is needed is explained", secrets)
    check("variables that are mentioned exist", mentioned_problems(folder))
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
