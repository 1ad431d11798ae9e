"""A round: processes side by side that take turns, whatever becomes of one of them; nothing is left when it is over."""

import os
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bench.conftest import round_of
from toolkit import bench as room
from toolkit.bench import Options
from toolkit.bench.arms import of_model
from toolkit.bench.rounds import take
from toolkit.bench.worker import END, READY, ROUND, TURN
from toolkit.workspace import Workspace

QUICK = Options(preset="quick")


def job(workspace: Workspace, runtime: str = "null", **changed):
    (plan, *_), _, _ = of_model(workspace, [runtime], None, QUICK, workspace.folder)
    return plan.job(0, QUICK).model_copy(update=changed)


def worker_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Puts a program in the worker's place; `ready()`, `turn()` and `over(text)` are its part of the talk."""
    script = tmp_path / "python"
    script.write_text(f"""#!{sys.executable}
import os, signal, sys, time
def ready(): print("{READY}", flush=True)
def turn(): assert sys.stdin.readline().strip() == "{TURN}"; print("{TURN}", flush=True)
def over(text): assert sys.stdin.readline().strip() == "{END}"; print("{ROUND}" + text, flush=True)
{body}
""")
    script.chmod(0o755)
    monkeypatch.setattr("toolkit.processes.sys.executable", str(script))


@pytest.mark.parametrize(("body", "words"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL; it said nothing"),
    ("ready(); turn(); os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL; it said nothing"),
    ("print('compiling', file=sys.stderr, flush=True); os.abort()", r"SIGABRT; last words: compiling"),
    ("time.sleep(60)", r"did not answer within 1.5 s and was stopped"),
    ("ready(); turn(); print('busy', file=sys.stderr, flush=True); time.sleep(60)", r"did not answer within 1.5 s .*last words: busy"),
    ("os.kill(os.getpid(), 35)", r"was killed by signal 35; it said nothing"),
    ("print('hello')", r"ended without an answer after it printed 'hello'; last words: none"),
    ("print('{}'); print('half a model', file=sys.stderr)", r"after it printed '{}'; last words: half a model"),
    ("sys.stdout.buffer.write(bytes([255, 254, 0]))", r"after it printed .*xff"),
    ("sys.stderr.buffer.write(bytes([255])); sys.exit(1)", r"\\xff"),
    ("pass", r"after it printed ''"),
    ("raise SystemExit(3)", r"exit code 3 and no message"),
    ("raise ValueError('boom')", r"ValueError: boom"),
    ("ready(); turn(); turn(); over('{}')", r"its result cannot be read: Field required"),
    (f"ready(); turn(); turn(); over({round_of([1000]).model_dump_json()!r}); os.abort()", r"killed by SIGABRT"),
])  # fmt: skip
def test_a_worker_that_ends_badly_is_words_and_not_an_exception(exported, monkeypatch, tmp_path: Path, body, words):
    asked = job(exported, seconds=0.5)
    worker_that(monkeypatch, tmp_path, body)
    (outcome,), _ = take([asked], random.Random(0), limit_s=0.5 if "sleep" in body else 30)
    assert isinstance(outcome, str)
    assert re.search(words, outcome)


def test_the_others_go_on_when_one_dies(exported, monkeypatch, tmp_path: Path):
    """The one whose number is 1 dies in its second turn."""
    asked = [job(exported, number=number, turns=3) for number in range(3)]
    good = round_of([1000]).model_dump_json()
    worker_that(
        monkeypatch,
        tmp_path,
        f"""
import json
number = json.loads(sys.argv[-1])["number"]
ready(); turn()
if number == 1: sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)
turn(); turn(); over({good!r})
""",
    )
    outcomes, turns = take(asked, random.Random(0), limit_s=30)
    assert [isinstance(each, room.Round) for each in outcomes] == [True, False, True]
    assert "killed by SIGKILL" in outcomes[1]
    assert (turns.count(0), turns.count(1), turns.count(2)) == (3, 1, 3)


def test_nobody_has_a_turn_while_another_one_has(exported, monkeypatch, tmp_path: Path):
    """Each worker writes when its turn begins and ends; no two turns overlap, and all are ready before the first."""
    asked = [job(exported, number=number, turns=4) for number in range(3)]
    worker_that(
        monkeypatch,
        tmp_path,
        f"""
log = open({str(tmp_path / "log")!r}, "a", buffering=1)
time.sleep(0.1); log.write("ready 0\\n"); ready()
for _ in range(4):
    assert sys.stdin.readline().strip() == "{TURN}"
    log.write(f"begin {{os.getpid()}}\\n"); time.sleep(0.02); log.write(f"end {{os.getpid()}}\\n"); print("{TURN}", flush=True)
over({round_of([1000]).model_dump_json()!r})
""",
    )
    _, turns = take(asked, random.Random(3), limit_s=30)
    events = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [word for word, _ in events] == ["ready"] * 3 + ["begin", "end"] * 12
    assert all(begin[1] == end[1] for begin, end in zip(events[3::2], events[4::2], strict=True))
    assert [sorted(turns[start : start + 3]) for start in range(0, 12, 3)] == [[0, 1, 2]] * 4
    assert turns != [0, 1, 2] * 4


def test_no_process_is_left_when_the_round_is_stopped(exported, monkeypatch, tmp_path: Path):
    asked = [job(exported, number=number) for number in range(2)]
    worker_that(monkeypatch, tmp_path, f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n'); ready(); time.sleep(600)")
    calls = []

    def interrupted(*_, **__):
        calls.append(1)
        raise KeyboardInterrupt

    from toolkit.processes import Speaking

    monkeypatch.setattr(Speaking, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take(asked, random.Random(0), limit_s=30)
    assert calls == [1]
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists() or sys.platform != "linux"


def test_every_round_of_every_arm_is_a_process_of_its_own(exported_copy, monkeypatch, tmp_path: Path):
    """Workers that give their process id as the time of the first call."""
    text = repr(round_of([1000] * 20).model_dump())
    worker_that(
        monkeypatch,
        tmp_path,
        f"""
import json
job = json.loads(sys.argv[-1])
ready()
for _ in range(job["turns"]): turn()
over(json.dumps({{**{text}, "first_call_ns": os.getpid()}}))
""",
    )
    found = room.bench(exported_copy, runtimes=["torch-cpu", "onnxruntime-cpu", "null"], options=QUICK)
    assert [arm.error for arm in found.arms] == [None] * 3
    processes = [each.first_call_ns for arm in found.arms for each in arm.rounds]
    assert len({*processes, os.getpid()}) == 2 * 3 + 1


def test_a_file_in_the_users_folder_is_not_imported_in_place_of_the_library(exported, monkeypatch, tmp_path: Path):
    asked = job(exported)
    for name in ("random", "numpy", "toolkit"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file of the user')\n")
    monkeypatch.chdir(tmp_path)
    (outcome,), turns = take([asked], random.Random(0))
    assert isinstance(outcome, room.Round)
    assert turns == [0] * asked.turns


@pytest.mark.skipif(sys.platform != "linux", reason="where the size of the parent survives exec")
def test_peak_memory_of_a_round_is_not_that_of_the_process_that_started_it(exported):
    held = np.ones(400 << 20, np.uint8)
    (found,), _ = take([job(exported)], random.Random(0))
    assert isinstance(found, room.Round)
    assert 1 << 20 < found.peak_memory_bytes < held.nbytes / 2


def test_a_worker_whose_starter_is_gone_ends(exported, tmp_path: Path):
    """Its standard input ends: nobody will give it a turn any more."""
    import subprocess

    asked = job(exported, runtime="null")
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.bench", asked.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while process.stdout.readline().strip() != READY.encode() and time.monotonic() < deadline:
        pass
    _, err = process.communicate(timeout=60)  # closes its input
    assert process.returncode == 2
    assert b"whoever started it is gone" in err
