"""The side of a PyTorch program that is measured in turn with Camshaft. peers.py is the other side.

`rate` announces a form of the program on standard output, measures it each time a line `go` comes, and
returns on `next`, so that the program goes on to its next form.
"""
import sys
import time

import torch


def rate(name, go, n, secs=1.0):
    print(f"form {n} {name}", flush=True)
    for line in iter(sys.stdin.readline, ""):
        if line.strip() == "next":
            return
        for _ in range(3):
            go()
        torch.cuda.synchronize()
        started, passes = time.perf_counter(), 0
        while time.perf_counter() - started < secs:
            for _ in range(4):
                go()
            passes += 4
            torch.cuda.synchronize()
        print(f"rate {passes * n / (time.perf_counter() - started):.1f}", flush=True)
