"""Kind 7: a checkpoint whose files become far larger when they are read: resume.pt, the weights' header."""

import io
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.test_checkpoint import card
from toolkit.archives import members
from toolkit.checkpoint import RESUME, WEIGHTS, Checkpoint, write_checkpoint
from toolkit.errors import CheckpointError

SECONDS, KIB = 10, 200_000
Members = list[tuple[str, bytes, int]]  # name, content, how it is packed


@pytest.fixture
def written(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    return write_checkpoint(folder, {"weight": torch.zeros(1000)}, card(), {"step": 3, "momentum": [torch.zeros(1000)]})


def rewritten(path: Path, change: Callable[[Members], Members]) -> None:
    """The same archive with other members."""
    with zipfile.ZipFile(path) as archive:
        found = [(each.filename, archive.read(each), zipfile.ZIP_STORED) for each in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, packed in change(found):
            archive.writestr(name, content, packed)


def packed(path: Path) -> None:
    """A storage of 256 MiB of zeros in a megabyte."""
    torch.save({"weights_sha256": "", "a": torch.zeros(1000)}, path)
    storage = bytes(256 << 20)
    with zipfile.ZipFile(path) as archive:
        found = [(each.filename, archive.read(each)) for each in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in found:
            archive.writestr(name, storage if name.endswith("data/0") else content, zipfile.ZIP_DEFLATED, 1)


def overlapping(path: Path) -> None:
    """A thousand members of 8 MiB that are all the same bytes of the file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data/0", bytes(8 << 20))
        for number in range(1, 1000):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            first = archive.infolist()[0]
            again.CRC, again.compress_size, again.file_size, again.header_offset = first.CRC, first.compress_size, first.file_size, 0
            archive.filelist.append(again)
    path.write_bytes(content.getvalue())


def many_lists(path: Path) -> None:
    """8 million empty lists: 8 MB in the file, half a gigabyte in memory."""
    pickled = pickle.PROTO + b"\x02" + pickle.MARK + pickle.EMPTY_LIST * (8 << 20) + pickle.LIST + pickle.STOP
    rewritten(path, lambda found: [(name, pickled if name.endswith("data.pkl") else content, how) for name, content, how in found])


def large_directory(path: Path) -> None:
    """An archive that is nothing but a directory of 300,000 members."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) * 300_000, 0, 0)
    path.write_bytes(entry * 300_000 + end)


def two_directories(path: Path) -> None:
    """Python reads the first, torch the second."""
    data = bytearray(path.read_bytes())
    end64 = data.rindex(b"PK\x06\x06")
    data[end64 + 48 : end64 + 56] = struct.pack("<Q", 0)
    path.write_bytes(data)


def short_storage(path: Path) -> None:
    """A storage of 3 numbers that is said to have 1,000: to read beyond its end would be to read other memory."""
    rewritten(path, lambda found: [(name, content[:12] if name.endswith("data/0") else content, how) for name, content, how in found])


def with_something_after(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "packed": (packed, "is packed|it unpacks to"),
    "members over each other": (overlapping, "it unpacks to"),
    "many empty lists": (many_lists, "says only where the numbers lie"),
    "a directory of 300,000 members": (large_directory, "members in a directory of"),
    "two directories": (two_directories, "its two directories differ"),
    "a storage shorter than it says": (short_storage, "record size"),
    "no archive": (lambda path: path.write_bytes(b"x" * 1000), "it is no zip archive"),
    "something after the archive": (with_something_after, "it is no zip archive"),
    "a file of 1 TiB": (lambda path: os.truncate(path, 1 << 40), "at most .* are read"),
    "a FIFO": (lambda path: (path.unlink(), os.mkfifo(path)), "has no resume.pt"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_strangers_training_state(name: str, written: Checkpoint) -> None:
    plant, says = STATES[name]
    plant(written.folder / RESUME)
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError, match=rf"{says}.*--restart"):
        written.resume_state()
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KIB


def test_what_torch_saves_passes(written: Checkpoint) -> None:
    assert written.resume_state()["step"] == 3
    with (written.folder / RESUME).open("rb") as file:
        assert {each.filename.split("/")[-1] for each in members(file, 100, 1 << 20)} >= {"data.pkl", "0"}


def many_tensors(path: Path) -> None:
    """300,000 tensors without a number in them, in 17 MB."""
    one = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(one % n for n in range(300_000)) + "}"
    header = header.encode().ljust(17 << 20)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


WEIGHT_FILES: dict[str, Callable[[Path], object]] = {
    "many tensors": many_tensors,
    "a header of 2^40 bytes": lambda path: path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}"),
}


@pytest.mark.parametrize("read", [Checkpoint.weights, Checkpoint.shapes], ids=["weights", "shapes"])
@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_weights_with_a_large_header(name: str, read: Callable[[Checkpoint], object], written: Checkpoint) -> None:
    WEIGHT_FILES[name](written.folder / WEIGHTS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"its header has \d+ bytes, at most"):
        read(written)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KIB
