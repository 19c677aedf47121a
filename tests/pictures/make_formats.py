"""Writes pictures of every format, mode and compression that Pillow writes, and what it reads.

    python tests/pictures/make_formats.py FOLDER      # needs Pillow

FOLDER gets the files and what Pillow decodes them to, as make_jpegs.py says: twice, in
`expected.*` with transparency over white, and in `ignored.*` as `convert("RGB")` gives it.
"""

import io
import json
import struct
import sys
import warnings
from pathlib import Path

from PIL import Image

FOLDER = Path(sys.argv[1])
WIDTH, HEIGHT = 37, 23


def colors(bands):
    pixel = [
        lambda x, y: x * 255 // (WIDTH - 1),
        lambda x, y: y * 255 // (HEIGHT - 1),
        lambda x, y: (x * 7 + y * 11) % 256,
        lambda x, y: (x + y) * 255 // (WIDTH + HEIGHT - 2),
    ]
    return bytes(pixel[band](x, y) for y in range(HEIGHT) for x in range(WIDTH) for band in bands)


def pictures():
    """The modes of Pillow that files have."""
    rgb = Image.frombytes("RGB", (WIDTH, HEIGHT), colors([0, 1, 2]))
    rgba = Image.frombytes("RGBA", (WIDTH, HEIGHT), colors([0, 1, 2, 3]))
    yield "1", rgb.convert("1")
    yield "L", rgb.convert("L")
    yield "LA", rgba.convert("LA")
    yield "P", rgb.quantize(16, dither=Image.Dither.NONE)
    yield "RGB", rgb
    yield "RGBA", rgba
    yield "RGBX", Image.frombytes("RGBX", (WIDTH, HEIGHT), colors([0, 1, 2, 3]))
    yield "CMYK", rgb.convert("CMYK")
    yield "YCbCr", rgb.convert("YCbCr")
    yield "LAB", rgb.convert("LAB")
    yield "I", rgb.convert("I")
    yield "F", rgb.convert("F")


TIFF = [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4", "tiff_ccitt", "jpeg", "zstd", "lzma", "webp"]


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bitmap(depth, masks, header_bytes, alpha):
    """A bitmap of 16 or 32 bits a pixel, with masks or without."""
    row = WIDTH * depth // 8
    row += -row % 4
    pixels = b""
    for y in reversed(range(HEIGHT)):
        line = b""
        for x in range(WIDTH):
            red, green, blue = x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), (x * 7 + y * 11) % 256
            if depth == 32:
                line += bytes([blue, green, red, alpha(x, y)])
            else:
                high = 0x8000 if alpha(x, y) else 0
                line += struct.pack("<H", high | red >> 3 << 10 | green >> 3 << 5 | blue >> 3)
        pixels += line.ljust(row, b"\0")
    compression = 3 if masks else 0
    header = struct.pack("<IiiHHIIiiII", header_bytes, WIDTH, HEIGHT, 1, depth, compression, len(pixels), 2835, 2835, 0, 0)
    if masks:
        header += struct.pack("<III", *masks[:3])
        if header_bytes > 52:
            header += struct.pack("<I", masks[3])
    header = header.ljust(header_bytes, b"\0") if header_bytes > 40 else header
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def bitmaps():
    alphas = {"empty": lambda x, y: 0, "full": lambda x, y: 255, "ramp": lambda x, y: x * 255 // (WIDTH - 1)}
    for name, alpha in alphas.items():
        yield f"bmp-32-{name}", bitmap(32, None, 40, alpha)
        yield f"bmp-32-masks-{name}", bitmap(32, (0xFF0000, 0xFF00, 0xFF), 40, alpha)
        yield f"bmp-32-v4-{name}", bitmap(32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 108, alpha)
        yield f"bmp-32-v5-{name}", bitmap(32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124, alpha)
        yield f"bmp-32-v5-opaque-{name}", bitmap(32, (0xFF0000, 0xFF00, 0xFF, 0), 124, alpha)
        yield f"bmp-16-{name}", bitmap(16, None, 40, alpha)



def extra(image, meaning):
    """A TIFF whose fourth sample has another meaning: tag 338."""
    data = bytearray(saved(image, "TIFF"))
    at = data.index(struct.pack("<HHI", 338, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", meaning)
    return bytes(data)


def files():
    for mode, image in pictures():
        for compression in TIFF:
            try:
                yield f"tiff-{mode}-{compression}", saved(image, "TIFF", compression=compression)
            except Exception:  # Not every mode goes with every compression.
                pass
        for kind in ("PNG", "BMP", "GIF", "PPM", "WEBP", "TGA", "JPEG2000", "ICO", "PCX", "SGI"):
            # Pillow clips samples of 16 bits.
            if (kind, mode) in [("PPM", "I"), ("PNG", "I")]:
                continue
            try:
                yield f"{kind.lower()}-{mode}", saved(image, kind)
            except Exception:
                pass
    yield from bitmaps()
    rgba = dict(pictures())["RGBA"]
    for meaning in (0, 1, 2):
        yield f"tiff-extra-{meaning}", extra(rgba, meaning)
    grey = dict(pictures())["L"].tobytes()
    yield "pgm-text", b"P2\n# a comment\n%d %d\n255\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % level for level in grey)
    yield "ppm-text", b"P3 %d %d 255\n" % (WIDTH, HEIGHT) + b"\n".join(b"%d %d %d" % (level, level, 255 - level) for level in grey)
    yield "pgm-15", b"P5 %d %d 15\n" % (WIDTH, HEIGHT) + bytes(level // 17 for level in grey)
    yield "pbm-text", b"P1 %d %d\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % (level & 1) for level in grey)


def over_white(image):
    # An alpha of zero everywhere is no alpha, in a bitmap.
    if image.format == "BMP" and image.mode == "RGBA" and image.getextrema()[3] == (0, 0):
        return image.convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def main():
    warnings.simplefilter("ignore")
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = list(files())
    for name, data in made:
        (FOLDER / name).write_bytes(data)
    for list_name, convert in (("expected", over_white), ("ignored", lambda image: image.convert("RGB"))):
        expected, pixels = [], io.BytesIO()
        for name, data in made:
            try:
                image = convert(Image.open(io.BytesIO(data)))
                entry = {"width": image.width, "height": image.height, "offset": pixels.tell()}
                pixels.write(image.tobytes())
            except Exception:
                entry = {"width": 0, "height": 0, "offset": None}
            expected.append({"name": name, **entry})
        (FOLDER / f"{list_name}.bin").write_bytes(pixels.getvalue())
        (FOLDER / f"{list_name}.json").write_text(json.dumps(expected))


main()
