#!/usr/bin/env python3
"""Runs builds of `camshaft` on files made to do harm, and prints what each file costs them.

    tests/benches/hostile.py [--only NAME] [--seconds 60] [--mebibytes 12288] PROGRAM [PROGRAM …]

Each PROGRAM, a path, audits each file together with eight good photographs. A checkpoint is given as
`--model`, which must end with an error; the good photographs are audited afterwards, with the bundled
model. The table has peak resident memory, wall time, the outcome, and how many of the good images were
predicted. Time and memory of a checkpoint are those of the run that must fail. Writable memory and time
of each run are limited, and a run that reaches a limit ends there.

Exit status 1: on a file the last PROGRAM took more than 1 GiB, reached a limit or was killed, accepted
the checkpoint, ended an audit of images with an error, or predicted less than eight good images. The
script needs Linux and Python, nothing else.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hostile_checkpoints import (
    key_twice, long_key, many_axes, nested_tuples, one_storage, overlapping_storages, stride_zero, transposed,
)

PHOTOS = Path(__file__).resolve().parents[1] / "data" / "photos"
GOOD = [
    "cat/chelsea.jpg", "cat/kitten.jpg", "cat/siamese.jpg", "cat/tuxedo.jpg",
    "dog/beagle.jpg", "dog/hound.jpg", "dog/porch.jpg", "dog/shepherd.jpg",
]
# The most resident memory that the last program may take on any file.
ALLOWED_MEBIBYTES = 1024
ERROR_CHARACTERS = 60


# JPEG: ITU-T T.81.


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(width: int, height: int, scan: bytes, components: int = 3, progressive: bool = False, exif=b"") -> bytes:
    """A picture of one colour. Its two Huffman tables have one code, a zero bit: "no difference to the block
    before" and "no more coefficients". So a block takes two bits, or one in a progressive picture's first scan.
    """
    ids = range(1, components + 1)
    frame = struct.pack(">BHHB", 8, height, width, components) + bytes(byte for id in ids for byte in (id, 0x11, 0))
    last_coefficient = 0 if progressive else 63
    selectors = bytes([components]) + bytes(byte for id in ids for byte in (id, 0))
    one_code = bytes([1]) + bytes(16)
    return (
        b"\xff\xd8" + exif
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC2 if progressive else 0xC0, frame)
        + segment(0xC4, b"\x00" + one_code + b"\x10" + one_code)
        + segment(0xDA, selectors + bytes([0, last_coefficient, 0]))
        + scan + b"\xff\xd9"
    )


def turned_jpeg() -> bytes:
    """90 megapixels in a megabyte, which EXIF says to turn by a quarter: the picture is held twice."""
    width, height, components = 9_000, 10_000, 3
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + orientation + bytes(4)
    blocks = width // 8 * (height // 8) * components
    return jpeg(width, height, bytes(blocks // 4 + 1), components, exif=segment(0xE1, exif))


def many_parts_jpeg() -> bytes:
    """A photograph whose extended XMP has 40,000 parts of one byte, 3.2 MB of segments. A decoder that puts them
    together takes a time that grows with the square of their number.
    """
    parts = 40_000
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    segments = (segment(0xE1, head + struct.pack(">II", parts, part) + b" ") for part in range(parts))
    photo = (PHOTOS / GOOD[0]).read_bytes()
    return photo[:2] + b"".join(segments) + photo[2:]


# TIFF 6.0. Tags: 256 width, 257 height, 258 bits, 259 compression, 262 photometric interpretation, 273 strips'
# offsets, 277 samples, 278 rows of a strip, 279 strips' bytes, 322 to 325 tiles' width, height, offsets and bytes.

TIFF_DATA_AT = 8


def tiff(data: bytes, fields: dict[int, int], lists: dict[int, list[int]]) -> bytes:
    """A grey picture with one page. `data` begins at TIFF_DATA_AT."""
    entries = {258: (1, 8), 262: (1, 1), 277: (1, 1)} | {tag: (1, value) for tag, value in fields.items()}
    body = data + bytes(-len(data) % 4)
    for tag, values in lists.items():
        entries[tag] = (len(values), TIFF_DATA_AT + len(body) if len(values) > 1 else values[0])
        body += struct.pack(f"<{len(values)}I", *values) if len(values) > 1 else b""
    directory = b"".join(struct.pack("<HHII", tag, 4, *entry) for tag, entry in sorted(entries.items()))
    header = b"II*\0" + struct.pack("<I", TIFF_DATA_AT + len(body))
    return header + body + struct.pack("<H", len(entries)) + directory + bytes(4)


def jpeg_tiff(compression: int, side: int, progressive: bool, strips: int = 1) -> bytes:
    """A picture of 8 pixels a row. Each of its strips is the same JPEG, whose frame is far larger."""
    inside = jpeg(side, side, bytes(8), 4 if progressive else 3, progressive)
    rows = 8 if strips == 1 else 1
    fields = {256: 8, 257: rows * strips, 259: compression, 278: rows}
    return tiff(inside, fields, {273: [TIFF_DATA_AT] * strips, 279: [len(inside)] * strips})


def wide_tiles_tiff() -> bytes:
    """A picture of one pixel a row. Each of its tiles is 2^20 pixels wide, and unpacks to 64 MiB."""
    width, height, tile_width, tile_height = 1, 65_535, 1 << 20, 64
    tile = zlib.compress(bytes(tile_width * tile_height), 9)
    tiles = -(-height // tile_height)
    fields = {256: width, 257: height, 259: 8, 322: tile_width, 323: tile_height}
    return tiff(tile, fields, {324: [TIFF_DATA_AT] * tiles, 325: [len(tile)] * tiles})


# WebP: RFC 9649.


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def bits(value: int, count: int) -> str:
    """The lowest bit first, as WebP has it."""
    return f"{value:0{count}b}"[::-1]


def lossless_picture() -> bytes:
    """16 by 16 pixels with 65,536 groups of five prefix codes. Each code has symbols of all lengths up to 15, so
    that its table has the most entries.
    """
    groups, side = 65_536, 16
    order = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    header = bits(0x2F, 8) + bits(side - 1, 14) * 2 + bits(0, 4)
    # No transform, no colour cache; blocks of 512 by 512 pixels, and the only one has the last group.
    last = groups - 1
    header += bits(0, 2) + bits(0b1111, 4) + bits(0, 1)
    header += "".join(bits(0b101, 3) + bits(symbol, 8) for symbol in (last & 0xFF, last >> 8, 0, 0, 0))
    # The lengths 0 to 15 take four bits each; 16 are written: 1, 2, 3 … 14, 15, 15.
    code = bits(0, 1) + bits(15, 4) + "".join(bits(4 if length < 16 else 0, 3) for length in order)
    code += bits(0b0011, 4) + bits(16 - 2, 4) + "".join(f"{length:04b}" for length in [*range(1, 16), 15])
    written = header + code * 5 * groups
    content = int(written[::-1], 2).to_bytes(-(-len(written) // 8), "little") + bytes(512)
    return chunk(b"VP8L", content)


def hidden_frame_webp() -> bytes:
    """A still picture with an animation's frame. The decoder looks for the still picture in the frame, too, and
    prefers its second chunk to the file's own picture. A check that looks at the first chunk sees no picture.
    """
    canvas = chunk(b"VP8X", struct.pack("<I", 0) + b"\x0f\0\0" * 2)
    frame = chunk(b"ANMF", bytes(16) + chunk(b"ABCD", b"") + lossless_picture())
    still = chunk(b"VP8 ", b"\x90\1\0\x9d\1\x2a" + struct.pack("<HH", 16, 16) + bytes(16))
    chunks = b"WEBP" + canvas + frame + still
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


# Windows bitmap.


def flat_bitmap() -> bytes:
    """95 megapixels in a kilobyte: run lengths that end at once leave all pixels at the first colour."""
    width, height, runs, colours = 9_750, 9_750, b"\0\1", b"\x80" * 1024
    data_at = 14 + 40 + len(colours)
    header = b"BM" + struct.pack("<IHHI", data_at + len(runs), 0, 0, data_at)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 0, 0) + colours + runs


CONFIG = {
    "architecture": "resnet18", "classes": ["cat", "dog"],
    "input": {
        "height": 224, "width": 224, "resize": "stretch", "interpolation": "bilinear-antialiased",
        "scale": "1/255", "mean": [0, 0, 0], "std": [1, 1, 1], "color": "rgb",
    },
}


@dataclass
class Case:
    """A file made to do harm: a checkpoint if its name ends with `.pth`, else an image."""

    name: str
    make: Callable[[], bytes]
    # How often the folder has the file.
    copies: int = 1
    report: bool = False

    @property
    def is_checkpoint(self) -> bool:
        return self.name.endswith(".pth")


CASES = [
    Case("jpeg-of-20000.tif", lambda: jpeg_tiff(7, 20_000, progressive=False)),
    # The decoder that older builds use inside a TIFF refuses longer sides.
    Case("jpeg-of-16384.tif", lambda: jpeg_tiff(7, 16_384, progressive=False)),
    Case("progressive-jpeg-of-16384.tif", lambda: jpeg_tiff(7, 16_384, progressive=True)),
    Case("old-jpeg-of-16384.tif", lambda: jpeg_tiff(6, 16_384, progressive=False)),
    Case("10000-jpegs-of-16384.tif", lambda: jpeg_tiff(7, 16_384, progressive=False, strips=10_000)),
    Case("tiles-wider-than-the-picture.tif", wide_tiles_tiff),
    Case("metadata-in-40000-parts.jpg", many_parts_jpeg),
    Case("turned-90-megapixels.jpg", turned_jpeg),
    Case("frame-in-a-still-picture.webp", hidden_frame_webp),
    Case("key-twice.pth", key_twice),
    Case("long-key-4000-times.pth", long_key),
    Case("views-of-one-storage.pth", one_storage),
    Case("overlapping-storages.pth", overlapping_storages),
    Case("many-axes.pth", many_axes),
    Case("transposed-views.pth", transposed),
    Case("stride-zero.pth", stride_zero),
    Case("nested-tuples.pth", nested_tuples),
    # These two differ only in the report, so that the second row shows what its thumbnails take.
    Case("flat-95-megapixels.bmp", flat_bitmap, copies=4),
    Case("flat-95-megapixels-and-report.bmp", flat_bitmap, copies=4, report=True),
]


@dataclass
class Ended:
    """How a run ended."""

    mebibytes: float
    seconds: float
    status: int
    # Which limit it reached, or what ended it; empty if it ended by itself.
    limit: str
    # What it printed as its error.
    error: str


@dataclass
class Measured:
    """A row's cells for one program."""

    ended: Ended
    outcome: str
    good: int
    is_right: bool

    def cells(self) -> str:
        return f"{self.ended.mebibytes:.0f} | {self.ended.seconds:.1f} | {self.outcome} | {self.good}"


class Program:
    """A build of `camshaft`."""

    def __init__(self, path: str, seconds: float, mebibytes: int):
        self.path, self.seconds, self.mebibytes = Path(path).resolve(), seconds, mebibytes
        # Settings of the caller would count as options.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CAMSHAFT_")}
        described = subprocess.run([self.path, "audit", "--help"], capture_output=True, text=True, env=self.environment)
        if described.returncode:
            sys.exit(f"{path} has no audit: {described.stderr}")
        self.options = set(re.findall(r"--[a-z-]+", described.stdout))

    def audit(self, images: Path, out: Path, report: bool = False, model: Path | None = None) -> Ended:
        command = [self.path, "audit", images, "--out", out]
        wanted = [("--include", "*"), ("--max-failure-rate", "1")]
        wanted += [] if report else [("--no-report",)]
        command += [part for option in wanted if option[0] in self.options for part in option]
        command += ["--model", model] if model else []
        shutil.rmtree(out, ignore_errors=True)
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            started = time.monotonic()
            child = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=errors, env=self.environment, preexec_fn=self.limit_memory)
            # `Popen.kill` would ask for the status, and take it from `wait4`.
            timer = threading.Timer(self.seconds, os.kill, (child.pid, signal.SIGKILL))
            timer.daemon = True
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            seconds = time.monotonic() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            printed = errors.read()
        limit = self.limit_reached(child.returncode, seconds, printed)
        return Ended(usage.ru_maxrss / 1024, seconds, child.returncode, limit, error_in(printed))

    def limit_memory(self):
        limit = self.mebibytes << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    def limit_reached(self, status: int, seconds: float, printed: str) -> str:
        if status == -signal.SIGKILL and seconds >= self.seconds:
            return f"> {self.seconds:g} s"
        if status and re.search("memory allocation of .* failed|out of memory", printed):
            return f"> {self.mebibytes / 1024:.3g} GiB"
        return f"killed by {signal.Signals(-status).name}" if status < 0 else ""


def error_in(printed: str) -> str:
    """The program's error, or else the message of a panic."""
    found = re.search("^camshaft: (.*)", printed, re.MULTILINE) or re.search("panicked at .*\n(.*)", printed)
    return found.group(1).replace("|", "/") if found else "no message"


def keys_of(folder: Path) -> dict[str, dict]:
    """The records below a folder of results, by their images' keys."""
    records = (json.loads(path.read_text()) for path in folder.rglob("*.json"))
    return {record["image"]["key"]: record for record in records}


def count_good(out: Path) -> int:
    return len(keys_of(out / "predictions").keys() & set(GOOD))


def outcome_of(out: Path, names: list[str], report: bool) -> str:
    """What became of the hostile images."""
    predictions, failures = keys_of(out / "predictions"), keys_of(out / "failures")
    classes = {
        failures[name]["error"]["class"] if name in failures else "predicted" if name in predictions else "no result"
        for name in names
    }
    outcome = ", ".join(sorted(classes))
    if not report:
        return outcome
    thumbnails = [path for path in (out / "report" / "thumbnails").rglob("*") if path.is_file()]
    has_report = (out / "report" / "index.html").exists()
    return outcome + (f", {len(thumbnails)} thumbnails" if has_report else ", no report")


def is_right(ended: Ended, good: int) -> bool:
    return not ended.limit and ended.mebibytes <= ALLOWED_MEBIBYTES and good == len(GOOD)


def measure_images(program: Program, images: Path, out: Path, names: list[str], report: bool) -> Measured:
    ended = program.audit(images, out, report)
    outcome, good = outcome_of(out, names, report) if names else "", count_good(out)
    outcome = ", ".join(part for part in (ended.limit, outcome, ended.error if ended.status > 0 else "") if part)
    return Measured(ended, outcome, good, is_right(ended, good) and ended.status == 0)


def measure_checkpoint(program: Program, images: Path, out: Path, model: Path) -> Measured:
    ended = program.audit(images, out, model=model)
    accepted = ended.status == 0
    # Errors begin with the model's name.
    reason = ended.error.split(": ", 1)[-1][:ERROR_CHARACTERS]
    outcome = ended.limit or ("no error" if accepted else reason)
    program.audit(images, out)
    good = count_good(out)
    return Measured(ended, outcome, good, is_right(ended, good) and not accepted)


def copy_good(folder: Path) -> Path:
    for name in GOOD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOS / name, folder / name)
    return folder


def measure(case: Case, programs: list[Program], folder: Path) -> tuple[int, list[Measured]]:
    """Makes the file; returns its bytes, and what it costs each program."""
    content = case.make()
    images, out, model = copy_good(folder / "images"), folder / "out", folder / "m"
    if case.is_checkpoint:
        model.mkdir()
        (model / "config.json").write_text(json.dumps(CONFIG))
        (model / "pytorch_model.bin").write_bytes(content)
        return len(content), [measure_checkpoint(program, images, out, model) for program in programs]
    names = [case.name] if case.copies == 1 else [f"{number}-{case.name}" for number in range(case.copies)]
    for name in names:
        (images / name).write_bytes(content)
    return len(content), [measure_images(program, images, out, names, case.report) for program in programs]


def print_row(name: str, size: str, measured: list[Measured]):
    cells = " | ".join(one.cells() for one in measured)
    print(f"| {name} | {size} | {cells} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    names = [case.name for case in CASES]
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, help="may be given several times")
    parser.add_argument("--seconds", type=float, default=60, help="of wall time for each run")
    parser.add_argument("--mebibytes", type=int, default=12_288, help="of writable memory for each run")
    options = parser.parse_args()
    programs = [Program(path, options.seconds, options.mebibytes) for path in options.programs]

    for number, program in enumerate(programs, 1):
        print(f"{number}. `{program.path}`")
    numbers = range(1, len(programs) + 1)
    head = " | ".join(f"{number}: MiB | s | outcome | good of {len(GOOD)}" for number in numbers)
    print(f"\n| file | bytes | {head} |\n|---|--:|{'--:|--:|---|--:|' * len(programs)}", flush=True)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="camshaft-hostile-") as work:
        images = copy_good(Path(work) / "good")
        measured = [measure_images(program, images, Path(work) / "out", [], False) for program in programs]
        print_row("only good images", "", measured)
        wrong += [] if measured[-1].is_right else ["only good images"]
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            folder = Path(work) / case.name
            size, measured = measure(case, programs, folder)
            shutil.rmtree(folder)
            print_row(case.name if case.copies == 1 else f"{case.copies} × {case.name}", f"{size:,}", measured)
            wrong += [] if measured[-1].is_right else [case.name]
    if wrong:
        sys.exit(f"{programs[-1].path} exceeds what a file may cost, or loses good images: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
