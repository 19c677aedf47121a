#!/usr/bin/env python3
"""Compares the label errors of `camshaft report` with cleanlab's and with nearest neighbours, on invented
embeddings with known wrong labels: prints precision, recall and F1.

    pip install numpy scikit-learn cleanlab duckdb
    cargo build --release && tests/benches/findings/label_errors.py --classes 2,10,100 --noise uniform,pairwise,similar

Each class is a cloud around a centre, and centres are close to others in pairs. `uniform` noise gives a
wrong label by chance, `pairwise` always that of the next class, `similar` that of the nearest one. The
labels are none of the model's. cleanlab gets out-of-sample probabilities of five folds of scikit-learn's
logistic regression on the same numbers, of the strength with the least log loss.
"""

import argparse
import base64
import json
import os
import shutil
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from invented import MODEL, RUN, TIMINGS_MS, write_run
from programs import camshaft, found


def embeddings(images, classes, width, chance):
    """Features of zero or more, as those of a network, and the true class of each image. The clouds are so
    near that a linear head on sketches of 3,000 knows some 97 % of 2 or 10 classes, and 80 % of 100."""
    bases = chance.normal(size=((classes + 1) // 2, width))
    centres = np.repeat(bases, 2, axis=0)[:classes] + 0.8 * chance.normal(size=(classes, width))
    truth = chance.permutation(np.arange(images) % classes)
    spread = 16 * (0.5 + chance.random(width)) / np.sqrt(width)
    points = centres[truth] * 0.17 * np.sqrt(256 / width) + spread * 0.5 * chance.normal(size=(images, width))
    return np.maximum(points + 0.5, 0).astype(np.float16), truth, centres


def wrong_labels(truth, centres, kind, rate, chance):
    classes = len(centres)
    labels, wrong = truth.copy(), chance.random(len(truth)) < rate
    if kind == "uniform":
        other = (truth + chance.integers(1, classes, len(truth))) % classes
    elif kind == "pairwise":
        other = (truth + 1) % classes
    else:
        distances = ((centres[:, None] - centres[None]) ** 2).sum(-1)
        np.fill_diagonal(distances, np.inf)
        other = distances.argmin(1)[truth]
    labels[wrong] = other[wrong]
    return labels, wrong


def sketch(points):
    """The same embeddings in 128 numbers of 8 bits, and their scales."""
    signs = np.where(np.random.default_rng(7).random((points.shape[1], 128)) < 0.5, -1.0, 1.0)
    projected = points.astype(np.float32) @ signs / np.sqrt(128)
    scales = np.abs(projected).max(1) / 127
    return np.round(projected / scales[:, None]).astype(np.int8), scales


def write(out, points, labels, with_values):
    numbers, scales = sketch(points)
    for index, label in enumerate(labels):
        folder = f"{out}/predictions/class-{label}"
        os.makedirs(folder, exist_ok=True)
        key = f"class-{label}/{index:07}.jpg"
        embedding = {
            "dimensions": points.shape[1], "scale": float(scales[index]),
            "sketch": base64.b64encode(numbers[index].tobytes()).decode(),
        }
        if with_values:
            embedding["values"] = base64.b64encode(points[index].astype("<f2").tobytes()).decode()
        record = {
            "schema": 1, "run": RUN,
            "image": {"key": key, "etag": None, "bytes": 1, "width": 9, "height": 9, "label": f"class-{label}", "label_problem": "unknown"},
            "model": MODEL,
            "predictions": [{"class": 0, "label": "thing", "probability": 1.0, "logit": 1.0}],
            "entropy": 0.0, "embedding": embedding, "explanations": [],
            "timings_ms": TIMINGS_MS,
            "worker": "worker", "finished_at": "2026-10-01T00:00:00Z",
        }
        with open(f"{out}/predictions/{key}.json", "w") as file:
            json.dump(record, file, separators=(",", ":"))
    write_run(out, len(labels))


def of_camshaft(out, with_values):
    options = ["--embeddings"] if with_values else []
    printed = camshaft("report", out, "--thumbnails", 0, "--json", *options)
    keys = [key for key, _ in found(out, "kind = 'label-error'")]
    summary = json.loads(printed)
    estimate = [summary["estimated_label_errors" + end] for end in ("", "_low", "_high")]
    return [int(key.split("/")[1].split(".")[0]) for key in keys], estimate


def of_cleanlab(points, labels):
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    points = points.astype(np.float32) - points.astype(np.float32).mean(0)
    points /= points.std()
    folds, best = StratifiedKFold(5, shuffle=True, random_state=0), None
    for strength in (1.0, 0.1, 0.01, 0.001):
        head = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
        found = cross_val_predict(head, points, labels, cv=folds, method="predict_proba")
        loss = log_loss(labels, found)
        if best is None or loss < best[0]:
            best = (loss, found)
    return np.flatnonzero(find_label_issues(labels, best[1], n_jobs=1))


def of_neighbours(points, labels):
    from sklearn.neighbors import NearestNeighbors

    points = points.astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=11, metric="cosine").fit(points).kneighbors(points, return_distance=False)[:, 1:]
    votes = np.stack([(labels[nearest] == label).sum(1) for label in range(labels.max() + 1)], 1)
    return np.flatnonzero(votes.argmax(1) != labels)


def score(found, wrong):
    both = wrong[np.asarray(found, dtype=int)].sum()
    precision, recall = both / max(len(found), 1), both / max(wrong.sum(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--classes", default="2,10,100")
    parser.add_argument("--noise", default="uniform,pairwise,similar")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rate", type=float, default=0.06, help="share of wrong labels")
    parser.add_argument("--width", type=int, default=512, help="numbers of an embedding")
    parser.add_argument("--features", default="sketches", choices=["sketches", "embeddings"])
    options = parser.parse_args()
    with_values = options.features == "embeddings"
    print(f"{options.images} images, {options.rate:.0%} wrong, {options.features}; precision / recall / F1")
    print("| classes | noise | seed | Camshaft | cleanlab | 10 neighbours | wrong, and as estimated |")
    print("|---|---|---|---|---|---|---|")
    for classes in map(int, options.classes.split(",")):
        for kind in options.noise.split(","):
            for seed in map(int, options.seeds.split(",")):
                chance = np.random.default_rng([seed, classes])
                points, truth, centres = embeddings(options.images, classes, options.width, chance)
                labels, wrong = wrong_labels(truth, centres, kind, options.rate, chance)
                out = tempfile.mkdtemp(prefix="camshaft-labels-")
                try:
                    write(out, points, labels, with_values)
                    ours, (count, low, high) = of_camshaft(out, with_values)
                finally:
                    shutil.rmtree(out)
                seen = points
                if not with_values:
                    numbers, scales = sketch(points)
                    seen = numbers * scales[:, None]
                rivals = [of_cleanlab(seen, labels), of_neighbours(seen, labels)]
                cells = [" / ".join(f"{number:.3f}" for number in score(each, wrong)) for each in [ours, *rivals]]
                print(f"| {classes} | {kind} | {seed} | {' | '.join(cells)} | {wrong.sum()}: {count} ({low} to {high}) |", flush=True)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
