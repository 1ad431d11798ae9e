"""Kind 5: killed at every change of a file's name. Whoever reads then finds what was there before, or what is new: never nothing."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.artifact import Artifact
from toolkit.cli import main
from toolkit.export import Options, export
from toolkit.scratch import recover
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.workspace import Workspace
from toolkit.writing import alone_in, replacing_folder, write_text

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "open", "ctypes.dlsym")  # Python's audit events; the last is renameat2's
KILLED = 9


def killed_at(number: int, act: Callable[[], object]) -> bool:
    """Does it in a process of its own, which ends without a word before its `number`-th change. False where it came to its end."""
    child = os.fork()
    if not child:
        left = number

        def count(event: str, arguments: object) -> None:
            nonlocal left
            left -= event in CHANGES
            if left < 0:
                os._exit(KILLED)

        sys.addaudithook(count)
        act()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def in_two_steps(one: Path, other: Path) -> bool:
    """As on a file system that cannot exchange two folders."""
    return False


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


@pytest.mark.parametrize("way", ["in one step", "in two steps"])
@pytest.mark.parametrize("what", ["exports/onnx-fp32", "checkpoint"])
def test_a_folder_that_is_being_replaced_is_the_old_one_or_the_new_one(model: Path, monkeypatch: pytest.MonkeyPatch, what: str, way: str):
    if way == "in two steps":
        monkeypatch.setattr("toolkit.writing._exchange", in_two_steps)
    workspace, target, new = Workspace(model, model / "recipe.toml"), model / what, model.with_name("new")
    shutil.copytree(target, new)
    card = new / ("manifest.json" if what != "checkpoint" else "checkpoint.json")
    card.write_bytes(card.read_bytes() + b"\n")  # another one, which is as good

    def replace() -> None:
        with replacing_folder(target, model) as fresh:
            shutil.copytree(new, fresh, dirs_exist_ok=True)

    before, after = {path.stat().st_size for path in (target / card.name, card)}, card.stat().st_size
    number = 0
    while killed_at(number, replace):
        if what == "checkpoint":
            checkpoint_of(workspace).weights()
        else:
            assert target in artifact_folders(workspace)
            Artifact.open(target)
        assert (target / card.name).stat().st_size in before
        number += 1
    assert number > 10
    assert (target / card.name).stat().st_size == after
    replace()
    recover(target.parent)
    assert hidden(model) == []


def test_a_text_that_is_being_replaced_is_the_old_one_or_the_new_one(tmp_path: Path):
    target, number = tmp_path / "validation.json", 0
    write_text(target, "old")
    while killed_at(number, lambda: write_text(target, "new")):
        assert target.read_text() in ("old", "new")
        number += 1
    assert number > 5
    write_text(target, "newest")
    assert [path.name for path in tmp_path.iterdir()] == ["validation.json"]


TRACED = """
import sys; from pathlib import Path; from toolkit.writing import replacing_folder
with replacing_folder(Path(sys.argv[1]) / "exports" / "onnx-fp32", Path(sys.argv[1])) as fresh:
    for name in ("manifest.json", "golden.npz", "model.onnx"):
        (fresh / name).write_bytes((Path(sys.argv[1]) / "exports" / "onnx-fp32" / name).read_bytes())
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: kills by the system are not tried")
@pytest.mark.parametrize("call", ["renameat2", "unlinkat", "rmdir", "fsync", "flock"])
def test_a_kill_by_the_system_itself(model: Path, call: str):
    command = ["strace", "-f", "-o", os.devnull, "-e", f"inject={call}:signal=KILL:when=1", sys.executable, "-c", TRACED, str(model)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if b"ptrace" in ended.stderr:
        pytest.skip("this machine lets no process be traced")
    assert ended.returncode == -KILLED, ended.stderr.decode()
    workspace = Workspace(model, model / "recipe.toml")
    assert model / "exports/onnx-fp32" in artifact_folders(workspace)
    Artifact.open(model / "exports/onnx-fp32")
    subprocess.run(
        [sys.executable, "-c", f"{TRACED}\nfrom toolkit.scratch import recover; recover(fresh.parents[1])", str(model)], check=True
    )
    assert hidden(model) == []


EXPORT = """
import os, sys; from pathlib import Path; from toolkit import writing; from toolkit.cli import main
rename = Path.rename
def kill(self, target):
    if self.name == "new": os._exit(9)
    return rename(self, target)
Path.rename, writing._exchange = kill, lambda one, other: False
main(["export", sys.argv[1], "--format", "onnx"])
"""


def test_an_export_killed_between_its_two_renames_loses_no_artifact(model: Path, capfd: pytest.CaptureFixture[str]):
    assert subprocess.run([sys.executable, "-c", EXPORT, str(model)], capture_output=True, timeout=300, check=False).returncode == KILLED
    assert not (model / "exports/onnx-fp32").exists()
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(model), "--artifact", "onnx-fp32", "--runtime", "onnxruntime-cpu"])
    said = capfd.readouterr()
    assert not ended.value.code, said.out + said.err
    assert "onnx-fp32 was put back" in said.err
    assert "onnx-fp32" in said.out


def test_the_next_export_removes_what_a_killed_one_left_whatever_its_format(model: Path, capfd: pytest.CaptureFixture[str]):
    place = model / "exports" / f".toolkit-{16 * 'a'}"
    shutil.copytree(model / "exports/coreml-fp16", place / "new")
    (place / ".toolkit-leftover").write_text('written by the toolkit, and incomplete: "coreml-fp16"\n', encoding="utf-8")
    held = threading.Event()

    def another() -> None:
        with alone_in(model / "exports"):
            held.set()
            time.sleep(0.5)

    other = threading.Thread(target=another)
    other.start()
    held.wait()
    export(Workspace(model, model / "recipe.toml"), ["onnx"], Options())
    other.join()
    assert hidden(model) == []
    assert re.search("another export is writing into .*exports: waiting for its end", capfd.readouterr().err)


@pytest.mark.parametrize("name", ["exports/onnx-fp32", "checkpoint"])
def test_every_verb_that_lists_artifacts_puts_back_first(model: Path, name: str):
    """Of the library's verbs, those that have a list of their own; the rest goes through `artifacts_of`."""
    from toolkit.faults import self_test
    from toolkit.inspection import inspect
    from toolkit.report.sources import read
    from toolkit.selection import artifacts_of
    from toolkit.validation import verify

    workspace, target = Workspace(model, model / "recipe.toml"), model / name
    verbs: dict[str, Callable[[], object]] = {
        "inspect": lambda: inspect(model if name == "checkpoint" else target),
        "report": lambda: read(workspace),
        "verify": lambda: verify(model, isolate=False),
        "self-test": lambda: self_test(workspace, artifacts=["onnx-fp32"], faults=[], judge=lambda *_: []),
        "predict, bench": lambda: artifacts_of(workspace, checkpoint_of(workspace)),
    }
    for verb, act in verbs.items():
        place = target.parent / f".toolkit-{16 * 'a'}"
        place.mkdir()
        (place / ".toolkit-leftover").write_text(f'written by the toolkit, and incomplete: "{target.name}"\n', encoding="utf-8")
        target.rename(place / "old")
        act()
        assert target.exists(), verb
        shutil.rmtree(place)
