"""The fuzzer finds each fault that is planted, in a program that takes the toolkit's place; and it keeps silent where there is none."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile import forge, house, kills
from benchmarks.hostile.commands import COMMANDS, words_of
from benchmarks.hostile.judge import Before, Breach, changes, judge, signature
from benchmarks.hostile.launch import Ended, run, subreaper
from benchmarks.hostile.scene import Scene
from benchmarks.hostile.table import MUTATORS
from toolkit.artifact import Artifact

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer follows processes by Linux' own means")
PROGRAM = """
import os, pathlib, subprocess, sys, time
home, model = pathlib.Path.home(), pathlib.Path(sys.argv[2])
def write_outside(): (home / "Documents" / "new.txt").write_text("x")
def change_outside(): (home / ".profile").write_text("the user's own .profile\\n")  # the same words: only its time tells
def remove_outside(): (home / "Documents" / "letter.txt").unlink()
def come_and_go(): (home / "x").write_text("x"); (home / "x").unlink()
def leave_a_process(): subprocess.Popen(["sleep", "60"], start_new_session=True)
def raise_an_error(): raise ValueError("no message for a user")
def take_memory(): b = bytearray(400 << 20); time.sleep(20)
def take_memory_in_a_child(): subprocess.run([sys.executable, "-c", "import time; b = bytearray(400 << 20); time.sleep(20)"])
def take_time(): time.sleep(60)
def escape(): print("\\x1b[2JPASSED")
def turn_round(): print("\\u202etxt", file=sys.stderr)
def exit_three(): sys.exit(3)
def exit_one(): sys.exit(1)
def exit_two(): sys.exit(2)
def abort(): os.abort()
def leave_a_temporary(): pathlib.Path(os.environ["TMPDIR"], "x").write_text("x")
def leave_a_hidden_folder(): (model / ".onnx-fp32.abc").mkdir()
def lose_a_file(): (model / "recipe.toml").unlink()
def refuse(): print("toolkit: no", file=sys.stderr); sys.exit(2)
def fail_a_check(): print("FAILED: files"); sys.exit(1)
def work(): (model / "reports").mkdir(); (model / "reports" / "report.html").write_text("x")
def swap(): (model / "exports" / "fresh").mkdir(); os.rename(model / "exports" / "onnx-fp32", model / "exports" / ".x.old"); \\
    os.rename(model / "exports" / "fresh", model / "exports" / "onnx-fp32"); os.rmdir(model / "exports" / ".x.old") if 0 else None
globals()[sys.argv[1]]()
"""
FAULTS = {  # what the program does → the kind of breach that must be found, None where it is none
    "write_outside": "outside", "change_outside": "outside", "remove_outside": "outside", "come_and_go": "outside",
    "leave_a_process": "process left", "raise_an_error": "traceback", "take_memory": "memory", "take_memory_in_a_child": "memory",
    "take_time": "time", "escape": "escape", "turn_round": "escape", "exit_three": "exit code", "exit_one": "exit 1 without a verdict",
    "exit_two": "exit 2 without a word", "abort": "exit code", "leave_a_temporary": "temporary", "leave_a_hidden_folder": "leftover",
    "lose_a_file": "lost", "refuse": None, "fail_a_check": None, "work": None,
}  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A house with a model of a few files, and a program in the toolkit's place."""
    seed = tmp_path / "seed"
    for name in ("finished/exports/onnx-fp32/manifest.json", "finished/recipe.toml", "pictures/x.png", "files/x.onnx"):
        (seed / name).parent.mkdir(parents=True, exist_ok=True)
        (seed / name).write_text("{}", encoding="utf-8")
    program = tmp_path / "program" / "toolkit"
    program.mkdir(parents=True)
    (program / "__init__.py").touch()
    (program / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    place = tmp_path / "house"
    model = house.build(place, seed, "finished")
    environment = {
        "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(program.parent), "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    return Scene(place, model, env=environment, own=[model])


def carry_out(scene: Scene, word: str, seconds: float = 20.0) -> tuple[Ended, list[Breach]]:
    subreaper()
    before = Before.of(scene)
    ended = run(scene, [word, str(scene.model)], seconds=seconds, memory_bytes=200 << 20, real=True)
    return ended, judge(scene, before, ended)


@pytest.mark.parametrize("word", FAULTS)
def test_each_planted_fault_is_found(scene: Scene, word: str):
    ended, breaches = carry_out(scene, word, seconds=1.0 if word == "take_time" else 20.0)
    expected = FAULTS[word]
    assert {breach.kind for breach in breaches} >= ({expected} if expected else set()), ended.said
    if expected is None:
        assert breaches == []


def test_our_own_memory_is_not_counted(scene: Scene):
    ours = bytearray(os.urandom(1 << 20) * 300)
    assert carry_out(scene, "refuse")[1] == []
    assert len(ours) > 200 << 20


def test_what_is_left_running_is_ended(scene: Scene):
    ended, _ = carry_out(scene, "leave_a_process")
    assert ended.left == ["S sleep 60 "] or ended.left == ["S sleep 60"]
    assert "sleep 60" not in subprocess.run(["ps", "-eo", "args", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout


@pytest.mark.skipif(kills.why_not() is not None, reason=str(kills.why_not()))
def test_a_kill_between_two_renames_is_found(scene: Scene, tmp_path: Path):
    subreaper()
    words = ["swap", str(scene.model)]
    found = kills.points(_traced(scene, words), scene.model)
    renames = [point for point in found if point.call.startswith("rename")]
    assert len(renames) == 2
    house.build(scene.house, tmp_path / "seed", "finished")
    before = Before.of(scene)
    ended = kills.disturbed(scene, words, renames[1], 30.0, 1 << 30, real=True)
    assert ended.code == -9
    assert Breach("lost", "exports/onnx-fp32") in judge(scene, before, ended, killed=True, tidy=False)


def _traced(scene: Scene, words: list[str]) -> Path:
    log = scene.house.with_name("log")
    tracer = kills.Tracer(log, "-y", "-s", "0", "-e", f"trace={kills.CALLS}")
    run(scene, words, seconds=30.0, memory_bytes=1 << 30, real=True, before=tracer)
    tracer.end()
    return log


def test_a_forged_folder_is_consistent(model: Path):
    network = model / "exports/onnx-fp32/model.onnx"
    network.write_bytes(network.read_bytes() + b"\x3a\x00")
    with pytest.raises(Exception, match="sha256"):
        Artifact.open(network.parent)
    forge.forge(model)
    Artifact.open(network.parent)


@pytest.mark.parametrize("name", MUTATORS)
def test_every_mutator_works(model: Path, name: str):
    place = model.parents[1]
    users = place / "home" / "Documents"
    shutil.copytree(model / "exports/onnx-fp32", users / "artifact")
    (users / "letter.txt").write_text("kept", encoding="utf-8")
    for folder in ("pictures", "files", "tmp", "cache", "out", "small"):
        (place / folder).mkdir()
        (place / folder / "x").touch()
    (place.parent / "seed" / "cache" / "validation").mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "out"):
        (place / folder / "x").unlink()
    scene = Scene(place, model, random.Random(name), env={}, own=[model])
    assert MUTATORS[name][0](scene)
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-R", "-i", str(place)], capture_output=True, check=False)


def test_every_command_has_its_words(scene: Scene):
    for command in COMMANDS.values():
        assert "{" not in " ".join(words_of(command, scene))


def test_a_signature_leaves_out_what_is_of_the_case():
    first, second = (Breach("traceback", f"ValueError: bad value {n} in /tmp/x{n}/y at toolkit/recipe.py:read") for n in (1, 22))
    assert signature(first) == signature(second) != signature(Breach("traceback", "KeyError: 'x' at toolkit/recipe.py:read"))


def test_changes_are_few_and_in_words():
    assert changes({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ["changed: b: 2 → 3", "gone: a", "new: c"]
    assert len(changes({}, {str(k): "" for k in range(100)})) == 8
