"""Runs the kit's two programs: `camshaft` for audits, and the benchmark of the model alone.

Owns where things lie in a kit, the environment of the programs, and how their figures are read. Does not
decide what is measured: measure.py does.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple


class Failed(Exception):
    """A program failed. The message is its last line."""


def last_line(text):
    return (text.strip().splitlines() or ["it printed nothing"])[-1][:200]


class AuditFigures(NamedTuple):
    # As the program prints it: from its start to its end.
    images_per_second: float
    # Once it runs, by the times of its results. None if there are too few.
    running: float | None
    # The part of the time that the model works, once it runs.
    model_share: float | None
    seconds: float
    # Processor time, of all threads.
    cpu_seconds: float
    failed: int
    log: str


class Kit:
    """A kit, and a folder to work in."""

    def __init__(self, kit, work, device):
        self.kit, self.work, self.device = Path(kit), Path(work), device
        self.program, self.bench = self.kit / "camshaft", self.kit / "model-bench"
        self.model, self.photos = self.kit / "model", self.kit / "photos"
        self.references, self.peers = self.kit / "references", self.kit / "peers"
        # The user's settings of Camshaft would change what is measured. The emulator's are no settings.
        kept = ("CAMSHAFT_CUDA_", "CAMSHAFT_EMULATE_")
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith("CAMSHAFT_") or name.startswith(kept)}
        self.forget_plans()

    def forget_plans(self):
        """Lets the next start be a first one: no chosen plans, nothing of the driver's cache."""
        caches = self.work / "caches"
        shutil.rmtree(caches, ignore_errors=True)
        self.environment |= {"XDG_CACHE_HOME": str(caches / "plans"), "CUDA_CACHE_PATH": str(caches / "driver")}

    def audit(self, images, *options, device=None, precision=None, running=False):
        """Audits a folder, into the work folder's `out`. With `running`, tells how it went once it ran. Raises
        `Failed`."""
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = [self.program, "audit", images, "--out", out, "--model", self.model, "--log", "info",
                   "--device", device or self.device, *options]
        if precision:
            command += ["--precision", precision]
        started = time.perf_counter()
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 text=True, env=self.environment)
        log = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        found = re.search(r"\(([\d.,]+) images/s\)", log)
        if child.returncode or not found:
            raise Failed(last_line(log))
        rate, share = running_figures(out) if running else (None, None)
        failed = sum(1 for path in (out / "failures").rglob("*.json")) if (out / "failures").exists() else 0
        return AuditFigures(float(found.group(1).replace(",", "")), rate, share, seconds,
                            usage.ru_utime + usage.ru_stime, failed, log)

    @property
    def out(self):
        return self.work / "out"

    def copies(self, count):
        """A folder with `count` photographs: the kit's, again and again. They are hard links."""
        folder = self.work / f"photos-{count}"
        if not folder.exists():
            photos = sorted(self.photos.iterdir())
            first = folder / "0"
            first.mkdir(parents=True)
            for photo in photos:
                shutil.copy(photo, first / f"0-{photo.name}")
            for number in range(len(photos), count):
                copy, photo = divmod(number, len(photos))
                (folder / str(copy)).mkdir(exist_ok=True)
                name = photos[photo].name
                os.link(first / f"0-{name}", folder / str(copy) / f"{copy}-{name}")
        return folder


def running_figures(out):
    """Images per second and the model's share of the time, without the start."""
    records = [json.loads(path.read_text()) for path in (out / "predictions").rglob("*.json")]
    done = sorted((datetime.fromisoformat(record["finished_at"].replace("Z", "+00:00")).timestamp(),
                   record["timings_ms"]["model"]) for record in records)
    # The first half does not count: the program looks for a batch size, and its stages fill.
    half = done[len(done) // 2:]
    if len(half) < 100 or half[-1][0] == half[0][0]:
        return None, None
    # Images end a batch at a time, so that two points would say little: a line is fitted through all.
    rate = statistics.linear_regression([end for end, _ in half], range(len(half))).slope
    return rate, rate * statistics.mean(model_ms for _, model_ms in half) / 1000


class Bench:
    """The benchmark of the model with one precision, loaded and waiting for the next measurement."""

    def __init__(self, kit, precision, device=None):
        command = [kit.bench, precision, "-", "auto", device or kit.device, kit.model]
        self.child = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env=kit.environment)
        self.warm = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The child ends when there is nothing more to read.
        self.child.communicate()

    def rate(self, batch, seconds, method=None, layer=None):
        """Images per second. Raises `Failed`."""
        explanation = [method, layer] if method else []
        words = " ".join(map(str, [batch, "{}", *explanation]))
        if words not in self.warm:
            # The engine times its plans between the first batches of a size.
            self.ask(words.format(4.0))
            self.warm.add(words)
        return self.ask(words.format(seconds))

    def ask(self, line):
        try:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
            answer = self.child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        found = re.search(r"images_per_second=([\d.]+)", answer)
        if found:
            return float(found.group(1))
        raise Failed(last_line(answer or self.child.stderr.read()))
