#!/usr/bin/env python3
"""`../shared/peers/gradcam_openvino.py` with its network in int8: NNCF's post-training quantisation, on 100
of its images or, with --model-only, on noise. Takes the other program's arguments, after its folder."""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, sys.argv.pop(1))

import gradcam_openvino
import nncf

CALIBRATING = 100
convert = gradcam_openvino.ov.convert_model


def sample():
    if "--images" not in sys.argv:
        return list(np.random.default_rng(0).random((8, 1, 3, 224, 224), np.float32))
    folder = Path(sys.argv[sys.argv.index("--images") + 1])
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".png"})
    paths = paths[:: max(1, len(paths) // CALIBRATING)][:CALIBRATING]
    mean, std = np.float32(0), np.float32(1)
    return [gradcam_openvino.read(path, mean, std)[1][None] for path in paths]


def quantised(*arguments, **options):
    model = convert(*arguments, **options)
    model.reshape([-1, 3, 224, 224])
    images = sample()
    preset = nncf.QuantizationPreset.MIXED
    return nncf.quantize(model, nncf.Dataset(images), subset_size=len(images), preset=preset)


gradcam_openvino.ov.convert_model = quantised
gradcam_openvino.main()
