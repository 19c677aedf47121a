#!/usr/bin/env python3
"""Measures a GPU with a kit that kit.sh made, and prints what it finds as Markdown.

    run.sh KIT [--seconds 290] [--only accuracy] [--work FOLDER]
    run.sh KIT --device cpu --only accuracy start      tries the kit on a machine without a GPU

Sections run in order of importance. One that is not likely to end in time is left out, and the output says so.
"""
import argparse
import os
import platform
import shutil
import sys
import time
import traceback
from pathlib import Path

import audit_sections
import model_sections
import watch
from programs import Failed, Kit
from table import Conditions

# Name, function, and the seconds that it may take on an H100 with 16 cores.
SECTIONS = [
    ("start", audit_sections.start, 10),
    ("accuracy", model_sections.accuracy, 60),
    ("pytorch", model_sections.beside_pytorch, 90),
    ("gradients", model_sections.gradients, 40),
    ("audits", audit_sections.audits, 55),
    ("memory", audit_sections.little_memory, 15),
    ("batches", model_sections.by_batch, 50),
    ("cpu", audit_sections.on_the_cpu, 30),
]
NEEDS_GPU = {"pytorch", "gradients", "audits", "memory", "batches"}


def measure(kit, arguments, conditions):
    ends = time.monotonic() + arguments.seconds
    for name, section, seconds in SECTIONS:
        if arguments.only and name not in arguments.only:
            continue
        if arguments.device == "cpu" and name in NEEDS_GPU:
            print(f"\n{name}: left out, it needs a GPU", flush=True)
        elif time.monotonic() + seconds > ends:
            print(f"\n{name}: left out, {seconds} s would be too long", flush=True)
        else:
            run(name, section, kit, conditions)


def run(name, section, kit, conditions):
    started = time.monotonic()
    try:
        section(kit, conditions)
    except Failed as error:
        print(f"\n{name}: FAILED: {error}", flush=True)
    except Exception:
        # Time on a GPU is short: a mistake in one section must not cost the others.
        print(f"\n{name}: FAILED", flush=True)
        traceback.print_exc()
    print(f"\n({name}: {time.monotonic() - started:.0f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kit", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=290, help="sections that would take longer are left out")
    parser.add_argument("--only", nargs="+", choices=[name for name, _, _ in SECTIONS])
    parser.add_argument("--work", type=Path, default=Path("camshaft-gpu-work"), help="a folder for results")
    arguments = parser.parse_args()
    if not (arguments.kit / "camshaft").exists():
        sys.exit(f"{arguments.kit} is no kit of tests/gpu/kit.sh")
    work = arguments.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    kit, conditions = Kit(arguments.kit.resolve(), work, arguments.device), Conditions()
    print(f"## Camshaft {(arguments.kit / 'VERSION').read_text().strip()}\n")
    print(f"{watch.describe()}; {platform.machine()}, {len(os.sched_getaffinity(0))} cores; Python "
          f"{platform.python_version()}", flush=True)
    try:
        measure(kit, arguments, conditions)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    conditions.print()
    return 1 if any(row[-1] == "NO" for row in conditions.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
