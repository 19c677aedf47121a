#!/usr/bin/env python3
"""Camshaft beside what a user would run instead, on the same images, in turn.

    tests/benches/compare.py [--runs 5] [--copies 8] [--torch]

Runs alternate (A B A B …), so that a machine whose speed drifts slows all alike; what counts
is the median of the ratios of neighbouring runs. Needs `../shared/peers` and
`../shared/data/photos`, and installs the peers' packages into `target/peers` (some GB).
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT.parent / "shared" / "peers"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
WEIGHTS = ROOT / "worker" / "models" / "cats-vs-dogs" / "model.safetensors"
VENV = ROOT / "target" / "peers"
PACKAGES = ["torch", "torchvision", "openvino", "onnx", "opencv-python-headless", "safetensors", "grad-cam"]


def peers_python():
    python = VENV / "bin" / "python"
    if python.exists():
        return python
    print("installing the peers' packages into target/peers …", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(f"the peers' packages can't be had here ({error}); nothing was compared")
    return python


def rate(command, pattern=r"images_per_second=([\d.]+)", env=None):
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
    found = re.search(pattern, ran.stdout)
    if ran.returncode or not found:
        sys.exit(f"{command[0]} failed:\n{ran.stdout}{ran.stderr}")
    return float(found.group(1))


def model_only(precision):
    bench = [*cargo_bench(), precision]
    peer = [python, PEERS / "gradcam_openvino.py", "--weights", WEIGHTS, "--model-only",
            "--precision", precision]
    return (lambda: rate(bench)), (lambda: rate(peer))


def cargo_bench():
    built = subprocess.run(
        ["cargo", "bench", "--quiet", "-p", "camshaft-tests", "--bench", "model", "--no-run",
         "--message-format", "short"], cwd=ROOT, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    programs = sorted((ROOT / "target" / "release" / "deps").glob("model-*"), key=os.path.getmtime)
    return [next(p for p in reversed(programs) if not p.suffix)]


def audit(images, out, precision):
    def run():
        shutil.rmtree(out, ignore_errors=True)
        command = [ROOT / "target" / "release" / "camshaft", "audit", images, "--out", out,
                   "--precision", precision]
        return rate(command, r"\(([\d.]+) images/s\)")
    return run


def peer_audit(script, images, out, *more):
    def run():
        shutil.rmtree(out, ignore_errors=True)
        return rate([python, PEERS / script, "--images", images, "--out", out, "--weights",
                     WEIGHTS, *more])
    return run


def compare(name, ours, theirs):
    pairs = [(ours(), theirs()) for _ in range(args.runs)]
    ratio = statistics.median(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs))
    print(f"{name:<44} camshaft {a:7.1f}/s   peer {b:7.1f}/s   ratio {ratio:5.2f}", flush=True)


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--copies", type=int, default=8, help="of the 150 photographs, for longer runs")
parser.add_argument("--torch", action="store_true", help="also PyTorch with grad-cam, which is slow")
args = parser.parse_args()
for needed in (PEERS, PHOTOS):
    if not needed.exists():
        sys.exit(f"there is no {needed}: nothing was compared")
python = peers_python()
subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
work = ROOT / "target" / "compare"
images = work / "images"
shutil.rmtree(work, ignore_errors=True)
for copy in range(args.copies):
    (images / str(copy)).mkdir(parents=True)
    for photo in PHOTOS.iterdir():
        shutil.copy(photo, images / str(copy) / f"{copy}-{photo.name}")

for precision in ("bf16", "f32"):
    compare(f"model and CAM, batch 8, {precision}: OpenVINO", *model_only(precision))
for precision in ("bf16", "f32"):
    compare(f"end to end, {precision}: OpenVINO and OpenCV", audit(images, work / "ours", precision),
            peer_audit("gradcam_openvino.py", images, work / "peer", "--precision", precision))
if args.torch:
    compare("end to end, bf16: PyTorch and grad-cam", audit(images, work / "ours", "bf16"),
            peer_audit("gradcam_torch.py", images / "0", work / "peer"))
shutil.rmtree(work, ignore_errors=True)
