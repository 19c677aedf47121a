#!/usr/bin/env python3
"""Plants known faults in photographs of cats and dogs: 628 images with the faults of ten kinds.

    tests/benches/findings/plant.py --seed 1 --out FOLDER [--photos ../shared/data/pets]

Writes the images to FOLDER/data/CLASS/NUMBER.jpg and the truth to FOLDER/truth.json: by fault, the
keys of its images (`duplicates`: pairs of a copy and its original). No image has two faults, and
names tell nothing. The same seed gives the same files. Needs numpy and Pillow.
"""
import argparse
import io
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parents[3]
PHOTOS = ROOT.parent / "shared" / "data" / "pets"
# Photographs in all, half of them cats.
IMAGES = 600
# Images of each fault that changes a photograph or its label.
CHANGED = {"swapped": 20, "blurred": 10, "dark": 10, "washed_out": 5, "grey": 10, "watermarked": 5, "letterboxed": 10}
CORRUPT = 5
# What is done to the copies.
COPIES = ["same", "same", "encoded", "encoded", "smaller", "smaller", "brighter", "brighter", "mirrored",
          "mirrored", "turned", "cropped", "cropped", "watermarked", "grey"]
WATERMARKS = ["SAMPLE", "© stock photo", "PREVIEW ONLY", "do not copy", "pets.example.com"]


def encoded(picture, quality=90):
    data = io.BytesIO()
    picture.convert("RGB").save(data, "JPEG", quality=quality)
    return data.getvalue()


def font(size):
    return ImageFont.load_default(size)


def watermark(picture, chance):
    """Lays half-transparent text over the picture: once across, or in a pattern."""
    width, height = picture.size
    text, opacity = chance.choice(WATERMARKS), chance.randrange(110, 190)
    layer = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    if chance.random() < 0.5:
        letters = font(max(14, int(1.5 * width / len(text))))
        box = draw.textbbox((0, 0), text, font=letters)
        at = ((width - box[2]) / 2, chance.uniform(0.3, 0.7) * height)
        draw.text(at, text, fill=(255, 255, 255, opacity), font=letters)
    else:
        letters = font(max(12, width // 14))
        for row, top in enumerate(range(-10, height, max(24, height // 6))):
            for left in range(-(row % 2) * width // 4, width, width // 2):
                draw.text((left, top), text, fill=(255, 255, 255, opacity), font=letters)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def letterbox(picture, chance):
    """Puts bars on two opposite sides, black or, seldom, white."""
    width, height = picture.size
    share = chance.uniform(0.08, 0.2)
    colour = (255, 255, 255) if chance.random() < 0.2 else (0, 0, 0)
    framed = Image.new("RGB", picture.size, colour)
    if chance.random() < 0.7:
        bar = int(share * height)
        framed.paste(picture.resize((width, height - 2 * bar)), (0, bar))
    else:
        bar = int(share * width)
        framed.paste(picture.resize((width - 2 * bar, height)), (bar, 0))
    return framed


def change(picture, fault, chance):
    if fault == "blurred":
        return picture.filter(ImageFilter.GaussianBlur(chance.uniform(2.5, 5)))
    if fault == "dark":
        darkness = chance.uniform(0.08, 0.16)
        return picture.point(lambda value: value * darkness)
    if fault == "washed_out":
        contrast, light = chance.uniform(0.12, 0.25), chance.uniform(0.5, 0.7)
        return picture.point(lambda value: 255 * light + (value - 128) * contrast)
    if fault == "grey":
        return picture.convert("L").convert("RGB")
    if fault == "watermarked":
        return watermark(picture, chance)
    return letterbox(picture, chance)


def copy_of(data, how, chance):
    """The file of a copy. `data` is the original's."""
    if how == "same":
        return data
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    if how == "encoded":
        return encoded(picture, chance.randrange(40, 61))
    if how == "smaller":
        share = chance.uniform(0.5, 0.75)
        return encoded(picture.resize((int(width * share), int(height * share))), 85)
    if how == "brighter":
        return encoded(ImageEnhance.Brightness(picture).enhance(chance.choice([0.7, 1.3])), 90)
    if how == "mirrored":
        return encoded(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90)
    if how == "turned":
        return encoded(picture.transpose(chance.choice([Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])), 90)
    if how == "cropped":
        left, top, right, bottom = (chance.uniform(0.01, 0.05) for _ in range(4))
        box = (int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height))
        return encoded(picture.crop(box), 90)
    if how == "watermarked":
        return encoded(watermark(picture, chance), 90)
    return encoded(picture.convert("L"), 90)


def screenshot(chance, side):
    """A window with a title, lines of text, a list and buttons."""
    dark = chance.random() < 0.3
    paper, ink = ((30, 31, 36), (220, 220, 220)) if dark else ((250, 250, 250), (40, 40, 40))
    picture = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, side, side // 12), fill=tuple(chance.randrange(30, 200) for _ in range(3)))
    draw.text((8, 2), chance.choice(["Inbox", "Settings", "report.xlsx", "Terminal"]), fill=(255, 255, 255), font=font(side // 18))
    words = ["total", "error", "open", "2024", "file", "save", "user", "name", "14.2", "yes", "none", "path", "run"]
    for line in range(chance.randrange(8, 14)):
        text = " ".join(chance.choice(words) for _ in range(chance.randrange(2, 8)))
        draw.text((side // 20 + 10 * (line % 3), side // 8 + line * side // 16), text, fill=ink, font=font(side // 22))
    draw.rectangle((side * 0.7, side * 0.88, side * 0.95, side * 0.96), fill=(60, 120, 220))
    return picture


def chart(chance, side):
    """Bars or a line on white."""
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    draw.line((30, 10, 30, side - 25, side - 10, side - 25), fill="black", width=2)
    heights = [chance.uniform(0.1, 0.8) * side for _ in range(8)]
    if chance.random() < 0.5:
        for index, height in enumerate(heights):
            left = 40 + index * (side - 60) / 8
            draw.rectangle((left, side - 25 - height, left + (side - 60) / 11, side - 25), fill=(50, 100, 180))
    else:
        points = [(40 + index * (side - 60) / 7, side - 25 - height) for index, height in enumerate(heights)]
        draw.line(points, fill=(200, 40, 40), width=3)
    draw.text((side // 3, 4), chance.choice(["sales", "loss", "latency"]), fill="black", font=font(side // 16))
    return picture


def pattern(chance, side, kind):
    """A gradient, rings, a chessboard or noise: kind 0 to 3."""
    y, x = np.mgrid[0:side, 0:side] / side
    if kind == 0:
        value = np.stack([x, y, 1 - x], axis=-1)
    elif kind == 1:
        rings = 0.5 + 0.5 * np.sin(chance.uniform(20, 50) * np.hypot(x - 0.5, y - 0.5))
        value = np.stack([rings, 1 - rings, rings * 0.5], axis=-1)
    elif kind == 2:
        count = chance.randrange(4, 12)
        board = ((x * count).astype(int) + (y * count).astype(int)) % 2
        value = np.repeat(board[..., None], 3, axis=2)
    else:
        value = np.random.default_rng(chance.randrange(1 << 30)).random((side, side, 3))
    return Image.fromarray((value * 255).astype(np.uint8))


def plant(photos, out, seed):
    chance = random.Random(seed)
    by_class = {}
    for kind in ["cat", "dog"]:
        files = sorted(photos.glob(f"*/{kind}/*.jpg"))
        by_class[kind] = [(kind, file) for file in chance.sample(files, IMAGES // 2)]
    chosen = [image for pair in zip(*by_class.values()) for image in pair]
    chance.shuffle(chosen)
    data = out / "data"
    shutil.rmtree(data, ignore_errors=True)
    for kind in by_class:
        (data / kind).mkdir(parents=True)
    numbers = list(range(IMAGES + len(COPIES) + 8 + CORRUPT))
    chance.shuffle(numbers)

    def write(kind, content):
        key = f"{kind}/{numbers.pop():04}.jpg"
        (data / key).write_bytes(content)
        return key

    truth, left = {"duplicates": []}, iter(chosen)
    for fault, count in CHANGED.items():
        truth[fault] = []
        for kind, file in (next(left) for _ in range(count)):
            if fault == "swapped":
                key = write("dog" if kind == "cat" else "cat", file.read_bytes())
            else:
                picture = change(Image.open(file).convert("RGB"), fault, chance)
                key = write(kind, encoded(picture, 90))
            truth[fault].append(key)
    for how in COPIES:
        kind, file = next(left)
        original = write(kind, file.read_bytes())
        truth["duplicates"].append([write(kind, copy_of(file.read_bytes(), how, chance)), original, how])
    for kind, file in left:
        write(kind, file.read_bytes())
    odd = [screenshot(chance, 200) for _ in range(3)] + [chart(chance, 200) for _ in range(2)]
    odd += [pattern(chance, 200, kind) for kind in chance.sample(range(4), 3)]
    truth["outliers"] = [write(chance.choice(["cat", "dog"]), encoded(picture, 90)) for picture in odd]
    truth["corrupt"] = []
    for index in range(CORRUPT):
        kind, file = chance.choice(chosen)
        content = file.read_bytes()
        broken = [content[: len(content) // 3], b"", b"<html>404 Not Found</html>",
                  content[:200] + bytes(len(content) - 200), bytes(4000)][index % 5]
        truth["corrupt"].append(write(kind, broken))
    assert len(list(data.glob("*/*"))) == 628 and math.isclose(len(numbers), 0)
    for keys in truth.values():
        keys.sort()
    (out / "truth.json").write_text(json.dumps({"seed": seed, **truth}, indent=1))
    return truth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    options = parser.parse_args()
    truth = plant(options.photos, options.out, options.seed)
    print(", ".join(f"{len(keys)} {fault}" for fault, keys in truth.items()))


if __name__ == "__main__":
    main()
