"""Disks: what cannot be written is found before anything is computed, and named after a failure."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.disks import blamed, reason, require_room, why_not_writable
from toolkit.errors import DiskError, ExportError


@pytest.fixture
def short_files() -> Iterator[int]:
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield 1 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EBUSY]
)
def test_what_the_system_says_is_the_reason(number: int):
    assert reason(OSError(number, os.strerror(number), "a/b")) == f"{os.strerror(number)}: a/b"


@pytest.mark.parametrize("chained", ["cause", "words"])
def test_the_reason_is_found_behind_what_a_converter_makes_of_it(chained: str):
    full = OSError(errno.ENOSPC, "No space left on device")
    error: Exception
    if chained == "words":
        error = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    else:
        try:
            try:
                raise full
            except OSError as inner:
                raise ExportError("cannot convert") from (inner if chained == "cause" else None)
        except ExportError as outer:
            error = outer
    assert "No space left on device" in str(reason(error))


def test_a_bug_is_no_reason():
    assert reason(ValueError("wrong")) is None
    assert reason(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")) is None
    bug = ValueError("a bug, after a file that was looked for and may not be read")
    bug.__context__ = PermissionError(errno.EACCES, "Permission denied")
    assert reason(bug) is None


def test_an_array_that_was_cut_is_a_full_disk(tmp_path: Path, short_files: int):
    """NumPy raises an OSError without a number."""
    with pytest.raises(OSError, match="requested and") as raised:
        np.save(tmp_path / "a.npy", np.zeros(short_files))
    assert raised.value.errno is None
    assert "the file may not grow" in str(reason(raised.value))
    assert reason(OSError("the disk is gone")) is None


def test_a_place_that_can_be_written_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert why_not_writable(tmp_path / "not" / "there" / "yet", 1000) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=10**9, free=10**6))
    with pytest.raises(DiskError, match=r"cannot write to .*: 1\.0 MB are free there, and about 3\.0 MB are needed\. Make room there"):
        require_room(tmp_path, 3 * 10**6)


def test_a_limit_of_the_shell_counts(tmp_path: Path, short_files: int):
    assert why_not_writable(tmp_path, 0, short_files) is None
    assert "ulimit -f" in str(why_not_writable(tmp_path, 0, short_files + 1))


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="Not a directory"):
        require_room(tmp_path / "file" / "reports")


def test_only_a_disk_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert blamed(RuntimeError("the writer failed"), tmp_path) is None
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=10**9, free=0))
    assert "0.0 MB are free there" in str(blamed(RuntimeError("the writer failed"), tmp_path))
