#!/usr/bin/env python3
"""ResNet-50 and the last stage's features on ONNX Runtime in f32, one image at a time.

    latency_onnxruntime.py PEERS WEIGHTS

PEERS is the folder of the peers' scripts, which load the model. Prints images per second over
five seconds, after a warm-up.
"""
import os
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
peers, weights = sys.argv[1:]
sys.path.insert(0, peers)

import numpy
import onnxruntime
import torch
from gradcam_openvino import WithFeatures
from gradcam_torch import load_model

network = WithFeatures(load_model(weights, 2)).eval()
with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), file.name, input_names=["image"],
                      dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(file.name, options, ["CPUExecutionProvider"])
image = {"image": numpy.random.rand(1, 3, 224, 224).astype(numpy.float32)}
for _ in range(5):
    session.run(None, image)
started, count = time.perf_counter(), 0
while time.perf_counter() - started < 5:
    session.run(None, image)
    count += 1
rate = count / (time.perf_counter() - started)
print(f"peer=onnxruntime-f32 batch=1 images_per_second={rate:.1f}")
