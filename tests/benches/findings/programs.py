"""Camshaft and the programs beside it, as the comparisons of their findings run them."""
import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CAMSHAFT = ROOT / "target" / "release" / "camshaft"


def camshaft(*arguments):
    ended = subprocess.run([CAMSHAFT, *map(str, arguments)], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"camshaft {' '.join(map(str, arguments))}: {ended.stdout}{ended.stderr}")
    return ended.stdout


def audited(source, out, *options):
    """Audits, or goes on; and always builds the report anew."""
    camshaft("audit", source, "--out", out, "--overlay", "none", "--no-report", *options)
    camshaft("report", out, "--thumbnails", 0)
    return out


def found(out, condition):
    """Keys and other keys of the findings that meet an SQL condition."""
    import duckdb
    query = f"SELECT key, other FROM '{out}/report/findings.parquet' WHERE {condition}"
    return duckdb.sql(query).fetchall()


def pairs_of(groups):
    """All pairs of images that stand in one group, each in alphabetical order."""
    return {tuple(pair) for group in groups for pair in itertools.combinations(sorted(group), 2)}


def imagededup_pairs(folder):
    """The pairs that PHash finds at its default distance of 10."""
    from imagededup.methods import PHash
    method = PHash(verbose=False)
    codes = {str(path.relative_to(folder)): method.encode_image(path) for path in folder.rglob("*.jpg")}
    close = method.find_duplicates(encoding_map=codes)
    return {tuple(sorted((key, other))) for key, others in close.items() for other in others}


class Fastdup:
    """A run of fastdup on a folder of class folders."""

    def __init__(self, folder, work):
        import fastdup
        self.run = fastdup.create(work_dir=str(work), input_dir=str(folder))
        self.run.run(overwrite=True)

    @staticmethod
    def keys(paths):
        return ["/".join(Path(path).parts[-2:]) for path in paths]

    def pairs(self):
        """The pairs that are at least 0.9 alike, its default."""
        similar = self.run.similarity()
        sides = [self.keys(similar[f"filename_{side}"]) for side in ("from", "to")]
        return {tuple(sorted(pair)) for pair in zip(*sides)}
