"""Writes thousands of small JPEGs of every layout, and what Pillow decodes them to.

    python tests/pictures/make_jpegs.py FOLDER      # needs Pillow, cjpeg and jpegtran

FOLDER gets the files, `expected.bin` with Pillow's RGB pixels one picture after the other, and
`expected.json`: a list of {name, width, height, offset}; the offset is null if Pillow refuses the
file. Every sampling factor from 1 to 4 of each component, interleaved and not, with restarts
and progressive, in every colour space, at sizes from 1 to 33. The pictures are random.
"""

import io
import itertools
import json
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

FOLDER = Path(sys.argv[1])
RANDOM = random.Random(15)
FACTORS = [(wide, high) for wide in range(1, 5) for high in range(1, 5)]
SCRIPTS = {
    "each": "0;\n1;\n2;\n",
    "backwards": "2;\n1;\n0;\n",
    "chroma-together": "0;\n1 2;\n",
    "chroma-first": "1 2;\n0;\n",
}
PROGRESSIONS = {
    "luma-first": "0 1 2: 0-0, 0, 1;\n0: 1-63, 0, 0;\n1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n0 1 2: 0-0, 1, 0;\n",
    "apart": "0: 0-0, 0, 0;\n2: 0-0, 0, 0;\n1: 0-0, 0, 0;\n2: 1-63, 0, 0;\n1: 1-63, 0, 0;\n0: 1-5, 0, 2;\n"
    "0: 6-63, 0, 2;\n0: 1-63, 2, 1;\n0: 1-63, 1, 0;\n",
}


def picture(width, height, bands=3):
    """Smooth colours with edges: noise alone would look the same after any mistake."""
    points = [[RANDOM.randrange(256) for _ in range(bands)] for _ in range(9)]
    small = Image.frombytes("RGB", (3, 3), bytes(sum(points, [])))
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(2):
        left, top = RANDOM.randrange(width), RANDOM.randrange(height)
        color = tuple(RANDOM.randrange(256) for _ in range(3))
        large.paste(color, (left, top, left + width // 3 + 1, top + height // 3 + 1))
    return large


def size():
    return RANDOM.randint(1, 33), RANDOM.randint(1, 33)


def ppm(image):
    file = io.BytesIO()
    image.save(file, "PPM")
    return file.getvalue()


def tasks():
    """Yields (name, picture, arguments of cjpeg)."""
    scripts = {}
    for name, text in {**SCRIPTS, **PROGRESSIONS}.items():
        scripts[name] = str(FOLDER / f"{name}.scans")
        Path(scripts[name]).write_text(text)

    def quality():
        return ["-quality", str(RANDOM.choice([40, 75, 90, 100]))]

    for turn, luma, chroma in itertools.product(range(3), FACTORS, FACTORS):
        factors = "%dx%d,%dx%d,%dx%d" % (luma + chroma + chroma)
        base = quality() + ["-sample", factors]
        yield f"whole-{factors}-{turn}", picture(*size()), base
        for script, path in scripts.items():
            yield f"{script}-{factors}-{turn}", picture(*size()), base + ["-scans", path]
        yield f"restart-{factors}-{turn}", picture(*size()), base + ["-restart", "%dB" % RANDOM.randint(1, 5)]
    for _ in range(800):
        factors = ",".join("%dx%d" % RANDOM.choice(FACTORS) for _ in range(3))
        how = RANDOM.choice([[], ["-scans", RANDOM.choice(list(scripts.values()))], ["-progressive"]])
        more = RANDOM.choice([[], ["-optimize"], ["-restart", "1"], ["-rgb"]])
        yield f"mixed-{factors}-{_}", picture(*size()), quality() + ["-sample", factors] + how + more
    for factors in FACTORS:
        text = "%dx%d" % factors
        for more in [[], ["-progressive"], ["-restart", "1B"]]:
            name = "-".join(["grey", text, *more]).replace("--", "-")
            yield name, picture(*size()), quality() + ["-grayscale", "-sample", text] + more
    for width in range(1, 34):
        for height in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33):
            sample = RANDOM.choice(["1x1", "2x1", "1x2", "2x2"])
            yield f"size-{width}-{height}", picture(width, height), ["-sample", sample]


def encode(task):
    name, source, arguments = task
    made = subprocess.run(["cjpeg", *arguments], input=ppm(source), capture_output=True)
    # cjpeg refuses units of more than ten blocks, and ratios that are no whole number.
    return (name, made.stdout) if made.returncode == 0 else None


def four_inks():
    for kind in ("plain", "progressive"):
        for _ in range(8):
            image = picture(*size()).convert("CMYK")
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90, progressive=kind == "progressive")
            data = bytearray(file.getvalue())
            yield f"cmyk-{kind}-{_}", bytes(data)
            at = data.index(b"Adobe") + 11
            data[at] = 2
            yield f"ycck-{kind}-{_}", bytes(data)


class Flat:
    """A JPEG of flat blocks in any layout, also those that cjpeg refuses to write."""

    def __init__(self):
        self.bits = []

    def put(self, value, length):
        self.bits += [(value >> bit) & 1 for bit in reversed(range(length))]

    def block(self, difference):
        """A DC difference in 4 bits of size and its value, and an end of block: 0."""
        size = abs(difference).bit_length()
        self.put(size, 4)
        if size:
            self.put(difference if difference > 0 else difference + (1 << size) - 1, size)
        self.put(0, 1)

    def scan(self):
        bits = self.bits + [1] * (-len(self.bits) % 8)
        self.bits = []
        data = bytes(int("".join(map(str, bits[at : at + 8])), 2) for at in range(0, len(bits), 8))
        return data.replace(b"\xff", b"\xff\0")


def flat(width, height, factors, interleaved):
    def segment(marker, body):
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    count = len(factors)
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([count])
    for index, (wide, high) in enumerate(factors):
        frame += bytes([index + 1, wide << 4 | high, 0])
    file = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x08" * 64) + segment(0xC0, frame)
    # Eleven codes of four bits for DC sizes 0 to 10; one code of one bit for AC: end of block.
    file += segment(0xC4, b"\0" + bytes([0, 0, 0, 11] + [0] * 12) + bytes(range(11)))
    file += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    most = (max(wide for wide, _ in factors), max(high for _, high in factors))
    coder, last = Flat(), [0] * count

    def block(index):
        level = RANDOM.randrange(-100, 100)
        coder.block(level - last[index])
        last[index] = level

    def head(indices):
        body = bytes([len(indices)]) + b"".join(bytes([index + 1, 0]) for index in indices)
        return segment(0xDA, body + b"\0\x3f\0")

    if interleaved:
        units = -(-width // (8 * most[0])) * -(-height // (8 * most[1]))
        for _ in range(units):
            for index, (wide, high) in enumerate(factors):
                for _ in range(wide * high):
                    block(index)
        file += head(range(count)) + coder.scan()
    else:
        for index, (wide, high) in enumerate(factors):
            across = -(-(-(-width * wide // most[0])) // 8)
            down = -(-(-(-height * high // most[1])) // 8)
            for _ in range(across * down):
                block(index)
            file += head([index]) + coder.scan()
    return file + b"\xff\xd9"


def flats():
    for _ in range(600):
        factors = [RANDOM.choice(FACTORS) for _ in range(RANDOM.choice([1, 3, 3, 3, 4]))]
        blocks = sum(wide * high for wide, high in factors)
        interleaved = blocks <= 10 and RANDOM.random() < 0.5
        name = "flat-" + "-".join("%dx%d" % factor for factor in factors) + f"-{_}"
        yield name, flat(*size(), factors, interleaved)


def main():
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(4) as pool:
        made = [result for result in pool.map(encode, list(tasks())) if result]
    made += list(four_inks()) + list(flats())
    expected, pixels = [], io.BytesIO()
    for name, data in made:
        (FOLDER / f"{name}.jpg").write_bytes(data)
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            entry = {"width": image.width, "height": image.height, "offset": pixels.tell()}
            pixels.write(image.tobytes())
        except Exception:  # Pillow has many kinds of refusal.
            entry = {"width": 0, "height": 0, "offset": None}
        expected.append({"name": name, **entry})
    (FOLDER / "expected.bin").write_bytes(pixels.getvalue())
    (FOLDER / "expected.json").write_text(json.dumps(expected))


main()
