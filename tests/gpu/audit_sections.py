"""What measure.py prints of whole audits: start, speed, the shares of GPU and CPU, and too little memory."""
import os
import re
import subprocess
import sys

import peers
from programs import Bench, Failed
from table import Table, ratio, share
from watch import Watch

# Enough for some seconds at 3,000 images/s.
IMAGES = 4800
CPU_IMAGES = 2400
# The batch of the check with little memory, and the memory that is left for it. It takes some 20 GiB.
LARGE_BATCH, LEFT_GIB = 1024, 4
START_SECONDS, PIPELINE, CORES_BUSY, KERNEL_SHARE = 3.0, 5.0, 0.92, 0.85
OVERLAYS = {"with overlays": ["--no-report"], "without overlays": ["--no-report", "--overlay", "none"]}

# Takes all memory of the GPU but some, says so, and waits.
TAKE_MEMORY = """
import sys, torch
free, total = torch.cuda.mem_get_info()
kept = torch.empty(max(0, free - int(float(sys.argv[1]) * 2**30)), dtype=torch.uint8, device="cuda")
print("taken", kept.numel() // 2**20, flush=True)
sys.stdin.read()
"""


def start(kit, conditions):
    """Seconds from the program's start to the end of its first image."""
    table = Table("Start of an audit to the end of its only image", "", "seconds")
    kit.forget_plans()
    for which in ["first start", "second start"]:
        figures = kit.audit(kit.photos, "--limit", "1", "--overlay", "none", "--no-report")
        table.row(which, f"{figures.seconds:.2f}")
        conditions.check(f"{which}: seconds to the first result", "<=", START_SECONDS, figures.seconds)


def audits(kit, conditions):
    """Audits on the GPU beside a PyTorch pipeline with 16 processes that load and 16 that draw."""
    images = kit.copies(IMAGES)
    table = Table(f"Audit of {IMAGES} photographs beside a PyTorch pipeline, images/s", "", "Camshaft, start and all",
                  "once it runs", "model's share", "GPU busy", "PyTorch", "ratio")
    for name, overlay in OVERLAYS.items():
        with Watch() as watch:
            ours = kit.audit(images, *overlay, running=True)
        try:
            theirs = peers.audit(kit, images, drawing=name == "with overlays")
        except Failed as error:
            theirs = None
            print(f"PyTorch's pipeline failed: {error}", file=sys.stderr)
        table.row(name, ours.images_per_second, ours.running, share(ours.model_share), share(watch.busy_share()),
                  theirs, ratio(ours.images_per_second, theirs))
        times = ours.images_per_second / theirs if theirs else None
        conditions.check(f"audit {name}, times the PyTorch pipeline", ">=", PIPELINE, times)


def little_memory(kit, conditions):
    """Batches of 1,024 while another process holds most of the GPU's memory."""
    table = Table(f"Batch {LARGE_BATCH:,} with {LEFT_GIB} GiB of the GPU's memory left", "", "")
    images = kit.copies(2 * LARGE_BATCH)
    taker = subprocess.Popen([sys.executable, "-c", TAKE_MEMORY, str(LEFT_GIB)], text=True, env=kit.environment,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        taken = re.match(r"taken (\d+)", taker.stdout.readline())
        table.row("held by another process", f"{int(taken.group(1)):,} MiB" if taken else "nothing: no PyTorch")
        with Watch() as watch:
            figures = kit.audit(images, "--no-report", "--overlay", "none", "--batch", str(LARGE_BATCH))
    finally:
        taker.communicate()
    table.row("most memory in use", f"{watch.most_memory_mib() or 0:,.0f} MiB")
    table.row("failed images", str(figures.failed))
    table.row("batches from then on", (re.findall(r"from now on.*?batch=(\d+)", figures.log) or ["as asked"])[-1])
    conditions.check(f"batch {LARGE_BATCH} with little memory: failed images", "<=", 0, figures.failed)


def on_the_cpu(kit, conditions):
    """The same audits on this machine's CPU: how busy its cores are, and what the pipeline costs."""
    cores = len(os.sched_getaffinity(0))
    images = kit.copies(CPU_IMAGES)
    table = Table(f"On the CPU, {cores} cores", "", "images/s", "cores busy", "CPU ms an image")
    # Two rates of the network alone: `--batch auto` may choose either.
    with Bench(kit, "auto", device="cpu") as bench:
        kernels = max(bench.rate(batch, 2.0) for batch in (8, 64))
    table.row("the network alone", kernels, "", f"{1000 * cores / kernels:.1f}")
    for name, overlay in OVERLAYS.items():
        figures = kit.audit(images, *overlay, device="cpu", running=True)
        busy = figures.cpu_seconds / figures.seconds / cores
        table.row(name, figures.images_per_second, share(busy), f"{1000 * figures.cpu_seconds / CPU_IMAGES:.1f}")
        conditions.check(f"CPU, {name}: cores busy", ">=", CORES_BUSY, busy)
        if name == "without overlays" and figures.running:
            conditions.check("CPU, without overlays: share of the network's rate alone", ">=", KERNEL_SHARE,
                             figures.running / kernels)
