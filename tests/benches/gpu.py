#!/usr/bin/env python3
"""Measures a GPU: the model alone, by precision and batch, compared with PyTorch; and a whole audit.

    tests/benches/gpu.py [--device cuda] [--runs 3] [--images FOLDER] [--copies 20]

Builds with `--features cuda`, which takes a CUDA toolkit (see docs/scale.md). Runs of Camshaft and
PyTorch alternate, and the result is the median of the ratios of neighbours. Of an audit it prints
images per second, the batch that `--batch auto` chose, and the model's share of the time: below
0.9 the GPU waits for something else. PyTorch must be in this Python; without it only Camshaft is
measured.

    tests/benches/gpu.py --device cpu --runs 1 --copies 1

tries the script on a machine without a GPU.
"""
import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "gpu"
WEIGHTS = ROOT / "worker" / "models" / "cats-vs-dogs" / "model.safetensors"
BATCHES = [1, 8, 32, 128, 256]

# The same work as Camshaft's benchmark: forward pass and Grad-CAM at layer4 of the top class, by the
# head's own weights, results on the host. Its fastest form: half precision, channels last.
PEER = """
import sys, time, torch, torchvision
from safetensors.torch import load_file
device, precision, batch, weights = sys.argv[1:]
dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
model = torchvision.models.resnet50(num_classes=2)
model.load_state_dict(load_file(weights), strict=False)
model = model.eval().to(device, dtype, memory_format=torch.channels_last)
body = torch.nn.Sequential(*list(model.children())[:-2])
images = torch.rand(int(batch), 3, 224, 224)
def once():
    with torch.inference_mode():
        x = images.to(device, dtype, memory_format=torch.channels_last)
        features = body(x)
        logits = model.fc(features.mean((2, 3)))
        weights = model.fc.weight[logits.argmax(1)]
        maps = torch.einsum("nchw,nc->nhw", features, weights).relu()
        return logits.float().cpu(), maps.float().cpu()
for _ in range(5): once()
started, count = time.perf_counter(), 0
while time.perf_counter() - started < 5:
    once(); count += int(batch)
print(f"images_per_second={count / (time.perf_counter() - started):.1f}")
"""


def rate(command):
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    found = re.search(r"images_per_second=([\d.]+)", ran.stdout)
    if ran.returncode or not found:
        return None, (ran.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    return float(found.group(1)), None


def cargo(*arguments):
    cuda = [] if args.device == "cpu" else ["--features", "cuda"]
    built = subprocess.run(["cargo", *arguments, *cuda], cwd=ROOT, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    return built.stderr


def models():
    built = cargo("bench", "-p", "camshaft-tests", "--bench", "model", "--no-run")
    bench = ROOT / re.search(r"Executable .*\((target/\S+)\)", built).group(1)
    print(f"{'precision':<10}{'batch':>6}{'camshaft/s':>12}{'PyTorch/s':>12}{'ratio':>8}", flush=True)
    for precision in ["f32", "bf16"] if args.device == "cpu" else ["f32", "bf16", "f16"]:
        for batch in BATCHES[:2] if args.device == "cpu" else BATCHES:
            pairs = []
            for _ in range(args.runs):
                ours, problem = rate([bench, precision, batch, "auto", args.device])
                theirs, missing = rate([sys.executable, "-c", PEER, args.device, precision, batch, WEIGHTS])
                pairs.append((ours, theirs))
            if ours is None:
                print(f"{precision:<10}{batch:>6}  {problem}", flush=True)
                continue
            middle = statistics.median(pair[0] for pair in pairs)
            if theirs is None:
                print(f"{precision:<10}{batch:>6}{middle:>12.1f}  no PyTorch beside it: {missing}", flush=True)
                continue
            ratio = statistics.median(a / b for a, b in pairs)
            theirs = statistics.median(pair[1] for pair in pairs)
            print(f"{precision:<10}{batch:>6}{middle:>12.1f}{theirs:>12.1f}{ratio:>8.2f}", flush=True)


def audit(precision):
    out = WORK / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [ROOT / "target/release/camshaft", "audit", WORK / "images", "--out", out, "--no-report",
               "--device", args.device, "--precision", precision, "--log", "info"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if ran.returncode:
        return print(f"audit at {precision}: {ran.stderr.strip()}")
    batches = re.findall(r"images in a batch from now on.*?batch=(\d+)", ran.stderr)
    records = [json.loads(path.read_text()) for path in (out / "predictions").rglob("*.json")]
    done = sorted((datetime.fromisoformat(record["finished_at"]).timestamp(), record["timings_ms"]["model"])
                  for record in records)
    # The first half does not count: the worker searches for a batch size, and its stages fill.
    half = done[len(done) // 2:]
    # Images end a batch at a time, so that two points would say little: fit a line through all.
    speed = statistics.linear_regression([end for end, _ in half], range(len(half))).slope
    share = speed * statistics.mean(model_ms for _, model_ms in half) / 1000
    print(f"audit at {precision}: {speed:.1f} images/s, batch {(batches or ['fixed'])[-1]}, "
          f"the model works {share:.0%} of the time", flush=True)


def copies():
    shutil.rmtree(WORK, ignore_errors=True)
    for number in range(args.copies):
        shutil.copytree(args.images, WORK / "images" / str(number))


photos = ROOT.parent / "shared" / "data" / "photos"
parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--device", default="cuda")
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--images", type=Path, default=photos if photos.exists() else ROOT / "tests/data/photos")
parser.add_argument("--copies", type=int, default=20, help="of the images, for longer runs")
args = parser.parse_args()
models()
cargo("build", "--release", "-p", "camshaft-producer")
copies()
try:
    for precision in ["f32", "bf16"] if args.device == "cpu" else ["f32", "bf16", "f16"]:
        audit(precision)
finally:
    shutil.rmtree(WORK, ignore_errors=True)
