"""Checks deploy/monitoring where promtool cannot: rules and dashboard may ask only for metrics, labels
and values that exist, and the dashboard must be in order. Run by monitoring.sh.

The workers' metrics are read from the table in docs/monitoring.md. Its rows are
| `name` | type | `label`: value, value | meaning |. A label without values has those of the row
above that lists some, or any.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy/monitoring"

# RabbitMQ's, by its families queue_coarse_metrics and queue_consumer_count, as RabbitMQ 3.10.8
# answers.
QUEUE_METRICS = [
    "rabbitmq_detailed_queue_messages",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
    "rabbitmq_detailed_queue_consumers",
]
# Metrics that Prometheus itself makes.
PROMETHEUS_METRICS = {"up": {}, "ALERTS": {"alertname": None, "alertstate": {"firing", "pending"}}}
# Labels that Prometheus adds to all that it scrapes.
TARGET_LABELS = {"job": None, "instance": None, "namespace": None}
# Documented, but on purpose neither on the dashboard nor in a rule.
UNUSED = set()

# Words of PromQL that are not metrics.
WORDS = set("and or unless by without on ignoring group_left group_right bool offset inf nan".split())

problems = []


def wrong(message):
    """Records a problem; all are printed at the end."""
    problems.append(message)


def documented(path):
    """The workers' metrics: for each series name its labels, and for each label its values, or None
    for any."""
    metrics, names, listed = {}, set(), {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split("|")
        if not line.startswith("| `") or len(cells) != 6:
            continue
        labels = {}
        for label, values in re.findall(r"`(\w+)`(?:: ([^`]+))?", cells[3]):
            if values:
                listed[label] = {value.strip() for value in values.split(",")}
            labels[label] = listed.get(label)
        for name in re.findall(r"`((?:camshaft|process)_\w+)`", cells[1]):
            names.add(name)
            if cells[2].strip() == "histogram":
                metrics[f"{name}_bucket"] = {**labels, "le": None}
                metrics[f"{name}_sum"] = metrics[f"{name}_count"] = labels
            else:
                metrics[name] = labels
    if not names:
        sys.exit(f"{path} has no table of metrics")
    return metrics, names


def rules():
    """Expressions of alerts.yaml by the name of the rule, and the alerts' own lines."""
    text = (MONITORING / "alerts.yaml").read_text(encoding="utf-8")
    found = {}
    for rule in re.split(r"^ {6}- (?=alert:|record:)", text, flags=re.M)[1:]:
        kind, name = re.match(r"(alert|record): (\S+)", rule).groups()
        block = re.search(r"^ {8}expr: \|\n((?: {10}.*\n)+)", rule, flags=re.M)
        line = re.search(r"^ {8}expr: ([^|].*)$", rule, flags=re.M)
        found[name] = (kind, (block or line).group(1), rule)
    return found


def selectors(expression):
    """Pairs of a metric and its matchers (label, operator, value) in a PromQL expression, and all
    labels that it groups or joins by."""
    strings, grouped = [], set()

    def string(match):
        strings.append(match[1])
        return f'"{len(strings) - 1}"'

    def group(match):
        grouped.update(re.findall(r"\w+", match[1]))
        return " "

    text = re.sub(r'"((?:[^"\\]|\\.)*)"', string, expression)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", group, text)
    text = re.sub(r"\[[^]]*\]", " ", text)
    pairs = []
    for name, after in re.findall(r"(?<![\w$])([a-zA-Z_:][\w:]*)\s*(\(|\{[^}]*\})?", text):
        if name not in WORDS and after != "(":  # else a function or an operator
            matchers = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"', after)
            pairs.append((name, [(label, operator, strings[int(place)]) for label, operator, place in matchers]))
    return pairs, grouped


def check_expression(where, expression, metrics):
    """Checks that all it asks for exists. Returns the metrics."""
    pairs, grouped = selectors(expression)
    if not pairs:
        wrong(f"{where}: no metric in {expression.strip()}")
    labels_of_all = set()
    for name, matchers in pairs:
        if name not in metrics:
            wrong(f"{where}: {name} is not documented")
            continue
        labels = {**metrics[name], **TARGET_LABELS}
        labels_of_all |= set(labels)
        for label, operator, value in matchers:
            if label not in labels:
                wrong(f"{where}: {name} has no label {label}")
            elif labels[label] is not None and "$" not in value:
                alternatives = value.split("|") if "~" in operator else [value]
                for unknown in set(alternatives) - labels[label]:
                    wrong(f"{where}: {name} never has {label} = {unknown}")
    for label in grouped - labels_of_all:
        wrong(f"{where}: nothing in {expression.strip()} has the label {label}")
    return {name for name, _ in pairs}


def check_rules(found, metrics):
    """Checks that alerts have all texts and a test. Returns the metrics in use."""
    tests = (MONITORING / "alerts_test.yaml").read_text(encoding="utf-8")
    recorded = {}
    for name, (kind, expression, _) in found.items():
        if kind == "record":
            grouped = selectors(expression)[1]
            sources = [metrics.get(metric, {}) for metric, _ in selectors(expression)[0]]
            labels = {label: values for source in sources for label, values in source.items()}
            recorded[name] = {label: values for label, values in labels.items() if not grouped or label in grouped}
    metrics = {**metrics, **recorded}
    used = set()
    for name, (kind, expression, rule) in found.items():
        used |= check_expression(name, expression, metrics)
        if kind == "record":
            continue
        for field in ["for:", "severity: (critical|warning|info)$", "summary:", "description:"]:
            if not re.search(rf"^ +{field}", rule, flags=re.M):
                wrong(f"{name}: no {field.split()[0]}")
        if not re.search(rf'alertname="{name}", alertstate="firing"', tests):
            wrong(f"{name}: no test in alerts_test.yaml sees it fire")
        for target in re.findall(r"runbook: (\S+)", rule):
            path, _, anchor = target.partition("#")
            text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
            headings = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                        for heading in re.findall(r"^#+ (.+)$", text, flags=re.M)]
            if anchor not in headings:
                wrong(f"{name}: its runbook {target} is not there")
    for name in recorded:
        if name not in used:
            wrong(f"{name}: recorded, but no alert uses it")
    return used


def check_layout(panels):
    """Checks that ids are unique, and that no two panels share a place on the grid."""
    ids = [panel.get("id") for panel in panels]
    if len(set(ids)) != len(ids) or not all(isinstance(number, int) for number in ids):
        wrong("dashboard.json: panels need ids, each its own")
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or place["x"] + place["w"] > 24:
            wrong(f"dashboard.json: {panel['title']} is beyond the grid's 24 columns")
        for cell in [(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])]:
            if cell in taken:
                wrong(f"dashboard.json: {panel['title']} lies over {taken[cell]}")
                break
            taken[cell] = panel["title"]


def check_dashboard(metrics, promtool):
    """Returns the metrics in use."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    if dashboard.get("id") is not None:
        wrong("dashboard.json: an id belongs to one Grafana; it must be null")
    panels = dashboard["panels"]
    check_layout(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    # Grafana's own variables, with a value for each.
    own = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}

    def filled(where, expression):
        def value(match):
            name = match[1] or match[2]
            if name not in variables | set(own):
                wrong(f"{where}: ${name} is no variable of the dashboard")
            return own.get(name, ".+")
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, expression)

    def sources(node):
        """Each data source named anywhere."""
        if isinstance(node, dict):
            if isinstance(node.get("datasource"), dict):
                yield node["datasource"]
            for member in node.values():
                yield from sources(member)
        elif isinstance(node, list):
            for member in node:
                yield from sources(member)

    for source in sources(dashboard):
        if source.get("uid") != "${datasource}":
            wrong(f"dashboard.json: a data source of one Grafana: {source}")

    expressions, used = [], set()
    for panel in panels:
        if panel["type"] == "row":
            continue
        if not panel.get("targets") or not panel.get("description"):
            wrong(f"dashboard.json: {panel['title']} asks or explains nothing")
        references = [target["refId"] for target in panel["targets"]]
        if len(set(references)) != len(references):
            wrong(f"dashboard.json: {panel['title']} has a refId twice")
        for target in panel["targets"]:
            where = f"dashboard.json: {panel['title']}"
            used |= check_expression(where, target["expr"], metrics)
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                if not re.search(rf"\b{label}\b", target["expr"]) and label not in TARGET_LABELS:
                    wrong(f"{where}: its legend names {label}, which its query doesn't")
            expressions.append(filled(where, target["expr"]))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            where = f"dashboard.json: ${variable['name']}"
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            # A query may name a label by which it may group.
            check_expression(where, f"count by ({asked[2]}) ({asked[1]})", metrics)
            expressions.append(filled(where, asked[1]))

    with tempfile.TemporaryDirectory() as directory:
        # JSON is YAML.
        file = pathlib.Path(directory) / "rules.yaml"
        recorded = [{"record": f"dashboard:query:{number}", "expr": expression}
                    for number, expression in enumerate(expressions)]
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}), encoding="utf-8")
        checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            wrong(f"dashboard.json: promtool can't read its queries: {checked.stderr.strip()}")
    print(f"dashboard.json: {len(panels)} panels, {len(expressions)} queries")
    return used


def main():
    """Runs all checks and prints every problem."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--promtool", required=True)
    promtool = arguments.parse_args().promtool

    metrics, names = documented(ROOT / "docs/monitoring.md")
    metrics.update({name: {"queue": None, "vhost": None} for name in QUEUE_METRICS})
    metrics.update(PROMETHEUS_METRICS)

    found = rules()
    if len(found) != len(re.findall(r"^\s+- (?:alert|record):", (MONITORING / "alerts.yaml").read_text(), flags=re.M)):
        wrong("alerts.yaml: a rule is written in a way that this check doesn't read")
    used = check_rules(found, metrics) | check_dashboard(metrics, promtool)
    used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}

    for name in sorted((names | set(QUEUE_METRICS)) - used - UNUSED):
        wrong(f"{name} is documented, but neither on the dashboard nor in a rule")
    for name in sorted(UNUSED & used):
        wrong(f"{name} is used after all: take it from UNUSED")

    print("\n".join(problems), file=sys.stderr)
    print(f"alerts.yaml: {len(found)} rules; {len(names)} documented metrics; {len(problems)} problems")
    sys.exit(bool(problems))


main()
