"""Writes the pictures of this folder, of kinds that the image crate cannot write, and expected.json.

    python tests/data/formats/make.py        # needs Pillow and numpy

Every picture is a synthetic gradient. `expected.json` holds, for each, its size, its mean colour
and some pixels as Pillow decodes them: EXIF orientation applied, transparency over white.
16-bit samples are rounded to 8 bits here, because Pillow clips or truncates them.
"""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
# Neither side is a multiple of 8 or 16, so that padded blocks are exercised.
WIDTH, HEIGHT = 37, 23


def gradient(width=WIDTH, height=HEIGHT):
    """Red grows to the right, green downwards, blue along the diagonal: [H, W, 3] in 0..1."""
    x = np.linspace(0, 1, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 1, height)[:, None].repeat(width, 1)
    return np.stack([x, y, 1 - (x + y) / 2], axis=2)


def bytes8(values):
    return np.round(values * 255).astype(np.uint8)


def ramp_alpha(width=WIDTH, height=HEIGHT):
    """Opaque at the left, transparent at the right: [H, W, 1]."""
    return gradient(width, height)[:, ::-1, :1]


def png(samples, color_type):
    """A 16-bit PNG of [H, W, C] samples in 0..65535, which Pillow can't write."""

    def chunk(kind, body):
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def ycck():
    """An Adobe YCCK JPEG: YCC and K planes saved as CMYK, the colour transform then set to 2."""
    ycc = np.asarray(Image.fromarray(bytes8(gradient())).convert("YCbCr"))
    key = bytes8(0.5 + gradient()[:, :, :1] / 2)
    # Pillow inverts what it writes as CMYK; Adobe stores K inverted too.
    planes = 255 - np.concatenate([ycc, key], axis=2)
    file = io.BytesIO()
    Image.frombytes("CMYK", (WIDTH, HEIGHT), planes.tobytes()).save(file, "JPEG", quality=95)
    data = bytearray(file.getvalue())
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def files():
    """Yields (name, bytes)."""
    rgb = Image.fromarray(bytes8(gradient()))
    grey = rgb.convert("L")
    rgba = Image.fromarray(bytes8(np.concatenate([gradient(), ramp_alpha()], axis=2)))
    palette = rgb.quantize(16, dither=Image.Dither.NONE)

    def saved(image, kind, **options):
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    yield "grey.jpg", saved(grey, "JPEG", quality=95)
    yield "ycbcr-444.jpg", saved(rgb, "JPEG", quality=95, subsampling=0)
    yield "ycbcr-422.jpg", saved(rgb, "JPEG", quality=95, subsampling=1)
    yield "ycbcr-420.jpg", saved(rgb, "JPEG", quality=95, subsampling=2)
    yield "restart.jpg", saved(rgb, "JPEG", quality=95, restart_marker_blocks=2)
    yield "progressive.jpg", saved(rgb, "JPEG", quality=95, progressive=True)
    yield "progressive-grey.jpg", saved(grey, "JPEG", quality=95, progressive=True)
    yield "rgb.jpg", saved(rgb, "JPEG", quality=95, keep_rgb=True)
    yield "cmyk.jpg", saved(rgb.convert("CMYK"), "JPEG", quality=95)
    yield "cmyk-progressive.jpg", saved(rgb.convert("CMYK"), "JPEG", quality=95, progressive=True)
    yield "ycck.jpg", ycck()

    exif = Image.Exif()
    small = Image.fromarray(bytes8(gradient(24, 16)))
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        name = f"orientation-{orientation}"
        yield f"{name}.jpg", saved(small, "JPEG", quality=95, subsampling=0, exif=exif)
    exif[0x0112] = 6
    yield "orientation-6.png", saved(small, "PNG", exif=exif)
    yield "orientation-6.webp", saved(small, "WEBP", lossless=True, exif=exif)
    yield "orientation-6.tif", saved(small, "TIFF", compression="tiff_deflate", tiffinfo={0x0112: 6})

    yield "grey.png", saved(grey, "PNG")
    yield "grey-alpha.png", saved(rgba.convert("LA"), "PNG")
    yield "bilevel.png", saved(grey.convert("1"), "PNG")
    yield "palette.png", saved(palette, "PNG")
    yield "palette-transparent.png", saved(palette, "PNG", transparency=3)
    yield "rgb.png", saved(rgb, "PNG")
    yield "rgb-transparent.png", saved(rgb, "PNG", transparency=rgb.getpixel((5, 5)))
    yield "rgba.png", saved(rgba, "PNG")
    # Smaller: noise-like low bytes don't compress.
    full = np.round(gradient(24, 16) * 65535)
    yield "grey-16.png", png(full[:, :, :1], 0)
    yield "rgb-16.png", png(full, 2)
    yield "rgba-16.png", png(np.concatenate([full, np.round(ramp_alpha(24, 16) * 65535)], axis=2), 6)

    flipped = ImageOps.flip(rgba)
    yield "lossy.webp", saved(rgb, "WEBP", quality=95)
    yield "lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True)
    yield "lossy-alpha.webp", saved(rgba, "WEBP", quality=95, exact=True)
    yield "animated.webp", saved(
        rgba, "WEBP", lossless=True, save_all=True, append_images=[flipped], background=(0, 0, 0, 0)
    )

    yield "still.gif", saved(palette, "GIF")
    yield "transparent.gif", saved(palette, "GIF", transparency=3)
    yield "animated.gif", saved(
        palette, "GIF", save_all=True, append_images=[ImageOps.flip(palette)], duration=100
    )

    yield "rgb.bmp", saved(rgb, "BMP")
    yield "palette.bmp", saved(palette, "BMP")
    yield "bilevel.bmp", saved(grey.convert("1"), "BMP")

    yield "lzw.tif", saved(rgb, "TIFF", compression="tiff_lzw")
    yield "deflate.tif", saved(rgb, "TIFF", compression="tiff_deflate")
    yield "uncompressed.tif", saved(rgb, "TIFF")
    yield "grey.tif", saved(grey, "TIFF", compression="tiff_lzw")
    yield "rgba.tif", saved(rgba, "TIFF", compression="tiff_deflate")
    yield "bilevel.tif", saved(grey.convert("1"), "TIFF", compression="tiff_deflate")
    grey16 = Image.fromarray(full[:, :, 0].astype(np.uint16))
    yield "grey-16.tif", saved(grey16, "TIFF", compression="tiff_deflate")
    # No expectation: these are refused.
    floats = Image.fromarray(gradient()[:, :, 0].astype(np.float32))
    yield "refused-float.tif", saved(floats, "TIFF", compression="tiff_deflate")
    yield "refused-palette.tif", saved(palette, "TIFF", compression="tiff_deflate")


def reference(name, data):
    """[H, W, 3] as the decoder should give it."""
    full = gradient(24, 16)
    if name == "grey-16.png" or name == "grey-16.tif":
        return bytes8(full[:, :, :1]).repeat(3, 2)
    if name == "rgb-16.png":
        return bytes8(full)
    if name == "rgba-16.png":
        alpha = ramp_alpha(24, 16)
        return bytes8(full * alpha + 1 - alpha)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def main():
    expected = {}
    for name, data in files():
        assert len(data) < 4096, (name, len(data))
        (HERE / name).write_bytes(data)
        if name.startswith("refused"):
            continue
        pixels = reference(name, data)
        height, width, _ = pixels.shape
        places = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)]
        places += [(width // 2, height // 2), (width // 4, height // 3)]
        expected[name] = {
            "width": width,
            "height": height,
            "mean": [round(float(mean), 2) for mean in pixels.mean((0, 1))],
            "pixels": [[x, y, *map(int, pixels[y, x])] for x, y in places],
        }
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items())
    (HERE / "expected.json").write_text("{\n" + lines + "\n}\n")


main()
