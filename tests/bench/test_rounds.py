"""A round: processes side by side that take turns, whatever becomes of one of them; nothing is left when it is over."""

import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.conftest import round_of
from tests.workers.scripted import SCRIPT, TASK
from toolkit import bench as room
from toolkit.bench import Options, rounds
from toolkit.bench.arms import of_model
from toolkit.bench.rounds import take
from toolkit.bench.worker import END, READY, SERIES, TURN
from toolkit.workers import Worker
from toolkit.workspace import Workspace

QUICK = Options(preset="quick")


def job(workspace: Workspace, runtime: str = "null", **changed):
    (plan, *_), _, _ = of_model(workspace, [runtime], None, QUICK, workspace.folder)
    return plan.job(0, QUICK).model_copy(update=changed)


def worker_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Puts a program in the task's place; `ready()`, `turn()` and `over(fields)` are its part of the talk, `job` its job."""
    prelude = f"""
import os, signal, sys, time
import numpy as np
job = request.fields
def ready(): link.tell({READY!r})
def turn(): link.hear({TURN!r}); link.tell({TURN!r})
def over(fields):
    global result
    link.hear({END!r})
    result = Message(fields, {{name: np.array([1000], np.int64) for name in {SERIES!r}}})
"""
    monkeypatch.setenv(SCRIPT, prelude + body)
    monkeypatch.setattr(rounds, "ROUND", TASK)


def fields_of(samples_ns: list[int]) -> dict:
    return round_of(samples_ns).model_dump(mode="json", exclude=set(SERIES))


@pytest.mark.parametrize(("body", "words"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL; it said nothing"),
    ("ready(); turn(); os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL; it said nothing"),
    ("print('compiling', file=sys.stderr, flush=True); os.abort()", r"SIGABRT; last words: compiling"),
    ("time.sleep(60)", r"did not answer within 3.5 s and was stopped"),
    ("ready(); turn(); print('busy', file=sys.stderr, flush=True); time.sleep(60)", r"did not answer within 3.5 s .*last words: busy"),
    ("print('hello')", r"its answer was 'result' where 'ready' had to come"),
    ("ready(); link.tell('else')", r"its answer was 'else' where 'turn' had to come"),
    ("ready(); os._exit(0)", r"ended well and gave no result; last words: none"),
    ("raise ValueError('boom')", r"ValueError: boom"),
    ("ready(); turn(); turn(); over({})", r"its result cannot be read: Field required"),
    ("ready(); turn(); turn(); link.hear('end'); result = Message({}, {'samples_ns': np.zeros(3)})", "a round has the series"),
    (f"ready(); turn(); turn(); over({fields_of([1000])!r}); link.send('result', result); os.abort()", r"killed by SIGABRT"),
])  # fmt: skip
def test_a_worker_that_ends_badly_is_words_and_not_an_exception(exported, monkeypatch, tmp_path: Path, body, words):
    asked = job(exported, seconds=0.5)
    worker_that(monkeypatch, tmp_path, body)
    (outcome,), _ = take([asked], random.Random(0), limit_s=2.5 if "sleep" in body else 30)
    assert isinstance(outcome, str)
    assert re.search(words, outcome)


def test_the_others_go_on_when_one_dies(exported, monkeypatch, tmp_path: Path):
    """The one whose number is 1 dies in its second turn."""
    asked = [job(exported, number=number, turns=3) for number in range(3)]
    worker_that(
        monkeypatch,
        tmp_path,
        f"""
ready(); turn()
if job["number"] == 1: link.hear({TURN!r}); os.kill(os.getpid(), signal.SIGKILL)
turn(); turn(); over({fields_of([1000])!r})
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
    link.hear({TURN!r})
    log.write(f"begin {{os.getpid()}}\\n"); time.sleep(0.02); log.write(f"end {{os.getpid()}}\\n"); link.tell({TURN!r})
over({fields_of([1000])!r})
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

    monkeypatch.setattr(Worker, "tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take(asked, random.Random(0), limit_s=30)
    assert calls == [1]
    for pid in (tmp_path / "pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists() or sys.platform != "linux"


def test_every_round_of_every_arm_is_a_process_of_its_own(exported_copy, monkeypatch, tmp_path: Path):
    """Workers that give their process id as the time of the first call."""
    worker_that(
        monkeypatch,
        tmp_path,
        f"""
ready()
for _ in range(job["turns"]): turn()
over({{**{fields_of([1000])!r}, "first_call_ns": os.getpid()}})
""",
    )
    found = room.bench(exported_copy, runtimes=["torch-cpu", "onnxruntime-cpu", "null"], options=QUICK)
    assert [arm.error for arm in found.arms] == [None] * 3
    processes = [each.first_call_ns for arm in found.arms for each in arm.rounds]
    assert len({*processes, os.getpid()}) == 2 * 3 + 1


@pytest.mark.skipif(sys.platform != "linux", reason="where the size of the parent survives exec")
def test_peak_memory_of_a_round_is_not_that_of_the_process_that_started_it(exported):
    held = np.ones(400 << 20, np.uint8)
    (found,), _ = take([job(exported)], random.Random(0))
    assert isinstance(found, room.Round)
    assert 1 << 20 < found.peak_memory_bytes < held.nbytes / 2


def test_a_file_that_asks_for_more_memory_than_is_allowed_is_stopped_before_it_is_ready(exported, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TOOLKIT_MEMORY_LIMIT", "0.2")
    worker_that(monkeypatch, tmp_path, "x = bytearray(400 << 20); time.sleep(600)")
    (outcome,), _ = take([job(exported)], random.Random(0), limit_s=30)
    assert re.search(r"used 0\.\d GiB of memory, allowed 0\.2, and was stopped", outcome)


def test_one_that_asks_for_it_in_its_turn_is_stopped_as_well(exported, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TOOLKIT_MEMORY_LIMIT", "0.2")
    worker_that(monkeypatch, tmp_path, "ready(); link.hear('turn'); x = bytearray(400 << 20); time.sleep(600)")
    (outcome,), _ = take([job(exported)], random.Random(0), limit_s=30)
    assert re.search(r"used 0\.\d GiB of memory, allowed 0\.2, and was stopped", outcome)
