#!/usr/bin/env python3
"""Compares Camshaft with programs that a user could run instead, on the same images, in turn.

    tests/benches/compare.py [--runs 5] [--copies 8] [--only NAME] [--soak 10000]

Runs alternate (A B A B …), so that a machine whose speed drifts slows all programs alike. The result
is the median of the ratios of neighbouring runs. The time to start, and to calibrate int8, does not
count on either side. Needs `../shared/peers` and
`../shared/data/photos`, and installs the peers' packages into `target/peers` (some GB).
"""
import argparse
import functools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT.parent / "shared" / "peers"
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
WEIGHTS = ROOT / "worker" / "model" / "models" / "cats-vs-dogs" / "model.safetensors"
WORK = ROOT / "target" / "compare"
PACKAGES = ["torch", "torchvision", "openvino", "onnx", "onnxruntime", "opencv-python-headless",
            "safetensors", "grad-cam", "nncf"]
INT8 = Path(__file__).with_name("openvino_int8.py")
LATENCY = Path(__file__).with_name("latency_onnxruntime.py")
CAMSHAFT = ROOT / "target" / "release" / "camshaft"

COMPARISONS = {
    "model-bf16": "model and CAM, batch 8, bf16: OpenVINO",
    "model-int8": "model and CAM, batch 8, int8: OpenVINO",
    "model-f32": "model and CAM, batch 8, f32: OpenVINO",
    "latency-auto": "model and CAM, batch 1, auto: ONNX Runtime f32",
    "latency-f32": "model and CAM, batch 1, f32: ONNX Runtime f32",
    "audit-bf16": "end to end, bf16: OpenVINO and OpenCV",
    "audit-int8": "end to end, int8: OpenVINO and OpenCV",
    "audit-int8-bf16": "end to end, int8: OpenVINO in bf16 and OpenCV",
    "audit-f32": "end to end, f32: OpenVINO and OpenCV",
    "audit-torch": "end to end, auto: PyTorch and grad-cam",
}


def run(command, pattern):
    """Runs it, and returns the figure it prints and its peak memory in MiB."""
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, env=environment)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    found = re.search(pattern, output)
    if status or not found:
        sys.exit(f"{command[0]} failed:\n{output}")
    return float(found.group(1)), usage.ru_maxrss / 1024


def rate(*command):
    return run(command, r"images_per_second=([\d.]+)")


def model(precision, batch=8):
    return lambda: rate(bench, precision, batch)


def new_folder(name):
    """A folder that was not there: a file system is slow to make files where it has just deleted some."""
    WORK.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=name, dir=WORK))


def audit_seconds(images, precision, limit=None):
    """Seconds of an audit of all images or some, start included, how many it did, and its peak memory in MiB."""
    command = [CAMSHAFT, "audit", images, "--out", new_folder("ours"), "--precision", precision, "--no-report"]
    if precision == "int8":
        # It calibrates, which does not count, and does one image. The photographs are not the model's: one
        # that is a toss-up in f32 may differ, and is there several times. The peer is not asked how well it
        # agrees.
        run([*command, "--min-agreement", "0,0", "--limit", 1], r"Audited (\d+) image")
        limit = limit and limit + 1
    started = time.perf_counter()
    count, memory = run(command + (["--limit", limit] if limit else []), r"Audited (\d+) image")
    return time.perf_counter() - started, count, memory


@functools.cache
def start(images, precision):
    """Seconds of an audit of one image."""
    return statistics.median(audit_seconds(images, precision, 1)[0] for _ in range(args.runs))


def audit(images, precision):
    def once():
        seconds, count, memory = audit_seconds(images, precision)
        return (count - 1) / (seconds - start(images, precision)), memory
    return once


def openvino_in(precision):
    """The program and arguments that run OpenVINO in a precision."""
    if precision == "int8":
        return [INT8, PEERS]
    return [PEERS / "gradcam_openvino.py", "--precision", precision]


def peer_audit(script, images):
    return lambda: rate(python, *script, "--images", images, "--out", new_folder("peer"), "--weights", WEIGHTS)


def sides(name):
    kind, choice, *of_peer = name.split("-")
    if kind == "model":
        peer = [python, *openvino_in(choice), "--weights", WEIGHTS, "--model-only"]
        return model(choice), lambda: rate(*peer)
    if kind == "latency":
        return model(choice, batch=1), lambda: rate(python, LATENCY, PEERS, WEIGHTS)
    if choice == "torch":
        # An eighth of the images: this program takes about eight times as long.
        return audit(images, "auto"), peer_audit([PEERS / "gradcam_torch.py"], images / "0")
    return audit(images, choice), peer_audit(openvino_in(*of_peer or [choice]), images)


def compare(name):
    ours, theirs = sides(name)
    pairs = [(ours(), theirs()) for _ in range(args.runs)]
    ratios = sorted(a[0] / b[0] for a, b in pairs)
    middle = lambda figure: [statistics.median(side[figure] for side in column)
                             for column in zip(*pairs)]
    (a, b), (memory, peer_memory) = middle(0), middle(1)
    print(f"{COMPARISONS[name]:<48} camshaft {a:6.1f}/s {memory:5.0f} MiB   "
          f"peer {b:6.1f}/s {peer_memory:5.0f} MiB   ratio {statistics.median(ratios):5.2f} "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


def bench_program():
    built = subprocess.run(
        ["cargo", "bench", "-p", "camshaft-tests", "--bench", "model", "--no-run"],
        cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"Executable .*\((target/\S+)\)", built.stderr)
    if built.returncode or not found:
        sys.exit(built.stderr)
    return ROOT / found.group(1)


def copies(count, folder):
    """Links to `count` photographs: all of them, again and again."""
    shutil.rmtree(folder, ignore_errors=True)
    photos = sorted(PHOTOS.iterdir())
    for number in range(count):
        copy, photo = divmod(number, len(photos))
        (folder / str(copy)).mkdir(parents=True, exist_ok=True)
        first = folder / "0" / f"0-{photos[photo].name}"
        target = folder / str(copy) / f"{copy}-{photos[photo].name}"
        shutil.copy(photos[photo], target) if copy == 0 else os.link(first, target)
    return folder


def first_result():
    """Seconds from the start of `camshaft audit` to the end of its only image."""
    print(f"{'start to first result':<48} camshaft {start(images, 'auto'):6.2f} s", flush=True)


def soak(count):
    """Prints the memory in each fifth of a long run."""
    out = new_folder("ours")
    command = [str(CAMSHAFT), "audit", str(copies(count, WORK / "many")), "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=environment)
    sizes = []
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
            sizes.append(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024)
        except (OSError, AttributeError):
            pass
        time.sleep(0.2)
    part = max(1, len(sizes) // 5)
    peaks = [f"{max(sizes[at:at + part]):.0f}" for at in range(0, 5 * part, part) if sizes[at:]]
    print(f"{f'resident over {count} images, each fifth':<48} {', '.join(peaks)} MiB", flush=True)


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--copies", type=int, default=8, help="of the 150 photographs, for longer runs")
parser.add_argument("--only", choices=COMPARISONS, nargs="+", default=list(COMPARISONS))
parser.add_argument("--soak", type=int, metavar="IMAGES", help="also watch memory over this number of images")
args = parser.parse_args()
for needed in (PEERS, PHOTOS):
    if not needed.exists():
        sys.exit(f"there is no {needed}: nothing was compared")
# numpy's and torch's libraries choose their kernels themselves.
environment = {name: value for name, value in os.environ.items()
               if not name.startswith("OPENBLAS_")}
python = peers.python_with("peers", PACKAGES)
subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
bench = bench_program()
images = copies(150 * args.copies, WORK / "images")
try:
    for name in args.only:
        compare(name)
    first_result()
    if args.soak:
        soak(args.soak)
finally:
    shutil.rmtree(WORK, ignore_errors=True)
