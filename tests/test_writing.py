"""Writing: whole or not at all, nothing through a link, and nothing of a user's is replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import ToolkitError
from toolkit.writing import _exchange, alone_in, check_place, replacing_folder, write_text


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").touch()
    return folder


def test_a_replaced_folder_holds_the_new_files_and_none_of_the_old(elsewhere: Path):
    target = made(elsewhere / "checkpoint")
    with replacing_folder(target, elsewhere) as fresh:
        (fresh / "new").write_text("1", encoding="utf-8")
        assert (target / "checkpoint.json").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


def test_a_folder_that_was_not_there_is_made_with_its_parents(elsewhere: Path):
    with replacing_folder(Path("a/b/c"), Path("a")) as fresh:
        (fresh / "new").touch()
    assert (elsewhere / "a" / "b" / "c" / "new").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_nothing_else(elsewhere: Path, error: type[BaseException]):
    target = made(elsewhere / "checkpoint")

    def fill() -> None:
        with replacing_folder(target, elsewhere) as fresh:
            (fresh / "half").touch()
            raise error

    with pytest.raises(error):
        fill()
    assert [path.name for path in target.iterdir()] == ["checkpoint.json"]
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved_in(elsewhere: Path, monkeypatch: pytest.MonkeyPatch):
    target = made(elsewhere / "checkpoint")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError("the disk is gone")
        return rename(self, to)

    monkeypatch.setattr("toolkit.writing._exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="the disk is gone"), replacing_folder(target, elsewhere) as fresh:
        (fresh / "new").touch()
    assert [path.name for path in target.iterdir()] == ["checkpoint.json"]
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_two_folders_change_places_in_one_step_or_in_two(elsewhere: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool):
    if not in_one_step:
        monkeypatch.setattr("toolkit.writing._exchange", lambda one, other: False)
    target = made(elsewhere / "checkpoint")
    with replacing_folder(target, elsewhere) as fresh:
        (fresh / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in elsewhere.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_on_linux_a_folder_is_never_missing(elsewhere: Path):
    one, other = made(elsewhere / "one"), made(elsewhere / "other")
    (other / "new").touch()
    assert _exchange(one, other)
    assert (one / "new").exists()
    assert not (other / "new").exists()
    assert not _exchange(one, elsewhere / "none")


@pytest.mark.parametrize("through", ["checkpoint", "deep"])
def test_nothing_is_replaced_through_a_link_in_the_models_folder(elsewhere: Path, through: str):
    """Not even where it stays inside: exports/onnx-fp32 → ../checkpoint would lose the checkpoint."""
    made(elsewhere / "disk" / "checkpoint")
    (elsewhere / "model").mkdir()
    link = elsewhere / "model" / through
    link.symlink_to(elsewhere / "disk" / ("checkpoint" if through == "checkpoint" else ""))
    target = elsewhere / "model" / ("checkpoint" if through == "checkpoint" else "deep/checkpoint")
    message = f"{through} is a link, and nothing inside a model's folder is written through a link"
    with pytest.raises(ToolkitError, match=message), replacing_folder(target, elsewhere / "model"):
        pytest.fail("the block must not run")
    with pytest.raises(ToolkitError, match="is a link"):
        write_text(target / "a.json", "text", elsewhere / "model")
    assert [path.name for path in (elsewhere / "disk" / "checkpoint").iterdir()] == ["checkpoint.json"]


def test_the_models_own_folder_may_be_a_link(elsewhere: Path):
    made(elsewhere / "disk" / "checkpoint")
    (elsewhere / "model").symlink_to(elsewhere / "disk")
    with replacing_folder(elsewhere / "model" / "checkpoint", elsewhere / "model") as fresh:
        (fresh / "new").touch()
    write_text(elsewhere / "model" / "reports" / "a.json", "text", elsewhere / "model")
    assert (elsewhere / "model").is_symlink()
    assert [path.name for path in (elsewhere / "disk" / "checkpoint").iterdir()] == ["new"]
    assert sorted(path.name for path in (elsewhere / "disk").iterdir()) == ["checkpoint", "reports"]


@pytest.mark.parametrize("kind", ["a folder of somebody's", "a card that is a link", "a file"])
def test_what_the_toolkit_did_not_make_is_not_replaced(elsewhere: Path, kind: str):
    target = elsewhere / "checkpoint"
    if kind == "a file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    if kind == "a card that is a link":
        (target / "checkpoint.json").symlink_to("mine.txt")
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(ToolkitError, match=r"checkpoint is in the way: .*Move it away"), replacing_folder(target, elsewhere):
        pytest.fail("the block must not run")
    assert sorted(elsewhere.rglob("*")) == before


def test_an_empty_folder_is_replaced(elsewhere: Path):
    (elsewhere / "checkpoint").mkdir()
    with replacing_folder(elsewhere / "checkpoint", elsewhere) as fresh:
        (fresh / "new").touch()
    assert (elsewhere / "checkpoint" / "new").exists()


def test_a_place_outside_the_models_folder_is_refused(elsewhere: Path):
    with pytest.raises(ToolkitError, match="is not inside model"):
        check_place(Path("model/exports/../../victim"), Path("model"), folder=True)


@pytest.mark.parametrize("kind", ["link", "device", "pipe"])
def test_a_text_replaces_no_link_and_no_device(elsewhere: Path, kind: str):
    """`--junit /dev/stdout` of a superuser would replace the device itself."""
    target = elsewhere / "a.xml"
    (elsewhere / "mine.txt").write_text("mine")
    if kind == "link":
        target.symlink_to("mine.txt")
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target = Path(os.devnull)
    with pytest.raises(ToolkitError, match="it is a link or a device, not a regular file"):
        write_text(target, "text")
    assert (elsewhere / "mine.txt").read_text() == "mine"
    assert Path(os.devnull).is_char_device()


def test_a_second_process_waits_for_its_turn_and_says_so(elsewhere: Path, capfd: pytest.CaptureFixture[str]):
    program = (
        "import sys; from pathlib import Path; from toolkit.writing import alone_in\n"
        "with alone_in(Path('exports'), wait='another export is writing: waiting'):\n    print('its turn')"
    )
    with alone_in(Path("exports")):
        second = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert second.stderr.readline() == "another export is writing: waiting\n"
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == "its turn\n"


@pytest.mark.parametrize("target", ["file/a", "file/a/b"])
def test_a_place_that_cannot_be_written_is_an_error_naming_it(elsewhere: Path, target: str):
    (elsewhere / "file").touch()
    message = r"cannot write to .*file.*: (Not a directory|File exists)\. Name another place.*TOOLKIT_MODELS"
    with pytest.raises(ToolkitError, match=message), replacing_folder(Path(target), Path()):
        pytest.fail("the block must not run")
    with pytest.raises(ToolkitError, match=message):
        write_text(Path(target), "text")


def test_a_written_text_replaces_the_old_one_and_leaves_nothing_else(elsewhere: Path):
    target = elsewhere / "reports" / "a.json"
    write_text(target, "one")
    write_text(target, "zwei äöü ×")
    assert target.read_text(encoding="utf-8") == "zwei äöü ×"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(elsewhere: Path):
    target = elsewhere / "a.json"
    write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "half \ud800")
    assert target.read_text(encoding="utf-8") == "old"
    assert [path.name for path in elsewhere.iterdir()] == ["a.json"]


def test_a_text_never_replaces_a_folder(elsewhere: Path):
    (elsewhere / "a.json").mkdir()
    with pytest.raises(ToolkitError, match=r"cannot write to .*a\.json: Is a directory"):
        write_text(elsewhere / "a.json", "text")
    assert [path.name for path in elsewhere.iterdir()] == ["a.json"]


def test_a_process_that_is_killed_while_it_writes_leaves_the_old_folder(elsewhere: Path):
    target = made(elsewhere / "checkpoint")
    program = (
        "import os, sys; from pathlib import Path; from toolkit.writing import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1]), Path(sys.argv[1]).parent) as fresh:\n    (fresh / 'half').touch(); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)], check=False).returncode == 9
    assert [path.name for path in target.iterdir()] == ["checkpoint.json"]


def test_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Every file and folder in it: a power cut after the renaming must not leave empty files under the new name."""
    synced: list[int] = []
    real_fsync, real_rename = os.fsync, Path.rename
    before_renaming: list[set[int]] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino) or real_fsync(number))
    monkeypatch.setattr(Path, "rename", lambda self, to: before_renaming.append(set(synced)) or real_rename(self, to))
    with replacing_folder(tmp_path / "checkpoint", tmp_path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("w")
        (folder / "card").write_text("c")
    target = tmp_path / "checkpoint"
    assert {path.stat().st_ino for path in (target, *target.rglob("*"))} <= before_renaming[0]
