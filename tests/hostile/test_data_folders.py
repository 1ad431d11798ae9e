"""Kinds 1 and 7: a folder of MNIST in which something else lies in the place of an archive. Nothing blocks, nothing is written outside."""

import gzip
import io
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.data import load
from toolkit.errors import DataError

LABELS = "t10k-labels-idx1-ubyte.gz"


def bomb(path: Path) -> None:
    """1 GiB of zeros in a megabyte, with a header that claims 2^40 items."""
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01" + b"\xff" * 4 + bytes(16 << 20)) * 8)


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "it is a FIFO, not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
    "a folder": (lambda path: path.mkdir(), "it is a folder, not a regular file"),
    "a link to nowhere": (lambda path: path.symlink_to(path.parents[3] / "victim"), "No such file"),
    "a loop of links": (lambda path: path.symlink_to(path), "cannot be read"),
    "a file of 1 TiB": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "at most 67,108,864 are read"),
    "an archive that unpacks to a bomb": (bomb, "is damaged or another file"),
}


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", PLANTED)
def test_something_else_in_the_place_of_an_archive(name: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, says = PLANTED[name]
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    plant(raw / LABELS)
    for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        (raw / f"{file}-ubyte.gz").touch()
    monkeypatch.setattr("toolkit.data.datasets._verified", only(LABELS))
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: io.BytesIO(b"what a mirror gives"))
    with pytest.raises(DataError, match=says):
        load("mnist", tmp_path / "data", download=download)
    assert not (tmp_path / "victim").exists()


def only(name: str) -> Callable[[Path, str], bytes]:
    """The other archives are not what is tried here."""
    from toolkit.data import datasets

    real = datasets._verified
    return lambda path, md5: real(path, md5) if path.name == name else b""
