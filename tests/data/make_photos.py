"""Makes tests/data/photos: cats and dogs with planted faults, for a first report.

    python3 -m venv target/photos && target/photos/bin/pip install numpy pillow scikit-image==0.26.0
    target/photos/bin/python tests/data/make_photos.py

Needs Debian's or Ubuntu's apt-get and dpkg: four of the sources are inside Debian packages. The
packages are unpacked below target/photos, nothing is installed. Sources and licences: README.md
beside this file.
"""

import struct
import subprocess
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

DATA = Path(__file__).resolve().parent
PHOTOS = DATA / "photos"
UNPACKED = DATA.parents[1] / "target/photos/unpacked"
TEXTURES = Path(skimage.__file__).parent / "data"
DRAWINGS = UNPACKED / "usr/share/openclipart/png/animals/mammals"
PACKAGES = ["darknet", "gcompris-qt-data", "gnome-taquin", "openclipart-png"]
# The longer side of a picture, in pixels, and the quality of its JPEG.
SIDE = 300
QUALITY = 78


def unpack():
    """Downloads the Debian packages and unpacks them."""
    UNPACKED.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not list(UNPACKED.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=UNPACKED, check=True)
        [archive] = UNPACKED.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, UNPACKED], check=True)


def from_resource(file, wanted):
    """The file whose name ends with `wanted` inside a Qt resource file (`rcc --binary`)."""
    data = file.read_bytes()
    version, tree, payloads, names = struct.unpack(">IIII", data[4:20])
    entry_bytes = 14 if version == 1 else 22

    def find(number, path):
        start = tree + number * entry_bytes
        name_at, flags = struct.unpack(">IH", data[start : start + 6])
        if number > 0:
            length = struct.unpack(">H", data[names + name_at : names + name_at + 2])[0]
            name = data[names + name_at + 6 : names + name_at + 6 + 2 * length]
            path = f"{path}/{name.decode('utf-16-be')}"
        if flags & 2:  # a folder
            count, first = struct.unpack(">II", data[start + 6 : start + 14])
            found = (find(first + child, path) for child in range(count))
            return next((bytes_ for bytes_ in found if bytes_ is not None), None)
        if not path.endswith(wanted):
            return None
        at = payloads + struct.unpack(">I", data[start + 10 : start + 14])[0]
        length = struct.unpack(">I", data[at : at + 4])[0]
        payload = data[at + 4 : at + 4 + length]
        return zlib.decompress(payload[4:]) if flags & 1 else payload

    return find(0, "")


def sources():
    """The five photographs."""
    share = UNPACKED / "usr/share"
    animals = share / "gcompris-qt/rcc/explore_farm_animals.rcc"
    files = {
        "chelsea": TEXTURES / "chelsea.png",
        "tortoiseshell": share / "gnome-taquin/themes/cats/1-Tortoiseshell.jpg",
        "kitten": BytesIO(from_resource(animals, "/cat.webp")),
        "shepherd": BytesIO(from_resource(animals, "/dog.webp")),
        "porch": share / "darknet/data/dog.jpg",
    }
    return {name: Image.open(file).convert("RGB") for name, file in files.items()}


@dataclass
class View:
    """One view of a photograph: `box` is left, top, right and bottom, as shares of its size."""

    source: str
    box: tuple[float, float, float, float] = (0, 0, 1, 1)
    mirrored: bool = False
    degrees: float = 0
    brightness: float = 1
    warmth: float = 1

    def picture(self, photographs):
        photograph = photographs[self.source]
        if self.degrees:
            photograph = photograph.rotate(self.degrees, Image.Resampling.BICUBIC)
        width, height = photograph.size
        left, top, right, bottom = self.box
        picture = photograph.crop((left * width, top * height, right * width, bottom * height))
        if self.mirrored:
            picture = ImageOps.mirror(picture)
        scale = SIDE / max(picture.size)
        size = [round(side * scale) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture = ImageEnhance.Brightness(picture).enhance(self.brightness)
        red, green, blue = picture.split()
        red = red.point(lambda value: min(255, round(value * self.warmth)))
        blue = blue.point(lambda value: round(value / self.warmth))
        return Image.merge("RGB", (red, green, blue))


@dataclass
class Drawing:
    """A drawn animal on a background: a texture of scikit-image's in a colour."""

    source: str
    texture: str
    colour: tuple[int, int, int]
    mirrored: bool = False
    # The share of the drawing's width to keep, from the left: one ends with a stray line.
    kept_width: float = 1
    # The animal's longer side, and where its centre lies, as shares of the picture's.
    size: float = 0.8
    centre: tuple[float, float] = (0.5, 0.52)

    def picture(self, _):
        width, height = SIDE, SIDE * 4 // 5
        texture = Image.open(TEXTURES / f"{self.texture}.png").convert("L")
        texture = texture.crop((0, 0, width, height)).filter(ImageFilter.GaussianBlur(0.7))
        canvas = ImageOps.colorize(texture, (20, 20, 24), (255, 255, 250), self.colour)
        # Lighter at the top, as under a sky: a flat background would make these pictures outliers.
        light = np.linspace(1.15, 0.85, height)[:, None, None]
        canvas = Image.fromarray((np.asarray(canvas) * light).clip(0, 255).astype(np.uint8))

        animal = Image.open(DRAWINGS / f"{self.source}.png").convert("RGBA")
        animal = animal.crop((0, 0, round(animal.width * self.kept_width), animal.height))
        animal = animal.crop(animal.getchannel("A").getbbox())
        if self.mirrored:
            animal = ImageOps.mirror(animal)
        scale = min(self.size * width / animal.width, self.size * height * 1.2 / animal.height)
        animal = animal.resize([round(side * scale) for side in animal.size], Image.Resampling.LANCZOS)
        at = [round(c * side - a / 2) for c, side, a in zip(self.centre, canvas.size, animal.size)]
        shadow = Image.new("L", canvas.size)
        shadow.paste(animal.getchannel("A").point(lambda value: value // 2), (at[0] + 5, at[1] + 5))
        canvas.paste((15, 15, 15), mask=shadow.filter(ImageFilter.GaussianBlur(5)))
        canvas.paste(animal, tuple(at), animal)
        return canvas


GREEN, SAND, BLUE, BRICK, SLATE = (96, 128, 70), (190, 165, 125), (110, 140, 175), (150, 85, 65), (105, 110, 118)

GOOD = {
    "cat/chelsea": View("chelsea"),
    "cat/chelsea-head": View("chelsea", (0.2, 0.12, 0.82, 0.86), mirrored=True, degrees=7, warmth=0.94),
    "cat/chelsea-eyes": View("chelsea", (0.2, 0.1, 0.8, 0.55), degrees=-5, brightness=1.15),
    "cat/tortoiseshell": View("tortoiseshell"),
    "cat/tortoiseshell-face": View("tortoiseshell", (0.1, 0.05, 0.8, 0.75), mirrored=True, warmth=1.08),
    "cat/tortoiseshell-eyes": View("tortoiseshell", (0.15, 0.3, 0.72, 0.78), degrees=10, brightness=0.85),
    "cat/kitten": View("kitten"),
    "cat/kitten-head": View("kitten", (0.14, 0.1, 0.62, 0.66), mirrored=True, brightness=1.1),
    "cat/kitten-paws": View("kitten", (0.1, 0.12, 0.85, 0.76), degrees=-8, warmth=0.88),
    "cat/siamese": Drawing("housecats/gatto_cat_architetto_fra_04", "brick", SAND, True),
    "cat/siamese-lawn": Drawing("housecats/gatto_cat_architetto_fra_04", "grass", SAND, size=0.9),
    "cat/grey-cat": Drawing("housecats/gattina_cat_architetto_f_01", "brick", BRICK, True, kept_width=0.98),
    "cat/grey-cat-path": Drawing("housecats/gattina_cat_architetto_f_01", "gravel", GREEN, kept_width=0.98),
    "cat/longhair": Drawing("housecats/kitten_gerald_g._01", "brick", SLATE, True, size=0.75),
    "cat/longhair-lawn": Drawing("housecats/kitten_gerald_g._01", "grass", SAND, size=0.9),
    "cat/tuxedo": Drawing("housecats/gatto_cat_architetto_fra_03", "gravel", BLUE, True, size=0.75),
    "dog/shepherd": View("shepherd"),
    "dog/shepherd-head": View("shepherd", (0.62, 0, 1, 0.55)),
    "dog/shepherd-chest": View("shepherd", (0.45, 0, 1, 0.98), mirrored=True, warmth=1.1),
    "dog/porch": View("porch"),
    "dog/porch-near": View("porch", (0.1, 0.3, 0.55, 0.98), mirrored=True, brightness=1.1),
    "dog/porch-portrait": View("porch", (0.17, 0.36, 0.45, 0.72), degrees=4, warmth=1.08),
    "dog/beagle": Drawing("dogs/beagle_copper_ganson", "grass", GREEN),
    "dog/beagle-path": Drawing("dogs/beagle_copper_ganson", "gravel", SAND, True, size=0.65, centre=(0.6, 0.55)),
    "dog/labrador": Drawing("dogs/black_lab_ganson", "gravel", SAND),
    "dog/labrador-lawn": Drawing("dogs/black_lab_ganson", "grass", GREEN, True, size=0.7, centre=(0.35, 0.55)),
    "dog/puppy": Drawing("dogs/bulldog_puppy_ganson", "brick", BRICK),
    "dog/hound": Drawing("dog_06_drawn_with_strai_01", "grass", GREEN),
    "dog/hound-wall": Drawing("dog_06_drawn_with_strai_01", "brick", SLATE, True, size=0.7, centre=(0.55, 0.55)),
    "dog/terrier": Drawing("dog_03_drawn_with_strai_01", "gravel", GREEN),
    "dog/terrier-lawn": Drawing("dog_03_drawn_with_strai_01", "grass", GREEN, True, size=0.65, centre=(0.4, 0.55)),
    "dog/great-dane": Drawing("dog_05_drawn_with_strai_01", "grass", GREEN),
    "dog/dachshund": Drawing("dog_04_drawn_with_strai_01", "grass", GREEN),
    "dog/sleepy": Drawing("dogs/bored_dog_01", "gravel", GREEN, True, size=0.7),
}

# Pictures of one class in the folder of the other.
SWAPPED = {
    "cat/swapped-shepherd": View("shepherd", (0.5, 0, 1, 0.75), warmth=0.92),
    "cat/swapped-beagle": Drawing("dogs/beagle_copper_ganson", "brick", GREEN, size=0.75, centre=(0.45, 0.5)),
    "dog/swapped-chelsea": View("chelsea", (0, 0, 0.75, 1), warmth=1.06),
}


def main():
    unpack()
    photographs = sources()

    def save(name, picture, quality=QUALITY):
        path = PHOTOS / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=quality, optimize=True)

    for name, view in {**GOOD, **SWAPPED}.items():
        save(name, view.picture(photographs))

    def saved(name):
        return PHOTOS / f"{name}.jpg"

    # One file twice in a folder, and one file in both folders.
    saved("cat/tortoiseshell-copy").write_bytes(saved("cat/tortoiseshell").read_bytes())
    saved("dog/conflict-kitten").write_bytes(saved("cat/kitten").read_bytes())
    # The same picture smaller and with more loss.
    again = Image.open(saved("dog/shepherd"))
    save("dog/shepherd-resaved", again.resize((240, 180), Image.Resampling.LANCZOS), 60)
    blurred = View("shepherd", (0.3, 0, 1, 0.8), mirrored=True).picture(photographs)
    save("dog/blurred-shepherd", blurred.filter(ImageFilter.GaussianBlur(5)))
    save("cat/dark-kitten", View("kitten", (0.1, 0.05, 0.75, 0.75), brightness=0.1).picture(photographs))
    # Copying stopped after a third of the file.
    whole = saved("dog/puppy").read_bytes()
    saved("dog/broken-puppy").write_bytes(whole[: len(whole) // 3])


main()
