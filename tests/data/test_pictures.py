"""Pictures of any mode, size and orientation come out as light strokes on black; anything else is an error."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data import pictures
from toolkit.data.pictures import read_picture
from toolkit.errors import DataError

SHAPE = (1, 28, 28)


@pytest.fixture
def digit() -> np.ndarray:
    """(28, 28) uint8, a light upright stroke left of the middle and a blob at the lower end, on black."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:23, 9:12] = np.linspace(100, 255, 18).astype(np.uint8)[:, None]
    pixels[19:23, 12:18] = 200
    return pixels


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file from its specification: signature, IHDR of an 8-bit gray image, then the given chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks, chunk(b"IEND", b""))
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_picture(path, SHAPE)
    assert str(path) in str(caught.value)


def test_a_gray_png_of_the_models_size_comes_out_as_it_is(tmp_path: Path, digit):
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(digit)), SHAPE)
    assert np.array_equal(found.pixels, digit[None])
    assert (found.pixels.dtype, found.inverted) == (np.float32, False)
    assert found.pixels.flags.writeable
    assert found.pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16"])
def test_every_mode_of_png_gives_the_same_picture(tmp_path: Path, digit, mode: str):
    if mode == "1":
        digit = np.where(digit > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(digit.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(digit).convert(mode)
    assert image.mode == mode
    found = read_picture(save(tmp_path / "a.png", image), SHAPE)
    assert np.abs(found.pixels[0] - digit).max() <= (3 if mode == "P" else 0)  # a palette of the web has steps
    assert not found.inverted


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_mode_of_jpeg_gives_nearly_the_same_picture(tmp_path: Path, digit, mode: str):
    found = read_picture(save(tmp_path / "a.jpg", Image.fromarray(digit).convert(mode), quality=100, subsampling=0), SHAPE)
    assert np.abs(found.pixels[0] - digit).max() <= 6


def test_the_content_decides_and_not_the_ending(tmp_path: Path, digit):
    save(tmp_path / "a.png", Image.fromarray(digit)).rename(tmp_path / "a.jpg")
    assert np.array_equal(read_picture(tmp_path / "a.jpg", SHAPE).pixels[0], digit)


@pytest.mark.parametrize("value", [0, 100, 257, 20_000, 65_535])
def test_sixteen_bits_are_scaled_to_eight_and_not_cut_off(tmp_path: Path, value: int):
    pixels = np.zeros((28, 28), np.uint16)
    pixels[10:18, 10:18] = value
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(pixels)), SHAPE).pixels
    assert found[0, 14, 14] == round(value / 65_535 * 255)


def test_what_is_transparent_is_white_paper(tmp_path: Path, digit):
    """Black ink on nothing, as drawing programs save it: the ink becomes the light stroke."""
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[..., 3] = digit
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(rgba)), SHAPE)
    assert found.inverted
    assert np.abs(found.pixels[0] - digit).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_one_transparent_colour_is_white_paper_too(tmp_path: Path, digit, mode: str):
    ink = Image.fromarray(np.where(digit > 127, 0, 255).astype(np.uint8)).convert(mode)
    white = {"L": 255, "1": 1, "RGB": (255, 255, 255), "P": ink.getpixel((0, 0))}[mode]
    found = read_picture(save(tmp_path / "a.png", ink, transparency=white), SHAPE)
    assert found.inverted
    assert np.array_equal(found.pixels[0] > 127, digit > 127)


def test_dark_strokes_on_light_are_turned_round_and_said_to_be(tmp_path: Path, digit):
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(255 - digit)), SHAPE)
    assert found.inverted
    assert np.array_equal(found.pixels[0], digit)


@pytest.mark.parametrize("invert", [True, False])
def test_what_was_asked_for_goes_before_what_is_detected(tmp_path: Path, digit, invert: bool):
    for pixels in (digit, 255 - digit):
        found = read_picture(save(tmp_path / "a.png", Image.fromarray(pixels)), SHAPE, invert)
        assert found.inverted is invert
        assert np.array_equal(found.pixels[0], 255 - pixels if invert else pixels)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda upright: np.rot90(upright, 1)),  # to be turned clockwise for display
        (7, lambda upright: np.rot90(np.transpose(upright), 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_the_cameras_orientation_is_followed(tmp_path: Path, digit, orientation: int, stored, suffix: str):
    image = Image.fromarray(np.ascontiguousarray(stored(digit)))
    exif = image.getexif()
    exif[0x0112] = orientation
    options = {"quality": 100} if suffix == "jpg" else {}
    found = read_picture(save(tmp_path / f"a.{suffix}", image, exif=exif, **options), SHAPE)
    assert np.abs(found.pixels[0] - digit).max() <= 6


@pytest.mark.parametrize("factor", [2, 5, 20])
def test_a_larger_picture_is_averaged_down(tmp_path: Path, digit, factor: int):
    large = digit.repeat(factor, axis=0).repeat(factor, axis=1)
    assert np.abs(read_picture(save(tmp_path / "a.png", Image.fromarray(large)), SHAPE).pixels[0] - digit).max() <= 1


def test_a_wide_picture_keeps_its_proportions_and_is_centred_on_background(tmp_path: Path):
    pixels = np.zeros((50, 100), np.uint8)
    pixels[1:-1, 1:-1] = 255
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(pixels)), SHAPE).pixels[0]
    assert (found[:7] == 0).all()
    assert (found[-7:] == 0).all()
    assert (found[8:20, 1:27] == 255).all()


def test_a_light_picture_is_padded_with_what_becomes_background(tmp_path: Path):
    pixels = np.full((100, 50), 255, np.uint8)
    pixels[40:60, 20:30] = 0
    found = read_picture(save(tmp_path / "a.png", Image.fromarray(pixels)), SHAPE)
    assert found.inverted
    assert (found.pixels[0, :, :7] == 0).all()
    assert (found.pixels[0, 0] == 0).all()
    assert found.pixels[0, 14, 14] == 255


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (7, 5), (28, 29), (29, 28)], ids=str)
def test_every_size_gives_the_models_size(tmp_path: Path, size):
    found = read_picture(save(tmp_path / "a.png", Image.new("L", size)), SHAPE)
    assert found.pixels.shape == SHAPE
    assert (found.pixels == 0).all()


def test_a_model_of_another_size_gets_that_size(tmp_path: Path, digit):
    assert read_picture(save(tmp_path / "a.png", Image.fromarray(digit)), (1, 16, 20)).pixels.shape == (1, 16, 20)


def test_a_model_that_takes_colours_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="this model takes 3 channels; pictures are read as gray"):
        read_picture(tmp_path / "a.png", (3, 28, 28))


@pytest.mark.parametrize(
    "data", [b"", b"no picture", bytes(100), b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"], ids=["empty", "text", "zeros", "signature", "pdf"]
)
def test_what_is_no_picture_is_an_error(tmp_path: Path, data: bytes):
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", "is not a PNG or JPEG picture|is damaged")


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_refused_even_under_the_ending_of_one_that_is_read(tmp_path: Path, digit, format: str):
    refused(save(tmp_path / "a.png", Image.fromarray(digit), format=format), "is not a PNG or JPEG picture")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_truncated_picture_is_an_error_and_never_half_a_digit(tmp_path: Path, suffix: str, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "is damaged and cannot be decoded|is not a PNG or JPEG")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about what is damaged
def test_a_picture_with_bytes_changed_is_read_or_is_an_error_and_nothing_else(tmp_path: Path, digit):
    generator, image = np.random.default_rng(0), Image.fromarray(digit)
    exif = image.getexif()
    exif[0x0112] = 6
    wholes = []
    for options in ({"format": "PNG", "exif": exif}, {"format": "JPEG", "exif": exif}):
        image.save(buffer := io.BytesIO(), **options)
        wholes.append(buffer.getvalue())
    refusals = 0
    for trial in range(600):
        damaged = bytearray(wholes[trial % 2])
        for place in generator.integers(len(damaged), size=3):
            damaged[place] = generator.integers(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            assert read_picture(tmp_path / "a", SHAPE).pixels.shape == SHAPE
        except DataError:
            refusals += 1
    assert 0 < refusals < 600


def test_a_missing_file_is_an_error(tmp_path: Path):
    refused(tmp_path / "a.png", "cannot be read: No such file")


def test_a_folder_is_an_error_that_does_not_speak_of_damage(tmp_path: Path):
    refused(tmp_path, "cannot be read: it is a folder, not a regular file. Give a PNG or JPEG file")


def test_a_picture_of_more_pixels_than_we_read_is_refused_before_it_is_decoded(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(8001, 8000, chunk(b"IDAT", b"not even compressed")))
    refused(tmp_path / "a.png", f"has 8001×8000 pixels; at most {pictures.MAX_PIXELS:,} are read. Scale it down")


def test_a_decompression_bomb_is_refused(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(1000)))))
    refused(tmp_path / "a.png", "has more pixels than are read, at most 64,000,000: .*Scale it down")


def test_a_picture_just_within_the_limit_is_read_without_a_warning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # Pillow warns above this, and refuses above twice of it
    assert read_picture(save(tmp_path / "a.png", Image.new("L", (90, 90))), SHAPE).pixels.shape == SHAPE


def test_text_chunks_that_unpack_to_more_than_memory_are_an_error(tmp_path: Path):
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80 << 20)))
    (tmp_path / "a.png").write_bytes(png(28, 28, bomb, chunk(b"IDAT", zlib.compress(bytes(28 * 29)))))
    refused(tmp_path / "a.png", "is damaged and cannot be decoded|is not a PNG")
