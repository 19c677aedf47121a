#!/usr/bin/env python3
"""The audits whose results a GPU's are compared with. `kit.sh` runs them on a CPU in f32, `measure.py` on
the GPU in every precision. Run as a program, it prints them for kit.sh: name, methods, layers and images."""
from typing import NamedTuple

GRADIENTS = ["grad-cam", "hires-cam", "grad-cam++", "xgrad-cam", "layer-cam", "eigen-cam", "eigen-grad-cam"]
PASSES = ["score-cam", "ablation-cam"]
PRECISIONS = ["f32", "tf32", "bf16", "f16"]


class Case(NamedTuple):
    name: str
    methods: list
    layers: list
    images: int


CASES = [
    # A stage, and a convolution of each kind: in the path of a block, in its shortcut.
    Case("layers", GRADIENTS, ["layer4", "layer3", "layer2", "layer4.2.conv3", "layer4.0.downsample.0"], 24),
    # Their maps are large files, so that fewer images must do.
    Case("fine-layers", GRADIENTS, ["layer1", "conv1"], 6),
    # One pass a channel: 5,700 for an image.
    Case("passes", PASSES, ["layer4", "layer3", "layer2", "layer1", "conv1"], 2),
]

# Options of every one of these audits, and of the GPU's. Without labels only the top class is explained.
OPTIONS = ["--labels", "none", "--overlay", "none", "--no-report"]


def options(case):
    return ["--method", ",".join(case.methods), "--layer", ",".join(case.layers), "--limit", str(case.images), *OPTIONS]


if __name__ == "__main__":
    for case in CASES:
        print(case.name, *options(case))
