#!/usr/bin/env python3
"""Plants copies of ten kinds among photographs, and prints how many of each kind are found.

    cargo build --release && tests/benches/findings/duplicates.py --seeds 2 3 4 [--peers]

600 photographs of ../shared/data/pets and 20 copies of each kind, each of another photograph: 800
images a seed. `--peers` measures imagededup's PHash and fastdup on the same files beside it. A finding
is a pair of an image and the one that it is a copy of, in any order. Needs duckdb, numpy and Pillow,
and with --peers imagededup and fastdup.
"""
import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from plant import PHOTOS, WATERMARKS, encoded
from programs import Fastdup, audited, found, imagededup_pairs

IMAGES = 600
COPIES_OF_A_KIND = 20


def resized(picture, chance):
    share = chance.choice([0.5, 0.7, 1.5])
    return encoded(picture.resize((int(picture.width * share), int(picture.height * share)), Image.Resampling.LANCZOS))


def cropped(picture, chance):
    """Keeps 90 to 95 % of each side."""
    width, height = (int(side * chance.uniform(0.90, 0.95)) for side in picture.size)
    left, top = chance.randrange(picture.width - width + 1), chance.randrange(picture.height - height + 1)
    return encoded(picture.crop((left, top, left + width, top + height)))


def marked(picture, chance):
    """Half-transparent text, once: across the picture, or small in a corner."""
    text, (width, height) = chance.choice(WATERMARKS), picture.size
    layer = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    if chance.random() < 0.5:
        letters, at = ImageFont.load_default(max(14, int(1.5 * width / len(text)))), (4, chance.uniform(0.3, 0.7) * height)
    else:
        letters, at = ImageFont.load_default(max(10, width // 16)), (chance.choice([4, width // 2]), chance.choice([4, int(0.9 * height)]))
    draw.text(at, text, fill=(255, 255, 255, chance.randrange(110, 220)), font=letters)
    return encoded(Image.alpha_composite(picture.convert("RGBA"), layer))


def grey_or_blurred(picture, chance):
    if chance.random() < 0.5:
        return encoded(picture.convert("L"))
    return encoded(picture.filter(ImageFilter.GaussianBlur(chance.uniform(0.8, 1.5))))


def turned(picture, chance):
    turns = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
    return encoded(picture.transpose(chance.choice(turns)))


KINDS = {
    "exact": None,
    "re-encoded": lambda picture, chance: encoded(picture, chance.randrange(40, 61)),
    "resized": resized,
    "brightness": lambda picture, chance: encoded(ImageEnhance.Brightness(picture).enhance(chance.choice([0.7, 1.3]))),
    "contrast": lambda picture, chance: encoded(ImageEnhance.Contrast(picture).enhance(chance.choice([0.6, 1.5]))),
    "mirrored": lambda picture, chance: encoded(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "rotated": turned,
    "cropped": cropped,
    "text": marked,
    "grey or blurred": grey_or_blurred,
}


def plant(out, seed):
    """Writes the images below `out`, and returns the copies: by sorted pair of keys, the kind."""
    chance = random.Random(seed)
    shutil.rmtree(out, ignore_errors=True)
    chosen = []
    for label in ["cat", "dog"]:
        (out / label).mkdir(parents=True)
        files = sorted(PHOTOS.glob(f"*/{label}/*.jpg"))
        chosen += [(label, file) for file in chance.sample(files, IMAGES // 2)]
    chance.shuffle(chosen)
    numbers = list(range(IMAGES + COPIES_OF_A_KIND * len(KINDS)))
    chance.shuffle(numbers)

    def write(label, content):
        key = f"{label}/{numbers.pop():04}.jpg"
        (out / key).write_bytes(content)
        return key

    kinds, pairs = [kind for kind in KINDS for _ in range(COPIES_OF_A_KIND)], {}
    for index, (label, file) in enumerate(chosen):
        content = file.read_bytes()
        original = write(label, content)
        if index < len(kinds):
            make = KINDS[kinds[index]]
            copy = content if make is None else make(Image.open(file).convert("RGB"), chance)
            pairs[tuple(sorted([original, write(label, copy)]))] = kinds[index]
    return pairs


def of_camshaft(data, out):
    return {tuple(sorted(pair)) for pair in found(audited(data, out), "kind = 'duplicate'")}


def of_imagededup(data, _out):
    return imagededup_pairs(data)


def of_fastdup(data, out):
    return Fastdup(data, out).pairs()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "camshaft-duplicates")
    options = parser.parse_args()
    tools = {"camshaft": of_camshaft} | ({"imagededup": of_imagededup, "fastdup": of_fastdup} if options.peers else {})
    totals = {}
    for seed in options.seeds:
        data = options.folder / f"data-{seed}"
        pairs = plant(data, seed)
        for name, tool in tools.items():
            try:
                out = options.folder / f"{name}-{seed}"
                shutil.rmtree(out, ignore_errors=True)
                pairs_found = tool(data, out)
            except Exception as error:
                print(f"{name} does not run: {error}", file=sys.stderr)
                continue
            total = totals.setdefault(name, {"found": 0, "true": 0, "planted": 0, "kinds": {}})
            total["found"] += len(pairs_found)
            for pair, kind in pairs.items():
                counts = total["kinds"].setdefault(kind, [0, 0])
                counts[0], counts[1] = counts[0] + (pair in pairs_found), counts[1] + 1
            total["true"] += len(pairs_found & pairs.keys())
            total["planted"] += len(pairs)
            for pair in sorted(pairs_found - pairs.keys()):
                print(f"seed {seed}, {name}: not planted: {pair[0]} and {pair[1]}", file=sys.stderr)
    print("| copies | " + " | ".join(totals) + " |")
    print("|---|" + "---|" * len(totals))
    for kind in KINDS:
        print(f"| {kind} | " + " | ".join("{0} of {1}".format(*total["kinds"][kind]) for total in totals.values()) + " |")
    share = lambda part, whole: f"{part / max(whole, 1):.3f}"
    print("| **recall** | " + " | ".join(share(t["true"], t["planted"]) for t in totals.values()) + " |")
    print("| **precision** | " + " | ".join(share(t["true"], t["found"]) for t in totals.values()) + " |")


if __name__ == "__main__":
    main()
