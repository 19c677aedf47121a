#!/usr/bin/env python3
"""Compares the logits and maps of two audits of the same images.

    accuracy.py OUT REFERENCE [--most-logits 1e-5] [--least-cosine 0.9999]

Prints the largest difference of a logit, the images whose top class differs, and for each method and layer
the median and the least cosine similarity of the maps. With limits, the status is 1 if one is exceeded.
"""
import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from operator import mul
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    images: int
    # Of the reference, but not in the other audit.
    missing: int
    logits: float
    # Images whose most probable class is another. Their maps explain another class and are not compared.
    changed: int
    # (method, layer): the cosine of each image's map.
    cosines: dict


def predictions(out):
    folder = Path(out) / "predictions"
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))}


def logits(prediction):
    return {entry["class"]: entry["logit"] for entry in prediction["predictions"]}


def maps(prediction):
    return {(map["method"], map["layer"], map["class"]): map["map"]["values"] for map in prediction["explanations"]}


def cosine(one, other):
    """1 if both are zero everywhere, 0 if one is."""
    length = math.sqrt(sum(map(mul, one, one))) * math.sqrt(sum(map(mul, other, other)))
    if length == 0.0:
        return float(not any(one) and not any(other))
    return sum(map(mul, one, other)) / length


def compare(out, reference):
    ours, theirs = predictions(out), predictions(reference)
    cosines, largest, changed = defaultdict(list), 0.0, 0
    for key in sorted(ours.keys() & theirs.keys()):
        our_logits, their_logits = logits(ours[key]), logits(theirs[key])
        differences = [abs(our_logits[name] - their_logits[name]) for name in our_logits.keys() & their_logits.keys()]
        # A NaN is larger than everything: `max` would not see it.
        largest = max([largest, *(math.inf if math.isnan(difference) else difference for difference in differences)])
        changed += max(our_logits, key=our_logits.get) != max(their_logits, key=their_logits.get)
        our_maps, their_maps = maps(ours[key]), maps(theirs[key])
        for method, layer, name in their_maps.keys() & our_maps.keys():
            pair = our_maps[method, layer, name], their_maps[method, layer, name]
            cosines[method, layer].append(cosine(*pair))
    return Comparison(len(theirs), len(theirs.keys() - ours.keys()), largest, changed, dict(cosines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("reference")
    parser.add_argument("--most-logits", type=float, default=math.inf)
    parser.add_argument("--least-cosine", type=float, default=-math.inf)
    arguments = parser.parse_args()
    compared = compare(arguments.out, arguments.reference)
    print(f"{compared.images} images, {compared.missing} of them missing; logits differ by at most "
          f"{compared.logits:.2g}, the top class of {compared.changed}")
    good = compared.images > 0 and not compared.missing and compared.logits <= arguments.most_logits
    if not compared.cosines:
        print("no maps to compare")
        good = False
    for (method, layer), values in sorted(compared.cosines.items()):
        print(f"{method:<15}{layer:<23} cosine median {statistics.median(values):.7f}, least {min(values):.7f}")
        good = good and min(values) >= arguments.least_cosine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
