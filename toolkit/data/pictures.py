"""Picture files brought to the form of the training images: gray, light strokes on black, the model's size."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import DataError
from toolkit.files import read_bytes
from toolkit.limits import MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS, MAX_PICTURE_VISITS

MAX_PIXELS = MAX_PICTURE_PIXELS  # anything larger is refused before it is decoded
FORMATS = ("PNG", "JPEG")
START_OF_SCAN = b"\xff\xda"  # the marker of one pass; within what a pass holds, FF is followed by 00


@dataclass(frozen=True)
class Picture:
    """`pixels` (1, H, W) float32 0..255."""

    pixels: "np.ndarray[Any, Any]"
    inverted: bool


def read_picture(path: Path, shape: tuple[int, int, int], invert: bool | None = None) -> Picture:
    """A PNG or JPEG of any size and mode. `invert` None: detected from the border, where background is expected.

    The camera's orientation tag is followed, transparency is laid on white paper, and the picture is scaled to fit and
    centred, its proportions kept; of several pictures in a file, the first. Raises DataError for anything that is no readable picture:
    no regular file, another format, damaged, or beyond the limits of toolkit/limits.py.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    if shape[0] != 1:
        raise DataError(f"this model takes {shape[0]} channels; pictures are read as gray, with one")
    gray = _decoded(path, read_bytes(path, MAX_PICTURE_BYTES, raises=DataError, advice="Give a PNG or JPEG file"))
    pixels = np.asarray(gray, np.uint8)
    inverted = _is_dark_on_light(pixels) if invert is None else invert
    if inverted:
        gray = ImageOps.invert(gray)
    method = Resampling.BOX if max(gray.size) > max(shape[1:]) else Resampling.BILINEAR
    fitted = ImageOps.pad(gray, (shape[2], shape[1]), method=method, color=0)
    return Picture(np.asarray(fitted, np.float32)[None].copy(), inverted)


def _decoded(path: Path, data: bytes) -> Any:
    """The picture in mode L, 0..255, upright. Formats are listed: for others Pillow would start programs, Ghostscript for one."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            warnings.filterwarnings("error", "Corrupt EXIF")  # it may have said which side is up
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                pixels = opened.width * opened.height
                if pixels > MAX_PIXELS:
                    raise DataError(f"{path} has {opened.width}×{opened.height} pixels; at most {MAX_PIXELS:,} are read. Scale it down")
                if (scans := data.count(START_OF_SCAN)) * pixels > MAX_PICTURE_VISITS and opened.format == "JPEG":
                    raise DataError(f"{path} is a JPEG of {scans} passes over {pixels} pixels, made to take long. Save it anew")
                return _gray(ImageOps.exif_transpose(opened))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has more pixels than are read, at most {MAX_PIXELS:,}: {error}. Scale it down") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a PNG or JPEG picture. Give one of these") from error
    except Exception as error:  # Pillow raises a dozen types, depending on where the file is damaged: struct.error, KeyError, zlib.error
        raise DataError(f"{path} is damaged and cannot be decoded: {type(error).__name__}: {error}. Save it anew") from error


def _gray(image: Any) -> Any:
    """Mode L, 0..255. Sixteen-bit gray is scaled down; Pillow's own conversion would cut it off at 255."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image, np.int32).clip(0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # to the nearest: 257 is odd, so there are no halves
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("L")
    return image.convert("L")


def _is_dark_on_light(pixels: "np.ndarray[Any, Any]") -> bool:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(np.median(border) > 127)
