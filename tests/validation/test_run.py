"""A worker that dies, hangs or eats memory is a sentence, and its neighbours go on. The worker's module is replaced by a script."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.validation.conftest import cli, path_of
from toolkit.validation.run import Limits, WorkerLost, answers_or_reason, run
from toolkit.validation.worker import Answers, Job

IMAGES = np.zeros((10, 1, 28, 28), np.uint8)
JOB = Job(folder="nowhere", runtime="torch-cpu", golden="", pictures=(), threads=None)


@pytest.fixture
def worker(monkeypatch):
    """Runs `script` in place of the worker; the process and its standard streams are real."""

    def replace(script: str) -> None:
        real = subprocess.Popen

        def start(command, **options):
            assert command[1:4] == ["-P", "-m", "toolkit.validation"]
            return real([sys.executable, "-c", script, command[-1]], **options)

        monkeypatch.setattr("toolkit.processes.subprocess.Popen", start)

    return replace


@pytest.mark.parametrize(("script", "words"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "its process was killed by SIGKILL; it said nothing"),
    ("import os, sys; print('Neural Engine says no', file=sys.stderr, flush=True); os.abort()",
     "its process was killed by SIGABRT; last words: Neural Engine says no"),
    ("import sys; [print(f'line {n}', file=sys.stderr) for n in range(9)]; sys.exit(2)", "line 6; line 7; line 8"),
    ("raise SystemExit(3)", "its process ended with exit code 3 and no message"),
    ("import sys; sys.stderr.buffer.write(b'\\xff\\n'); sys.exit(1)", r"\xff"),
    ("import sys; sys.stderr.write('\\x1b[31mred\\x07'); sys.exit(1)", "�[31mred�"),
])  # fmt: skip
def test_how_a_worker_ended_is_told_with_its_last_words(worker, script, words):
    worker(script)
    with pytest.raises(WorkerLost) as lost:
        run(JOB, IMAGES, Limits(), True, lambda done: None)
    assert str(lost.value) == words
    assert answers_or_reason(JOB, IMAGES, Limits(), True, lambda done: None) == words


def test_a_worker_that_ends_well_without_answers_is_lost(worker):
    """A native library that calls exit(0)."""
    worker("raise SystemExit(0)")
    with pytest.raises(WorkerLost, match="ended well and left no answers"):
        run(JOB, IMAGES, Limits(), True, lambda done: None)


def test_a_worker_that_hangs_is_stopped_with_all_that_it_started(worker, tmp_path):
    mark = tmp_path / "alive"
    worker(
        "import subprocess, sys, time\n"
        f"touch = 'import time, pathlib\\nwhile True: time.sleep(0.05); pathlib.Path(\"{mark}\").touch()'\n"
        "subprocess.Popen([sys.executable, '-c', touch])\n"
        "print('waiting for the device', file=sys.stderr, flush=True)\ntime.sleep(600)"
    )
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=r"did not end within 1.5 s and was stopped; last words: waiting for the device"):
        run(JOB, IMAGES, Limits(seconds=1.5), True, lambda done: None)
    assert time.monotonic() - began < 60
    mark.unlink(missing_ok=True)
    time.sleep(0.3)
    assert not mark.exists()  # its child is gone as well


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_the_workers_at_once(worker, tmp_path, jobs):
    import os
    import signal
    import threading

    worker(f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(600)")
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
    timer.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(JOB, IMAGES, Limits(jobs=jobs), True, lambda done: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 60
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == jobs
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_worker_that_eats_memory_is_stopped(worker):
    worker("import time; x = bytearray(400 << 20); time.sleep(600)")
    with pytest.raises(WorkerLost, match=r"used 0\.\d GiB of memory, allowed 0\.2, and was stopped"):
        run(JOB, IMAGES, Limits(memory_bytes=200 << 20), True, lambda done: None)


def answers(logits: np.ndarray, seconds: float = 1.0) -> Answers:
    few = logits[:1]
    return Answers(
        logits=logits, probabilities=logits, golden=few, golden_probabilities=few, singly=few, backwards=few, pictures=few, app=few[:0],
        shapes=(("1", "(1, 3)"),), refusals=(("another size", "refused: no"),), seconds=seconds,
    )  # fmt: skip


def test_answers_survive_the_way_between_processes(tmp_path: Path):
    sent = answers(np.arange(12, dtype=np.float32).reshape(4, 3))
    sent.save(tmp_path / "a.npz")
    found = Answers.load(tmp_path / "a.npz")
    assert {name: np.asarray(value).tolist() for name, value in vars(found).items()} == {
        name: np.asarray(value).tolist() for name, value in vars(sent).items()
    }


@pytest.mark.parametrize("jobs", [1, 3, 20])
def test_shards_are_joined_in_order_and_progress_adds_up(monkeypatch, jobs):
    images = np.arange(10, dtype=np.uint8)[:, None, None, None]

    def ask(job: Job, update) -> Answers:
        mine = np.load(job.images)[:, 0, 0, 0].astype(np.float32)
        update(len(mine))
        return answers(mine[:, None] * [1, 2, 3])

    seen = []
    monkeypatch.setattr("toolkit.validation.run.ask", ask)
    found = run(JOB, images, Limits(jobs=jobs), False, seen.append)
    assert found.logits[:, 0].tolist() == list(range(10))
    assert max(seen) == 10


def test_the_command_line_runs_real_processes_and_then_knows_their_answers(exported_copy, capsys):
    import shutil

    shutil.rmtree(exported_copy.folder / ".cache", ignore_errors=True)
    words = ("validate", path_of(exported_copy), "--runtime", "onnxruntime-cpu", "--artifact", "onnx-fp32", "--limit", "30")
    assert cli(*words) == 0
    first = capsys.readouterr()
    assert "onnx-fp32 on onnxruntime-cpu: 30/30 images" in first.err
    assert cli(*words) == 0
    second = capsys.readouterr()
    assert "images/s" not in second.err  # nothing was run again
    assert second.out == first.out


def test_last_words_are_the_workers_own():
    """Python warns of a module that was imported before it is run: that would stand first in every message."""
    with pytest.raises(WorkerLost) as lost:
        run(JOB, IMAGES[:1], Limits(), True, lambda done: None)
    assert "RuntimeWarning" not in str(lost.value)
    assert "runpy" not in str(lost.value)
