"""One helper reads small files of strangers: regular ones of a bounded size, and it never waits."""

import os
import socket
from pathlib import Path

import pytest

from toolkit.errors import CheckpointError, ToolkitError
from toolkit.files import read_bytes


def test_a_regular_file_is_read_whole(tmp_path: Path):
    (tmp_path / "card.json").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "card.json", 10) == b"0123456789"


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path):
    (tmp_path / "card.json").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("card.json")
    assert read_bytes(tmp_path / "link", 10) == b"{}"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(os.path.relpath(path))  # such a path has at most 107 bytes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "it is a folder"),
        (_fifo, "it is a FIFO"),
        (_socket, "it is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.write_bytes(b"0" * 11), "it has 11 bytes; at most 10 are read"),
    ],
)
def test_what_is_no_small_regular_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object, words: str):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "card.json")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=words) as raised:
        read_bytes(tmp_path / "card.json", 10, raises=CheckpointError, advice="Train again")
    assert str(raised.value).endswith("Train again")


@pytest.mark.parametrize(("name", "words"), [("n" * 300, "too long"), ("a\0b", "null byte"), ("\ud800", "surrogates")])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str, words: str):
    with pytest.raises(ToolkitError, match=words):
        read_bytes(tmp_path / name, 10)


def test_a_file_without_a_size_of_its_own_is_bounded_too():
    proc = Path("/proc/self/maps")
    if not proc.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(ToolkitError, match="more than 10 bytes"):
        read_bytes(proc, 10)
