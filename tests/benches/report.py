#!/usr/bin/env python3
"""Times `camshaft report` on invented results: prints seconds and peak memory.

    cargo build --release && tests/benches/report.py 1000000

Needs some 4 KB of disk for each result, below --folder; with --embeddings 12 KB, and numpy. The results
have ten classes (--classes) with noisy maps, 3 % wrong labels, 2 % duplicates and a cluster with a tag, so
that the report has findings of each kind.
"""

import argparse
import base64
import functools
import hashlib
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from invented import MODEL, RUN, TIMINGS_MS, write_run

CLASSES = [f"class-{number}" for number in range(10)]


def make_map(chance, tagged):
    x, y, spread = chance.gauss(3, 1), chance.gauss(3, 1), chance.uniform(0.9, 1.6)
    if tagged:
        x, y, spread = chance.gauss(6, 0.2), chance.gauss(6, 0.2), 0.8
    values = [
        round(max(0.0, math.exp(-((c - x) ** 2 + (r - y) ** 2) / (2 * spread * spread)) + chance.gauss(0, 0.02)), 5)
        for r in range(7)
        for c in range(7)
    ]
    return values


@functools.lru_cache(maxsize=None)
def embedding_values(number, kind):
    """One of 200 embeddings of a class: 2,048 halves around its centre, in base64. To draw each image's own
    would take longer than all else, and the report no longer."""
    import numpy as np

    centre = np.random.default_rng([1, kind]).normal(size=2048)
    values = np.random.default_rng([2, kind, number]).standard_normal(2048, dtype=np.float32) + 0.15 * centre
    return base64.b64encode(np.maximum(values, 0).astype("<f2").tobytes()).decode()


def result(index, centres, embeddings):
    """One prediction, the same for the same index."""
    # One in fifty is a copy of another, with another key and label.
    seed = index - 1 if index % 50 == 1 else index
    original, kind = random.Random(seed), seed % len(CLASSES)
    tagged = kind == 0 and original.random() < 0.05
    label = CLASSES[(kind + 1) % len(CLASSES)] if random.Random(-index).random() < 0.03 else CLASSES[kind]
    probability = min(0.9999, original.betavariate(20 if tagged else 9, 1))
    other = (kind + original.randrange(1, len(CLASSES))) % len(CLASSES)
    sketch = bytes((value + original.randrange(-40, 40)) & 0xFF for value in centres[kind])
    values = make_map(original, tagged)
    mass = sum(values)
    logit = math.log(probability / (1 - probability))
    key = f"train/{label}/{index:08}.jpg"
    explanation = {
        "method": "grad-cam", "layer": "layer4", "class": kind, "label": CLASSES[kind], "overlay": None,
        "map": {"height": 7, "width": 7, "values": values}, "max": max(values), "mass": mass,
        "entropy": 0.8, "centroid": [0.5, 0.5], "border_share": 0.3,
    }
    embedding = {"dimensions": 2048, "scale": 0.02, "sketch": base64.b64encode(sketch).decode()}
    if embeddings:
        embedding["values"] = embedding_values(original.randrange(200), kind)
    return key, {
        "schema": 1, "run": RUN,
        "image": {
            "key": key, "etag": None, "bytes": 50_000, "width": 500, "height": 375, "label": label,
            "digest": "sha256:" + hashlib.sha256(str(original.random()).encode()).hexdigest(),
            "measures": {
                "brightness": original.uniform(0.3, 0.6), "contrast": 0.2, "dark_percentile": 0.1,
                "bright_percentile": original.uniform(0.2, 0.9), "information": 0.9,
                "blur": original.gauss(0.35, 0.06), "chroma": 0.2,
                "perceptual_hash": f"{original.getrandbits(63):016x}",
            },
        },
        "model": MODEL,
        "predictions": [
            {"class": kind, "label": CLASSES[kind], "probability": probability, "logit": logit},
            {"class": other, "label": CLASSES[other], "probability": 1 - probability, "logit": 0.0},
        ],
        "entropy": 0.1,
        "embedding": embedding,
        "explanations": [explanation],
        "timings_ms": TIMINGS_MS,
        "worker": f"worker-{index % 4}",
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_790_000_000 + index // 200)),
    }


def write(out, start, end, embeddings):
    chance = random.Random(7)
    centres = [[chance.randrange(-80, 80) for _ in range(128)] for _ in CLASSES]
    for name in CLASSES:
        os.makedirs(f"{out}/predictions/train/{name}", exist_ok=True)
    for index in range(start, end):
        key, record = result(index, centres, embeddings)
        with open(f"{out}/predictions/{key}.json", "w") as file:
            json.dump(record, file, separators=(",", ":"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=int)
    parser.add_argument("--folder", help="where to write them; by default a temporary folder")
    parser.add_argument("--embeddings", action="store_true", help="results with embeddings of 2,048 halves, and a report with them")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--keep", action="store_true", help="use the results there, and leave them")
    options = parser.parse_args()
    CLASSES[:] = [f"class-{number}" for number in range(options.classes)]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    folder = options.folder or tempfile.mkdtemp(prefix="camshaft-report-")
    out = os.path.join(folder, "out")
    try:
        if not (options.keep and os.path.exists(f"{out}/run.json")):
            cores = os.cpu_count()
            edges = [options.results * part // cores for part in range(cores + 1)]
            writers = [multiprocessing.Process(target=write, args=(out, *pair, options.embeddings)) for pair in zip(edges, edges[1:])]
            [writer.start() for writer in writers]
            [writer.join() for writer in writers]
            write_run(out, options.results)
        started = time.monotonic()
        command = [os.path.join(root, "target/release/camshaft"), "report", out, "--thumbnails", "0"]
        command += ["--embeddings"] if options.embeddings else []
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - started
        if ended.returncode != 0:
            sys.exit(ended.returncode)
        print(ended.stdout, end="")
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        report = f"{out}/report"
        sizes = {name: os.path.getsize(f"{report}/{name}") >> 20 for name in sorted(os.listdir(report))}
        print(f"{options.results} results: {seconds:.1f} s on {os.cpu_count()} cores, {memory / 1024:.0f} MiB at most; {sizes} MiB")
    finally:
        if not options.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
