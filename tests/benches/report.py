#!/usr/bin/env python3
"""Times `camshaft report` on invented results: prints seconds and peak memory.

    cargo build --release && tests/benches/report.py 1000000

Needs numpy, and some 4 KB of disk for each result, below --folder; with --embeddings 12 KB. The results
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
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from invented import MODEL, RUN, TIMINGS_MS, write_run

CLASSES = [f"class-{number}" for number in range(10)]


# Results are drawn in blocks: numpy draws a block's numbers in the time of a few results.
BLOCK = 1000


@functools.lru_cache(maxsize=None)
def embedding_values(number, kind):
    """One of 200 embeddings of a class: 2,048 halves around its centre, in base64. To draw each image's own
    would take longer than all else, and the report no longer."""
    centre = np.random.default_rng([1, kind]).normal(size=2048)
    values = np.random.default_rng([2, kind, number]).standard_normal(2048, dtype=np.float32) + 0.15 * centre
    return base64.b64encode(np.maximum(values, 0).astype("<f2").tobytes()).decode()


class Block:
    """The numbers of BLOCK results, the same for the same block. One in fifty is a copy of the one before, with
    another key and label."""

    def __init__(self, start, centres):
        chance = np.random.default_rng([3, start])
        indices = np.arange(start, start + BLOCK)
        self.sources = np.arange(BLOCK) - (indices % 50 == 1)
        self.kinds = (start + self.sources) % len(CLASSES)
        shown = lambda values: values[self.sources]
        self.tagged = (self.kinds == 0) & shown(chance.random(BLOCK) < 0.05)
        self.swapped = chance.random(BLOCK) < 0.03
        likely = np.where(self.tagged, shown(chance.beta(20, 1, BLOCK)), shown(chance.beta(9, 1, BLOCK)))
        self.probability = np.minimum(0.9999, likely)
        self.other = (self.kinds + shown(chance.integers(1, max(2, len(CLASSES)), BLOCK))) % len(CLASSES)
        sketches = centres[self.kinds] + shown(chance.integers(-40, 40, (BLOCK, 128)))
        self.sketches = (sketches & 0xFF).astype(np.uint8)
        self.maps = self.draw_maps(chance, shown)
        self.brightness = shown(chance.uniform(0.3, 0.6, BLOCK))
        self.bright = shown(chance.uniform(0.2, 0.9, BLOCK))
        self.blur = shown(chance.normal(0.35, 0.06, BLOCK))
        self.hashes = shown(chance.integers(0, 1 << 63, BLOCK))
        self.files = shown(chance.integers(0, 1 << 63, BLOCK))
        self.embeddings = shown(chance.integers(0, 200, BLOCK))

    def draw_maps(self, chance, shown):
        """Maps of 7 by 7 cells: a spot about the middle, or in the corner of the tag."""
        spots = shown(np.column_stack([chance.normal(3, 1, (BLOCK, 2)), chance.uniform(0.9, 1.6, BLOCK)]))
        corners = shown(np.column_stack([chance.normal(6, 0.2, (BLOCK, 2)), np.full(BLOCK, 0.8)]))
        x, y, spread = np.where(self.tagged[:, None], corners, spots).T[:, :, None]
        rows, columns = np.divmod(np.arange(49), 7)
        heat = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2)) + shown(chance.normal(0, 0.02, (BLOCK, 49)))
        return np.maximum(0, heat).round(5)

    def result(self, at, start, embeddings):
        """One prediction."""
        index, kind, other = start + at, int(self.kinds[at]), int(self.other[at])
        label = CLASSES[(kind + 1) % len(CLASSES)] if self.swapped[at] else CLASSES[kind]
        probability = float(self.probability[at])
        values = self.maps[at].tolist()
        key = f"train/{label}/{index:08}.jpg"
        explanation = {
            "method": "grad-cam", "layer": "layer4", "class": kind, "label": CLASSES[kind], "overlay": None,
            "map": {"height": 7, "width": 7, "values": values}, "max": max(values), "mass": sum(values),
            "entropy": 0.8, "centroid": [0.5, 0.5], "border_share": 0.3,
        }
        embedding = {"dimensions": 2048, "scale": 0.02, "sketch": base64.b64encode(self.sketches[at].tobytes()).decode()}
        if embeddings:
            embedding["values"] = embedding_values(int(self.embeddings[at]), kind)
        return key, {
            "schema": 1, "run": RUN,
            "image": {
                "key": key, "etag": None, "bytes": 50_000, "width": 500, "height": 375, "label": label,
                "digest": "sha256:" + hashlib.sha256(str(self.files[at]).encode()).hexdigest(),
                "measures": {
                    "brightness": float(self.brightness[at]), "contrast": 0.2, "dark_percentile": 0.1,
                    "bright_percentile": float(self.bright[at]), "information": 0.9,
                    "blur": float(self.blur[at]), "chroma": 0.2,
                    "perceptual_hash": f"{self.hashes[at]:016x}",
                },
            },
            "model": MODEL,
            "predictions": [
                {"class": kind, "label": CLASSES[kind], "probability": probability, "logit": math.log(probability / (1 - probability))},
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
    centres = np.random.default_rng(7).integers(-80, 80, (len(CLASSES), 128))
    for name in CLASSES:
        os.makedirs(f"{out}/predictions/train/{name}", exist_ok=True)
    for first in range(start - start % BLOCK, end, BLOCK):
        block = Block(first, centres)
        for index in range(max(first, start), min(first + BLOCK, end)):
            key, record = block.result(index - first, first, embeddings)
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
