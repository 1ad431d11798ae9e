"""Kind 7: pictures that block, take long, or ask for memory, and what is no picture at all."""

import io
import os
import resource
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.pictures import read_picture
from toolkit.errors import DataError

SECONDS, KIB = 10, 300_000
SHAPE = (1, 28, 28)
START_OF_SCAN = b"\xff\xda"


def progressive(side: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), format="JPEG", progressive=True, quality=10)
    return buffer.getvalue()


def many_scans(path: Path) -> None:
    """One of the passes of a progressive JPEG two thousand times: each is decoded over the whole picture."""
    data = progressive(1000)
    first = data.index(START_OF_SCAN)
    second = data.index(START_OF_SCAN, first + 2)
    third = data.index(START_OF_SCAN, second + 2)
    scan = data[second:third]
    path.write_bytes(data[:third] + scan * 2000 + data[third:])


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, kind: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def bomb(path: Path) -> None:
    path.write_bytes(png(30_000, 30_000, chunk(b"IDAT", zlib.compress(bytes(30_001 * 100)))))


def profile_bomb(path: Path) -> None:
    """A colour profile of 100 MiB in 100 KiB."""
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(100 << 20)))
    path.write_bytes(png(28, 28, profile, chunk(b"IDAT", zlib.compress(bytes(28 * 29)))))


def large_text(path: Path) -> None:
    path.write_bytes(png(28, 28, chunk(b"tEXt", b"Comment\0" + bytes(100 << 20)), chunk(b"IDAT", zlib.compress(bytes(28 * 29)))))


def exif(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        Image.new("L", (28, 28)).save(path, format="JPEG", exif=b"Exif\0\0" + data)

    return write


ORIENTATION = struct.pack("<HHI", 0x0112, 4, 2**31)  # of which there are 2^31
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n(canary) (w) file closefile\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>'


def of_format(name: str) -> Callable[[Path], None]:
    return lambda path: Image.new("L", (32, 32)).save(path, format=name)


def of_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(progressive(64)[:-200])


NOT_A_PICTURE = "is not a PNG or JPEG picture"
PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "it is a FIFO, not a regular file"),
    "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
    "a folder": (lambda path: path.mkdir(), "it is a folder, not a regular file"),
    "a loop of links": (lambda path: path.symlink_to(path), "cannot be read"),
    "a file of 1 TiB": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "at most 67,108,864 are read"),
    "a JPEG of 2,000 passes": (many_scans, "a JPEG of 20.. passes over 1000000 pixels"),
    "a PNG of 30,000 by 30,000": (bomb, "more pixels than are read"),
    "a text of 100 MiB": (large_text, "at most 67,108,864 are read"),
    "a colour profile of 100 MiB": (profile_bomb, "is damaged"),
    "an EXIF block without an end": (exif(b"II*\0\x08\0\0\0\xff\xff" + ORIENTATION), "is damaged"),
    "a truncated JPEG": (truncated, "is damaged"),
    "Postscript": (of_bytes(POSTSCRIPT), NOT_A_PICTURE),
    "SVG": (of_bytes(SVG), NOT_A_PICTURE),
    **{f"a picture of format {name}": (of_format(name), NOT_A_PICTURE) for name in ("TIFF", "ICO", "ICNS", "GIF", "WEBP", "PPM", "TGA")},
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_strangers_picture(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    plant, says = PICTURES[name]
    path = tmp_path / "a.png"
    plant(path)
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match=says) as caught:
        read_picture(path, SHAPE)
    assert str(path) in str(caught.value)
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KIB
    assert not recwarn.list


def test_of_an_animated_png_the_first_picture_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (28, 28), value) for value in (0, 255)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.png", SHAPE, invert=False).pixels.max() == 0
