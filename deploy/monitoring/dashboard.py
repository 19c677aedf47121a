#!/usr/bin/env python3
"""Writes dashboard.json, Grafana's dashboard for Camshaft, which stands beside this file.

    deploy/monitoring/dashboard.py            writes it
    deploy/monitoring/dashboard.py --check    fails where it is not what this would write

The JSON is what Grafana reads (version 11 and later) and is kept, so that nobody needs this to use
it. What is here once is there once a panel: places on the grid, the data source, how things look.
A dashboard edited in Grafana can be saved as JSON; its changes belong here.
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("dashboard.json")
GRID_COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# The Prometheus operator's before the name of a scrape job: its namespace.
PREFIX = "(.+/)?"
QUEUES = 'rabbitmq_detailed_queue_messages_ready{queue=~".+\\\\.jobs"}'
# What a worker's series are chosen by.
WORKER = 'job=~"$job",instance=~"$worker"'
# What settles an image for good; a retried one comes again.
FINISHED = "predicted|already_done|relabelled|renewed|failed|dead_lettered"
RATE = "$__rate_interval"


def queue(metric, suffixes):
    """A queue's number. In a cluster of brokers the largest is that of the queue's leader."""
    name = f"rabbitmq_detailed_queue_{metric}"
    return f'max by (queue) ({name}{{job=~"$broker",queue=~"${{queue}}\\\\.({suffixes})"}})'


def rate(metric, by="", matchers=""):
    """Events a second over all chosen workers."""
    matchers = ",".join(filter(None, [WORKER, matchers]))
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{matchers}}}[{RATE}]))"


def quantile(share, histogram, by=""):
    """A quantile of a histogram over all chosen workers."""
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', ', '.join(filter(None, ['le', by])))})"


def panel(kind, title, description, queries, unit="short", width=12, height=8, **more):
    """A panel without its place. `queries`: pairs of expression and legend."""
    defaults = {"unit": unit, "custom": {}, **more.pop("defaults", {})}
    if kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
        if "top" in more:
            defaults["custom"]["axisSoftMax"] = more.pop("top")
        if more.pop("stack", False):
            defaults["custom"].update(fillOpacity=40, stacking={"mode": "normal", "group": "A"})
        more.setdefault("options", {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        })
    if kind == "stat":
        more.setdefault("options", {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value", "graphMode": "area", "textMode": "auto",
        })
    instant = kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
            "format": "table" if instant else "time_series",
        }
        for number, (expression, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "targets": targets,
        **more,
    }


def steps(*colours):
    """Colours by value: pairs of the value from which on it holds, and the colour."""
    return {
        "color": {"mode": "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": colour, "value": value} for value, colour in colours],
        },
    }


WAITING = queue("messages", "jobs|suspects|retry\\\\..+")
FINISHED_RATE = rate("camshaft_images_total", matchers=f'outcome=~"{FINISHED}"')
FAILED = f'sum(increase(camshaft_images_total{{{WORKER},outcome="failed"}}[$__range]))'
JUDGED = f'sum(increase(camshaft_images_total{{{WORKER},outcome=~"predicted|already_done|relabelled|renewed|failed"}}[$__range]))'

GLANCE = [
    panel("stat", "Images a second", "Settled for good: predicted, found done, relabelled, renewed, failed or dead.",
          [(FINISHED_RATE, "")], "short", 4, 4, defaults={"decimals": 1}),
    panel("stat", "Time left", "What waits and what is in work, at the rate of now. Empty while nothing is done.",
          [(f"sum({WAITING}) / ({FINISHED_RATE} > 0)", "")], "dtdurations", 4, 4, defaults={"noValue": "–"}),
    panel("stat", "Waiting", "Ready in the job queue.", [(queue("messages_ready", "jobs"), "")], "short", 4, 4),
    panel("stat", "Dead letters", "Given up: these images have neither a prediction nor a failure. `camshaft status` says why.",
          [(queue("messages", "dead"), "")], "short", 4, 4, defaults=steps((None, "green"), (1, "red"))),
    panel("stat", "Failed", "Share of the images in the time shown; `--max-failure-rate` allows 5 % by default.",
          [(f"{FAILED} / {JUDGED}", "")], "percentunit", 4, 4,
          defaults={"decimals": 1, **steps((None, "green"), (0.02, "orange"), (0.05, "red"))}),
    panel("stat", "Workers ready", "Of all that answer Prometheus.",
          [(f"sum(camshaft_ready{{{WORKER}}})", "ready"), (f"count(camshaft_ready{{{WORKER}}})", "all")],
          "short", 4, 4),
    panel("table", "Firing alerts", "Of the rules in alerts.yaml.",
          [('ALERTS{alertname=~"Camshaft.+",alertstate="firing"}', "")], "short", 24, 5,
          defaults={"noValue": "none"},
          transformations=[{"id": "organize", "options": {
              "excludeByName": {name: True for name in ["Time", "Value", "__name__", "alertstate"]},
              "indexByName": {"alertname": 0, "severity": 1},
          }}]),
]

QUEUE = [
    panel("timeseries", "Job queue", "Ready: nobody has them. In work: delivered, and neither acknowledged nor handed back.",
          [(queue("messages_ready", "jobs"), "ready"), (queue("messages_unacked", "jobs"), "in work")], stack=True),
    panel("timeseries", "Beside the job queue",
          "retry.N: for another try in N seconds. suspects: lost two workers, done one at a time. dead: given up.",
          [(queue("messages", "retry\\\\..+|suspects|dead"), "{{queue}}")]),
    panel("timeseries", "Wait in the queue", "From a message's publication to its delivery. Grows all through a run.",
          [(quantile(0.5, "camshaft_queue_wait_seconds"), "p50"), (quantile(0.95, "camshaft_queue_wait_seconds"), "p95")], "s"),
    panel("timeseries", "Workers", "Connected to the queue, by RabbitMQ; and ready, by themselves.",
          [(queue("consumers", "jobs"), "connected"), (f"sum(camshaft_ready{{{WORKER}}})", "ready"),
           (f"sum(camshaft_stores_unreachable{{{WORKER}}})", "stores waited for")]),
]

IMAGES = [
    panel("timeseries", "Images a second, by outcome", "What became of deliveries.",
          [(rate("camshaft_images_total", "outcome"), "{{outcome}}")], stack=True),
    panel("timeseries", "Again", "Share of deliveries that ended without a result and come again.",
          [(rate("camshaft_images_total", "outcome", 'outcome=~"retried|refused|unsettled"')
            + " / ignoring(outcome) group_left " + rate("camshaft_images_total"), "{{outcome}}")], "percentunit"),
    panel("timeseries", "Failures, by class", "Images with a failure written, in the time between two points.",
          [(f"sum by (class) (increase(camshaft_failures_total{{{WORKER}}}[{RATE}]))", "{{class}}")], stack=True),
    panel("timeseries", "Bytes a second", "Image files read, and objects written.",
          [(rate("camshaft_read_bytes_total"), "read"),
           (rate("camshaft_written_bytes_total", "kind"), "written: {{kind}}")], "Bps"),
]

STAGES = [
    panel("timeseries", "Utilisation", "Share of its time that a stage works. What is near 1 limits the workers: it should be the model.",
          [(rate("camshaft_stage_seconds_sum", "stage")
            + f" / sum by (stage) (camshaft_stage_concurrency{{{WORKER}}})", "{{stage}}")], "percentunit", 24, top=1),
    panel("timeseries", "Work, median", "Of a stage on one image; of the model on a batch.",
          [(quantile(0.5, "camshaft_stage_seconds", "stage"), "{{stage}}")], "s"),
    panel("timeseries", "Work, 95th percentile", "Of a stage on one image; of the model on a batch.",
          [(quantile(0.95, "camshaft_stage_seconds", "stage"), "{{stage}}")], "s"),
    panel("timeseries", "Wait, median", "Of an image for a stage, or a batch for the model.",
          [(quantile(0.5, "camshaft_stage_wait_seconds", "stage"), "{{stage}}")], "s"),
    panel("timeseries", "Wait, 95th percentile", "Of an image for a stage, or a batch for the model.",
          [(quantile(0.95, "camshaft_stage_wait_seconds", "stage"), "{{stage}}")], "s"),
    panel("timeseries", "Batch fill", "Images in a batch. Below the limit while images are waiting, the model is not supplied.",
          [(rate("camshaft_batch_images_sum") + " / " + rate("camshaft_batch_images_count"), "mean"),
           (quantile(0.5, "camshaft_batch_images"), "p50"),
           (f"max(camshaft_batch_limit{{{WORKER}}})", "limit")]),
    panel("timeseries", "The model waits", "Share of the time in which the model computes nothing: without a batch (decoding, the store or an empty queue), or without room behind it (drawing, writing).",
          [(rate("camshaft_model_wait_seconds_total", "waits_for") + f" / on () group_left count(camshaft_prefetch{{{WORKER}}})", "for: {{waits_for}}")],
          "percentunit", top=1),
    panel("timeseries", "In work", "Images taken and not settled, and how many the workers take at most.",
          [(f"sum(camshaft_images_in_flight{{{WORKER}}})", "in work"), (f"sum(camshaft_prefetch{{{WORKER}}})", "prefetch")]),
]

WORKERS = [
    panel("timeseries", "Memory budget", "Share that is held of --max-held-bytes, the fullest worker's.",
          [(f"max by (kind) (camshaft_held_bytes{{{WORKER}}} / camshaft_held_bytes_limit{{{WORKER}}})", "{{kind}}")],
          "percentunit", 8, top=1),
    panel("timeseries", "Resident memory", "Each worker's, the model included.",
          [(f"process_resident_memory_bytes{{{WORKER}}}", "{{instance}}")], "bytes", 8),
    panel("timeseries", "Cores", "Each worker's processor time.",
          [(f"rate(process_cpu_seconds_total{{{WORKER}}}[{RATE}])", "{{instance}}")], "short", 8),
    panel("timeseries", "Cores, by work", "Processor time of the network, of drawing and decoding, and of all else, over all workers.",
          [(rate("camshaft_cpu_seconds_total", "work"), "{{work}}")], stack=True),
    panel("timeseries", "Without a core", "Threads that are ready and have no core, by their work. Of the network there should be few.",
          [(rate("camshaft_cpu_wait_seconds_total", "work"), "{{work}}")]),
    panel("table", "Workers", "What each worker is and does.",
          [(f"max by (instance, version, device, kernel, precision, model) (camshaft_worker_info{{{WORKER}}})", ""),
           (f"max by (instance) (camshaft_ready{{{WORKER}}})", ""),
           (rate("camshaft_images_total", "instance", f'outcome=~"{FINISHED}"'), ""),
           (f"max by (instance) (process_resident_memory_bytes{{{WORKER}}})", ""),
           (f"max by (instance) (process_open_fds{{{WORKER}}})", ""),
           (f"max by (instance) (time() - process_start_time_seconds{{{WORKER}}})", "")], "short", 24, 9,
          overrides=[
              {"matcher": {"id": "byName", "options": name},
               "properties": [{"id": "displayName", "value": shown}, {"id": "unit", "value": unit}]}
              for name, shown, unit in [
                  ("Value #B", "ready", "bool_yes_no"), ("Value #C", "images a second", "short"),
                  ("Value #D", "resident memory", "bytes"), ("Value #E", "open files", "short"),
                  ("Value #F", "up for", "dtdurations")]
          ],
          transformations=[
              {"id": "merge", "options": {}},
              {"id": "organize", "options": {
                  "excludeByName": {"Time": True, "Value #A": True},
                  "indexByName": {name: place for place, name in enumerate(
                      ["instance", "Value #B", "device", "kernel", "precision", "model", "version"])},
              }},
          ]),
]

ROWS = [
    ("At a glance", GLANCE),
    ("Queue", QUEUE),
    ("Images", IMAGES),
    ("Stages: admit → fetch → decode → model → render → store → settle", STAGES),
    ("Workers", WORKERS),
]


def placed(rows):
    """All panels in reading order, each with an id and a place."""
    top = 0
    panels = []
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": GRID_COLUMNS, "h": 1}})
        top += 1
        left = height = 0
        for member in members:
            size = member["gridPos"]
            if left + size["w"] > GRID_COLUMNS:
                top, left, height = top + height, 0, 0
            panels.append({**member, "gridPos": {"x": left, "y": top, **size}})
            left, height = left + size["w"], max(height, size["h"])
        top += height
    return [{"id": number, **member} for number, member in enumerate(panels, 1)]


def variable(name, label, query, regex="", every=None):
    """A choice among the values that Prometheus knows: of one, or of several where `every` says
    what stands for all of them, those that come later included."""
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE,
        # 1: the values of a label.
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": regex,
        # At each change of the time shown: workers come and go.
        "refresh": 2, "sort": 1, "hide": 0,
        "multi": every is not None, "includeAll": every is not None,
        **({} if every is None else {"allValue": every, "current": {"text": ["All"], "value": ["$__all"]}}),
    }


def dashboard():
    """The whole, as Grafana's JSON model has it."""
    return {
        "id": None,
        "uid": "camshaft",
        "title": "Camshaft",
        "description": "Grad-CAM audits over a job queue: what waits, what is done, and what limits it. Written by deploy/monitoring/dashboard.py.",
        "tags": ["camshaft"],
        # Grafana 11's; later ones read it and go on from there.
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": []},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
             "regex": "", "refresh": 1, "hide": 0, "multi": False, "includeAll": False},
            variable("broker", "Broker", f"label_values({QUEUES}, job)", every=f"{PREFIX}camshaft-rabbitmq"),
            variable("queue", "Queue", f"label_values({QUEUES}, queue)", regex="/(.+)\\.jobs/"),
            # Not just any: each process that Prometheus watches has a resident memory.
            variable("job", "Workers", "label_values(camshaft_worker_info, job)", every=f"{PREFIX}camshaft-worker"),
            variable("worker", "Worker", 'label_values(camshaft_worker_info{job=~"$job"}, instance)', every=".+"),
        ]},
        "panels": placed(ROWS),
    }


def main(arguments):
    """Writes or checks."""
    wanted = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if arguments == ["--check"]:
        if FILE.read_text(encoding="utf-8") != wanted:
            sys.exit(f"{FILE} is not what {__file__} writes: run it, or bring the change there")
    elif arguments:
        sys.exit(__doc__)
    else:
        FILE.write_text(wanted, encoding="utf-8")


main(sys.argv[1:])
