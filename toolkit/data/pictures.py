"""Picture files brought to the form of the training images: gray, light strokes on black, the model's size."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import DataError

MAX_PIXELS = 64_000_000  # an 8000×8000 photograph; anything larger is refused before it is decoded
FORMATS = ("PNG", "JPEG")


@dataclass(frozen=True)
class Picture:
    """`pixels` (1, H, W) float32 0..255."""

    pixels: "np.ndarray[Any, Any]"
    inverted: bool


def read_picture(path: Path, shape: tuple[int, int, int], invert: bool | None = None) -> Picture:
    """A PNG or JPEG of any size and mode. `invert` None: detected from the border, where background is expected.

    The camera's orientation tag is followed, transparency is laid on white paper, and the picture is scaled to fit and
    centred, its proportions kept. Raises DataError for anything that is no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if shape[0] != 1:
        raise DataError(f"this model takes {shape[0]} channels; pictures are read as gray, with one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, lower limit follows
            with Image.open(path, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DataError(f"{path} has {opened.width}×{opened.height} pixels; at most {MAX_PIXELS:,} are read. Scale it down")
                upright = ImageOps.exif_transpose(opened)
                gray = _gray(upright)
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} has more pixels than are read, at most {MAX_PIXELS:,}: {error}. Scale it down") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a PNG or JPEG picture ({error})") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Give a PNG or JPEG file") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{path} is damaged and cannot be decoded: {error}") from error
    pixels = np.asarray(gray, np.uint8)
    inverted = _is_dark_on_light(pixels) if invert is None else invert
    if inverted:
        gray = ImageOps.invert(gray)
    method = Image.Resampling.BOX if max(gray.size) > max(shape[1:]) else Image.Resampling.BILINEAR
    fitted = ImageOps.pad(gray, (shape[2], shape[1]), method=method, color=0)
    return Picture(np.asarray(fitted, np.float32)[None].copy(), inverted)


def _gray(image: Any) -> Any:
    """Mode L, 0..255. Sixteen-bit gray is scaled down; Pillow's own conversion would cut it off at 255."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, np.float64).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("L")
    return image.convert("L")


def _is_dark_on_light(pixels: "np.ndarray[Any, Any]") -> bool:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(np.median(border) > 127)
