#!/usr/bin/env python3
"""Counts what Camshaft and the programs beside it find of planted faults.

    cargo build --release && tests/benches/findings/compare.py [--seeds 2 3 4] [--only labels pictures]

For each seed, `plant.py` makes 628 images from `../shared/data/pets`. Camshaft audits them twice: with
its bundled model, which has not seen them, and with a flattened head that was trained on them as they
are. cleanvision, cleanlab, imagededup and fastdup look at the same files; cleanvision and imagededup
stop at a corrupt file, so they get the set without those. Prints precision, recall and F1 of each, as
means over the seeds. Thresholds were chosen on seed 1: give others.

What the others are asked:
- cleanvision, imagededup (PHash): their own decisions at their defaults.
- cleanlab: `find_label_issues` on the same embeddings' five-fold probabilities (logistic regression, its
  strength by cross-validation).
- fastdup: `outliers()`; `similarity()`, whose pairs are at least 0.9 alike; blur < 50 of `img_stats()`,
  as its documentation recommends. It has no rules that fit for dark and washed out: it is given the right
  number, and takes the images of least mean, and of least deviation among those that aren't dark. These
  two are marked with * and not compared.

Installs their packages into `target/findings-peers` (some GB).
"""
import argparse
import base64
import collections
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import peers
from programs import ROOT, Fastdup, audited, camshaft, found, imagededup_pairs, pairs_of

HERE = Path(__file__).resolve().parent
WORK = ROOT / "target" / "findings"
PACKAGES = ["cleanvision==0.3.7", "cleanlab==2.9.0", "imagededup==0.3.3.post2", "fastdup==2.54", "pandas<3", "pyarrow<18",
            "scikit-learn", "duckdb", "numpy<2", "pillow"]
ROWS = ["labels, model of other images", "labels, memorised", "labels, foreign", "duplicates", "outliers", "blurred",
        "dark", "washed out", "grey", "letterboxed", "watermarked", "corrupt"]


def keys_found(out, condition):
    return {key for key, _ in found(out, condition)}


def joined(links):
    """The groups that links between two keys make."""
    group_of = {}
    for one, other in links:
        group = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of.update((key, group) for key in group)
    return {frozenset(group) for group in group_of.values()}


@contextlib.contextmanager
def quiet():
    """Drops what a peer prints, also from its C++ code."""
    sys.stdout.flush()
    before = [os.dup(stream) for stream in (1, 2)]
    with open(os.devnull, "w") as nothing:
        [os.dup2(nothing.fileno(), stream) for stream in (1, 2)]
        try:
            yield
        finally:
            sys.stdout.flush()
            [os.dup2(old, stream) for old, stream in zip(before, (1, 2))]
            [os.close(old) for old in before]


class Counts:
    """By row and program, planted, found and rightly found images, added up over seeds."""

    def __init__(self):
        self.by_row = collections.defaultdict(dict)

    def add(self, row, program, planted, seen):
        planted, seen = set(planted), set(seen)
        before = self.by_row[row].get(program, (0, 0, 0))
        now = (len(planted), len(seen), len(planted & seen))
        self.by_row[row][program] = tuple(map(sum, zip(before, now)))

    def decides(self, row, program):
        """Whether the program decides by itself; else it was told how many there are."""
        return program != "fastdup" or row not in ("dark", "washed out")

    def rates(self, row, program):
        planted, seen, right = self.by_row[row][program]
        precision, recall = right / max(seen, 1), right / planted
        return precision, recall, 2 * right / (planted + seen)

    def print(self, programs):
        print("\nprecision / recall (F1)\n")
        print("| planted | " + " | ".join(programs) + " | best |")
        print("|" + "---|" * (len(programs) + 2))
        for row in filter(self.by_row.get, ROWS):
            deciding = [program for program in self.by_row[row] if self.decides(row, program)]
            cells, best = [], max(self.rates(row, program)[2] for program in deciding)
            for program in programs:
                rates = self.rates(row, program) if program in self.by_row[row] else None
                mark = "" if self.decides(row, program) else "*"
                cells.append("{:.2f} / {:.2f} ({:.2f}){}".format(*rates, mark) if rates else "–")
            ours = self.rates(row, "Camshaft")[2] >= best - 1e-9
            print(f"| {row} | " + " | ".join(cells) + f" | {'ours' if ours else 'NOT OURS'} |")


def sketches_of(out):
    """Keys, labels and sketches of an audit's predictions."""
    import numpy
    keys, labels, rows = [], [], []
    for path in sorted((out / "predictions").rglob("*.json")):
        record = json.loads(path.read_text())
        sketch = numpy.frombuffer(base64.b64decode(record["embedding"]["sketch"]), numpy.int8)
        keys.append(record["image"]["key"])
        labels.append(record["image"]["label"])
        rows.append(sketch * record["embedding"]["scale"])
    return keys, labels, numpy.array(rows)


def cleanlab_labels(out):
    import numpy
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    keys, labels, rows = sketches_of(out)
    classes = numpy.unique(labels, return_inverse=True)[1]
    strengths = [1e-4, 1e-3, 1e-2, 1e-1, 1]
    head = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=strengths, cv=5, scoring="neg_log_loss", max_iter=2000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chances = cross_val_predict(head, rows, classes, cv=folds, method="predict_proba")
    issues = find_label_issues(classes, chances, n_jobs=1)
    return {key for key, is_issue in zip(keys, issues) if is_issue}


def label_rows(counts, folder, truth):
    source, swapped = folder / "data", truth["swapped"]
    wrong = "kind = 'label-error'"
    honest = audited(source, folder / "out")
    peer = cleanlab_labels(honest)
    counts.add(ROWS[0], "Camshaft", swapped, keys_found(honest, wrong))
    counts.add(ROWS[0], "cleanlab", swapped, peer)
    model = folder / "memorised"
    if not (model / "model.safetensors").exists():
        training = folder / "training"
        shutil.copytree(source, training, dirs_exist_ok=True)
        for key in truth["corrupt"]:
            (training / key).unlink()
        camshaft("train", training, "--out", model, "--head", "flatten", "--flip", "none", "--val-share", 0.01, "--epochs", 30)
    memorised = audited(source, folder / "out-memorised", "--model", model)
    counts.add(ROWS[1], "Camshaft", swapped, keys_found(memorised, wrong))
    counts.add(ROWS[1], "cleanlab", swapped, cleanlab_labels(memorised))
    renamed = folder / "renamed"
    if not renamed.exists():
        shutil.copytree(source, renamed)
        (renamed / "cat").rename(renamed / "a")
        (renamed / "dog").rename(renamed / "b")
    foreign = audited(renamed, folder / "out-foreign")
    names = {"cat": "a", "dog": "b"}
    of_foreign = [f"{names[key[:3]]}{key[3:]}" for key in swapped]
    counts.add(ROWS[2], "Camshaft", of_foreign, keys_found(foreign, wrong))
    counts.add(ROWS[2], "cleanlab", of_foreign, cleanlab_labels(foreign))


PROBLEMS = {"blurred": "blurred", "dark": "dark", "washed out": "washed-out", "grey": "grey", "letterboxed": "letterbox",
            "watermarked": "watermark"}


def our_pictures(counts, truth, out, program="Camshaft"):
    """What an audit found in pictures. Gives the duplicates that were planted."""
    for row, problem in PROBLEMS.items():
        counts.add(row, program, truth[row.replace(" ", "_")], keys_found(out, f"problem = '{problem}'"))
    counts.add("outliers", program, truth["outliers"], keys_found(out, "kind = 'outlier'"))
    truly = {tuple(sorted(pair[:2])) for pair in truth["duplicates"]}
    counts.add("duplicates", program, truly, pairs_of(joined(found(out, "kind = 'duplicate'"))))
    failed = {str(path.relative_to(out / "failures"))[:-5] for path in (out / "failures").rglob("*.json")}
    counts.add("corrupt", program, truth["corrupt"], failed)
    return truly


def without_corrupt(folder, truth):
    whole = folder / "whole"
    if not whole.exists():
        shutil.copytree(folder / "data", whole)
        for key in truth["corrupt"]:
            (whole / key).unlink()
    return whole


def cleanvision_pictures(counts, folder, truth, truly):
    from cleanvision import Imagelab
    whole = without_corrupt(folder, truth)
    lab = Imagelab(data_path=str(whole))
    lab.find_issues(verbose=False, n_jobs=1)
    issues = lab.issues
    issues.index = [os.path.relpath(path, whole) for path in issues.index]
    for row, column in [("blurred", "blurry"), ("dark", "dark"), ("grey", "grayscale"), ("washed out", "low_information")]:
        counts.add(row, "cleanvision", truth[row.replace(" ", "_")], issues.index[issues[f"is_{column}_issue"]])
    groups = [{os.path.relpath(path, whole) for path in group}
              for kind in ["exact_duplicates", "near_duplicates"] for group in lab.info[kind]["sets"]]
    counts.add("duplicates", "cleanvision", truly, pairs_of(groups))


def imagededup_pictures(counts, folder, truth, truly):
    counts.add("duplicates", "imagededup", truly, imagededup_pairs(without_corrupt(folder, truth)))


def fastdup_pictures(counts, folder, truth, truly):
    work = folder / "fastdup"
    shutil.rmtree(work, ignore_errors=True)
    fastdup = Fastdup(folder / "data", work)
    keys, run = fastdup.keys, fastdup.run
    counts.add("outliers", "fastdup", truth["outliers"], keys(run.outliers()["filename_outlier"]))
    counts.add("duplicates", "fastdup", truly, fastdup.pairs())
    stats = run.img_stats()
    counts.add("blurred", "fastdup", truth["blurred"], keys(stats[stats["blur"] < 50]["filename"]))
    darkest = stats.nsmallest(len(truth["dark"]), "mean")
    counts.add("dark", "fastdup", truth["dark"], keys(darkest["filename"]))
    least = stats.drop(darkest.index).nsmallest(len(truth["washed_out"]), "stdv")
    counts.add("washed out", "fastdup", truth["washed_out"], keys(least["filename"]))
    counts.add("corrupt", "fastdup", truth["corrupt"], keys(run.invalid_instances()["filename"]))


def planted(seed):
    """The folder of a seed's images, and what was planted there."""
    folder = WORK / str(seed)
    if not (folder / "truth.json").exists():
        subprocess.run([sys.executable, HERE / "plant.py", "--seed", str(seed), "--out", folder], check=True)
    return folder, json.loads((folder / "truth.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--only", nargs="+", choices=["labels", "pictures"], default=["labels", "pictures"])
    options = parser.parse_args()
    counts = Counts()
    for seed in options.seeds:
        folder, truth = planted(seed)
        print(f"seed {seed} …", file=sys.stderr, flush=True)
        if "labels" in options.only:
            label_rows(counts, folder, truth)
        if "pictures" in options.only:
            truly = our_pictures(counts, truth, audited(folder / "data", folder / "out"))
            for look in [cleanvision_pictures, imagededup_pictures, fastdup_pictures]:
                with quiet():
                    look(counts, folder, truth, truly)
    counts.print(["Camshaft", "cleanvision", "cleanlab", "imagededup", "fastdup"])


if __name__ == "__main__":
    peers.run_with("findings-peers", PACKAGES)
    main()
