"""Preprocessing parity: the same digit as an app would hand it over, in files of many kinds, must give the same logits.

Each picture is written here, and what its pixels must be is known without reading it back: a lossless file holds the test
image itself. Of a JPEG, Pillow's decoder says what it holds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ORIENTATION = 0x0112  # the EXIF tag


def write(images: Array, folder: Path) -> tuple[dict[str, Path], Array]:
    """(what the file is → the file, the pixels (N, 1, H, W) float32 that it stands for). `images` (n, 1, H, W) uint8, gray."""
    files: dict[str, Path] = {}
    pixels = []
    for number, (name, make) in enumerate(KINDS.items()):
        image = images[number % len(images), 0]
        suffix = ".jpg" if name.startswith("JPEG") else ".png"
        files[name] = folder / f"{number}{suffix}"
        pixels.append(make(image, files[name]))
    return files, np.stack(pixels)[:, None].astype(np.float32)


def _png(image: Array, path: Path) -> Array:
    from PIL import Image

    Image.fromarray(image).save(path)
    return image


def _png_mode(mode: str) -> Callable[[Array, Path], Array]:
    def make(image: Array, path: Path) -> Array:
        from PIL import Image

        Image.fromarray(image).convert(mode).save(path)
        return image

    return make


def _png_double(image: Array, path: Path) -> Array:
    """Each pixel four times: the mean of each block is the pixel."""
    return _png(image.repeat(2, 0).repeat(2, 1), path)[::2, ::2]


def _png_turned(image: Array, path: Path) -> Array:
    """As a camera held on its side stores it: turned by 90° against the clock, with the tag that says so."""
    from PIL import Image

    turned = Image.fromarray(np.rot90(image).copy())
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # show it turned by 90° clockwise
    turned.save(path, exif=exif)
    return image


def _jpeg(mode: str) -> Callable[[Array, Path], Array]:
    def make(image: Array, path: Path) -> Array:
        from PIL import Image

        Image.fromarray(image).convert(mode).save(path, quality=95, subsampling=0)
        with Image.open(path) as decoded:
            return np.asarray(decoded.convert("L"))

    return make


def _jpeg_turned(tag: int) -> Callable[[Array, Path], Array]:
    """As a phone stores it, however it is held: turned, with the tag that says how to show it."""
    turns = {3: 2, 6: 1, 8: 3}[tag]  # by 90° against the clock

    def make(image: Array, path: Path) -> Array:
        from PIL import Image

        exif = Image.Exif()
        exif[ORIENTATION] = tag
        Image.fromarray(np.rot90(image, turns).copy()).save(path, quality=95, exif=exif)
        with Image.open(path) as decoded:  # as it is stored
            return np.rot90(np.asarray(decoded), -turns)

    return make


KINDS: dict[str, Callable[[Array, Path], Array]] = {
    "PNG, gray": _png,
    "PNG, RGB": _png_mode("RGB"),
    "PNG, RGBA": _png_mode("RGBA"),
    "PNG, palette": _png_mode("P"),
    "PNG, twice the size": _png_double,
    "PNG, turned, with its orientation tag": _png_turned,
    "JPEG, gray": _jpeg("L"),
    "JPEG, RGB": _jpeg("RGB"),
    "JPEG, upside down, with its orientation tag (3)": _jpeg_turned(3),
    "JPEG, turned left, with its orientation tag (6)": _jpeg_turned(6),
    "JPEG, turned right, with its orientation tag (8)": _jpeg_turned(8),
}
