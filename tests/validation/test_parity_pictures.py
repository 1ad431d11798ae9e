"""The files are what their names say, and their pixels are known without our own reader."""

import numpy as np
import pytest
from PIL import Image

from toolkit.data import load
from toolkit.data.pictures import read_picture
from toolkit.validation.pictures import KINDS, write

IMAGES = load("digits").test_images[:64].numpy()


@pytest.fixture
def files(tmp_path):
    return write(IMAGES, tmp_path)


def test_a_file_of_each_kind_with_its_pixels(files):
    paths, pixels = files
    assert list(paths) == list(KINDS)
    assert pixels.shape == (len(KINDS), 1, 28, 28)
    formats, modes, sizes = {}, {}, {}
    for name, path in paths.items():
        with Image.open(path) as opened:
            formats[name], modes[name], sizes[name] = opened.format, opened.mode, opened.size
            stored = np.asarray(opened)
        if "tag" in name:
            assert not np.array_equal(stored, pixels[list(KINDS).index(name), 0])
    assert all(name.startswith(found) for name, found in formats.items())
    assert list(modes.values()) == ["L", "RGB", "RGBA", "P", "L", "L", "L", "RGB", "L", "L", "L"]
    assert sizes["PNG, twice the size"] == (56, 56)


def test_lossless_kinds_stand_for_the_test_images_themselves(files):
    _, pixels = files
    for number, name in enumerate(KINDS):
        if name.startswith("PNG"):
            assert np.array_equal(pixels[number, 0], IMAGES[number, 0])


def test_our_reader_finds_those_pixels(files):
    paths, pixels = files
    for path, wanted in zip(paths.values(), pixels, strict=True):
        assert np.array_equal(read_picture(path, (1, 28, 28), invert=False).pixels, wanted)
