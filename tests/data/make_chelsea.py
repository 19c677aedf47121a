"""Makes tests/data/chelsea from the photographs inside the scikit-image wheel.

    pip install scikit-image pillow
    python tests/data/make_chelsea.py

Sources and licences: README.md beside this file. Nothing is downloaded.
"""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageFilter, ImageOps

SOURCES = Path(skimage.__file__).parent / "data"
CHELSEA = Path(__file__).parent / "chelsea"
# Chelsea's head within chelsea.png: left, top, right, bottom.
HEAD = (60, 0, 410, 300)


def placed(cat, side):
    """The cat small in a corner of a canvas of its own blurred background."""
    backdrop = cat.crop((385, 120, 451, 190)).resize((640, 420), Image.BICUBIC)
    canvas = backdrop.filter(ImageFilter.GaussianBlur(12))
    small = cat.crop(HEAD).resize((245, 210), Image.LANCZOS)
    # Feathered, so that no frame draws the network's eye.
    mask = Image.new("L", small.size, 0)
    mask.paste(255, (14, 14, small.width - 14, small.height - 14))
    mask = mask.filter(ImageFilter.GaussianBlur(8))
    left = 20 if side == "left" else canvas.width - small.width - 20
    top = 20 if side == "left" else canvas.height - small.height - 20
    canvas.paste(small, (left, top), mask)
    return canvas


def main():
    cat = Image.open(SOURCES / "chelsea.png").convert("RGB")
    coffee = Image.open(SOURCES / "coffee.png").convert("RGB")
    rocket = Image.open(SOURCES / "rocket.jpg").convert("RGB")
    pictures = {
        "cat/chelsea": cat,
        "cat/chelsea-mirrored": ImageOps.mirror(cat),
        "cat/chelsea-head": cat.crop(HEAD),
        "cat/chelsea-grey": cat.convert("L"),
        "cat/chelsea-dim": Image.fromarray((np.asarray(cat) * 0.35).astype(np.uint8)),
        "cat/chelsea-top-left": placed(cat, "left"),
        "cat/chelsea-bottom-right": placed(cat, "right"),
        "other/coffee": coffee,
        "other/rocket": rocket,
    }
    for name, picture in pictures.items():
        path = CHELSEA / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=88, optimize=True)


main()
