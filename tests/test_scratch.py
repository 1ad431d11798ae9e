"""Leftovers: recognised by name and marker, put back or removed; a user's own files of like names are never touched."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.errors import DiskError
from toolkit.scratch import MARKER, put_back, recover, scratch
from toolkit.writing import replacing_folder, write_text

USERS_OWN = (".checkpoint.bak", ".checkpoint.abc.old", ".emacs.d", ".toolkit-notes", ".toolkit-0123456789abcde", f".toolkit-{16 * 'g'}")


def leftover(folder: Path, name: str, moved_aside: bool = True) -> Path:
    """As a process that was killed between its two renames leaves it: `name` is missing, and what was there is in `old`."""
    place = folder / f".toolkit-{16 * 'a'}"
    place.mkdir()
    (place / MARKER).write_text(f'written by the toolkit, and incomplete: "{name}"\n', encoding="utf-8")
    (place / "new").mkdir()
    if moved_aside:
        (folder / name).rename(place / "old")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an artifact in it."""
    (tmp_path / "onnx-fp32").mkdir()
    (tmp_path / "onnx-fp32" / "manifest.json").touch()
    return tmp_path


@pytest.fixture
def frozen(folder: Path) -> Iterator[Path]:
    """Nothing can be written into `folder`, by nobody."""
    if os.geteuid():
        folder.chmod(0o555)
    elif not shutil.which("chattr") or os.system(f"chattr +i '{folder}' 2>/dev/null"):
        pytest.skip("this file system has no immutable folders, and the superuser may write into all others")
    yield folder
    if os.geteuid():
        folder.chmod(0o755)
    else:
        os.system(f"chattr -i '{folder}'")


@pytest.mark.parametrize("act", [put_back, recover])
def test_what_a_killed_process_had_moved_aside_is_put_back(folder: Path, act, capsys):
    place = leftover(folder, "onnx-fp32")
    act(folder)
    assert (folder / "onnx-fp32" / "manifest.json").exists()
    assert "onnx-fp32 was put back" in capsys.readouterr().err
    assert place.exists() == (act is put_back)  # a command that reads removes nothing


@pytest.mark.parametrize("act", [put_back, recover])
def test_with_nothing_to_do_nothing_is_touched(folder: Path, act):
    for name in USERS_OWN:
        (folder / name).mkdir()
        (folder / name / "kept.txt").write_text("the user's own")
    before = sorted(folder.rglob("*"))
    act(folder)
    act(folder / "nowhere")
    with replacing_folder(folder / "checkpoint", folder) as fresh:
        (fresh / "checkpoint.json").touch()
    write_text(folder / "a.json", "text")
    shutil.rmtree(folder / "checkpoint")
    (folder / "a.json").unlink()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("fault", ["no marker", "a foreign marker", "a link", "a marker that is a link", "a long marker", "a path outside"])
def test_what_has_no_marker_of_ours_is_not_ours(folder: Path, fault: str):
    place = leftover(folder, "onnx-fp32")
    marker = place / MARKER
    text = marker.read_text()
    if fault == "no marker":
        marker.unlink()
    elif fault == "a link":
        place.rename(folder / "elsewhere")
        place.symlink_to("elsewhere")
    elif fault == "a marker that is a link":
        marker.rename(folder / "marker")
        marker.symlink_to(folder / "marker")
    else:
        marker.write_text({"a foreign marker": "mine\n", "a long marker": 5000 * "x"}.get(fault, text.replace("onnx-fp32", "../a")))
    before = sorted(folder.rglob("*"))
    put_back(folder)
    recover(folder)
    assert sorted(folder.rglob("*")) == before


def test_what_is_there_is_not_replaced_by_what_was_moved_aside(folder: Path):
    leftover(folder, "onnx-fp32")
    (folder / "onnx-fp32").mkdir()
    (folder / "onnx-fp32" / "newer").touch()
    recover(folder)
    assert [path.name for path in (folder / "onnx-fp32").iterdir()] == ["newer"]
    assert [path.name for path in folder.iterdir()] == ["onnx-fp32"]


def test_a_scratch_folder_whose_process_lives_is_left_alone(folder: Path):
    place = leftover(folder, "onnx-fp32")
    with (place / MARKER).open() as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        recover(folder)
        put_back(folder)
        assert place.exists()
        assert not (folder / "onnx-fp32").exists()
    recover(folder)
    assert [path.name for path in folder.iterdir()] == ["onnx-fp32"]


@pytest.mark.parametrize("marker", [None, ""])
def test_a_scratch_folder_that_had_only_just_begun_is_removed(folder: Path, marker: str | None):
    place = folder / f".toolkit-{16 * 'b'}"
    place.mkdir()
    if marker is not None:
        (place / MARKER).write_text(marker)
    put_back(folder)
    assert place.exists()
    recover(folder)
    assert [path.name for path in folder.iterdir()] == ["onnx-fp32"]


def test_a_scratch_folder_is_gone_at_the_end_however_that_comes(folder: Path):
    def fill() -> None:
        with scratch(folder / "coreml-fp16") as place:
            (place / "deep").mkdir()
            (place / "deep" / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert [path.name for path in folder.iterdir()] == ["onnx-fp32"]


def test_where_nothing_can_be_written_a_reader_says_what_it_found(folder: Path, request, capsys):
    place = leftover(folder, "onnx-fp32")
    request.getfixturevalue("frozen")
    put_back(folder)
    assert f"onnx-fp32 is missing: the process that was replacing it was killed, and left it in {place / 'old'}" in capsys.readouterr().err
    with pytest.raises(DiskError, match=r"cannot write to .*onnx-fp32: (Operation not permitted|Permission denied)"):
        recover(folder)
    assert (place / "old" / "manifest.json").exists()
