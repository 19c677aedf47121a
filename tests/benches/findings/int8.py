#!/usr/bin/env python3
"""Counts what Camshaft finds of planted faults in int8, beside f32 and bf16.

    cargo build --release && tests/benches/findings/int8.py [--seeds 2 3 4]

The images are those of `compare.py`. Each run is a whole audit of its own; int8 is calibrated on the same
images, faults and all. Dark and washed-out photographs are near the boundary between two classes, so int8 may
agree with f32 on less than the share that `--min-agreement` asks for by default: it is taken all the same, and its
share is printed. Prints precision, recall and F1, and whether int8's precision and recall lie within the 95 %
intervals (Wilson) of f32's.

Installs numpy, Pillow and duckdb into `target/findings-int8-peers`.
"""
import argparse
import json
import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import peers
from compare import ROWS, Counts, keys_found, our_pictures, planted
from programs import audited

PRECISIONS = ["f32", "bf16", "int8"]
LABELS = ROWS[0]


def interval(right, of):
    """Wilson's 95 % interval of a share."""
    if of == 0:
        return 0.0, 1.0
    z, share = 1.96, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return middle - half, middle + half


def within(counts, row):
    """Whether int8's precision and recall are within the intervals of f32's."""
    of_fault, seen, right = counts.by_row[row]["f32"]
    precision, recall, _ = counts.rates(row, "int8")
    (low, high), (least, most) = interval(right, seen), interval(right, of_fault)
    return low <= precision <= high and least <= recall <= most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    counts = Counts()
    for seed in parser.parse_args().seeds:
        folder, truth = planted(seed)
        for precision in PRECISIONS:
            print(f"seed {seed}, {precision} …", file=sys.stderr, flush=True)
            options = ["--precision", precision, *(["--min-agreement", "0,0"] if precision == "int8" else [])]
            out = audited(folder / "data", folder / f"out-{precision}", *options)
            record = json.loads(next((out / "predictions").rglob("*.json")).read_text())
            if record["model"]["precision"] != precision:
                sys.exit(f"seed {seed} was computed in {record['model']['precision']}, not in {precision}")
            if precision == "int8":
                agreement = json.loads((out / "run.json").read_text())["int8"]["agreement"]
                print(f"seed {seed}: {agreement}")
            our_pictures(counts, truth, out, precision)
            counts.add(LABELS, precision, truth["swapped"], keys_found(out, "kind = 'label-error'"))
    print("\nprecision / recall (F1)\n")
    print("| planted | " + " | ".join(PRECISIONS) + " | int8 within f32's intervals |")
    print("|" + "---|" * (len(PRECISIONS) + 2))
    failed = False
    for row in filter(counts.by_row.get, ROWS):
        cells = ["{:.2f} / {:.2f} ({:.2f})".format(*counts.rates(row, precision)) for precision in PRECISIONS]
        is_within = within(counts, row)
        failed |= not is_within
        print(f"| {row} | " + " | ".join(cells) + f" | {'yes' if is_within else 'NO'} |")
    sys.exit(failed)


if __name__ == "__main__":
    peers.run_with("findings-int8-peers", ["duckdb", "numpy<2", "pillow"])
    main()
