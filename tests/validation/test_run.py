"""Workers answer for validation: in shares, in order, and what does not fit is not used. How workers end: tests/workers/."""

import numpy as np
import psutil
import pytest

from tests.validation.conftest import cli, path_of
from tests.workers.scripted import SCRIPT, TASK
from toolkit.artifact import Artifact
from toolkit.limits import Limits
from toolkit.validation import run as room
from toolkit.validation.run import answers_or_reason, interfaces, run
from toolkit.validation.worker import Answers, Job, rows_of
from toolkit.workers import Message, WireError, WorkerLost, call

IMAGES = np.zeros((10, 1, 28, 28), np.uint8)
GOLDEN = np.zeros((1, 1, 28, 28), np.float32)
JOB = Job(folder="nowhere", runtime="torch-cpu", golden=GOLDEN, classes=3)


@pytest.fixture
def worker(monkeypatch):
    """Runs `script` in place of the task; the worker and its process are real."""

    def replace(script: str) -> None:
        monkeypatch.setenv(SCRIPT, script)
        monkeypatch.setattr(room, "call", lambda task, *given, **named: call(TASK, *given, **named))

    return replace


def test_a_worker_that_dies_is_a_reason(worker):
    worker("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert answers_or_reason(JOB, IMAGES, Limits(), True, lambda done: None) == "its process was killed by SIGKILL; it said nothing"


def test_a_job_arrives_with_its_images(worker):
    worker(
        "from toolkit.validation.worker import Job\njob, images = Job.of(request)\n"
        "raise SystemExit(f'{job.runtime} {job.classes} {job.pictures} {job.golden.shape} {images.dtype} {images.shape}')"
    )
    assert "torch-cpu 3 () (1, 1, 28, 28) uint8 (10, 1, 28, 28)" in str(answers_or_reason(JOB, IMAGES, Limits(), True, lambda done: None))


def test_several_workers_may_use_no_more_memory_than_one(monkeypatch):
    seen = []
    monkeypatch.setattr(
        room, "_isolated", lambda job, images, limits, *_: seen.append(limits.memory_bytes) or answers(np.zeros((len(images), 3)))
    )
    run(JOB, IMAGES, Limits(memory_bytes=1 << 30, jobs=4), True, lambda done: None)
    assert seen == [1 << 28] * 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_when_one_worker_is_lost_the_others_are_stopped(worker, tmp_path, jobs):
    worker(
        f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
        f"while len(os.listdir({str(tmp_path)!r})) < {jobs}: time.sleep(0.05)\n"
        f"if str(os.getpid()) == min(os.listdir({str(tmp_path)!r})): raise SystemExit(9)\ntime.sleep(600)"
    )
    with pytest.raises(WorkerLost):
        run(JOB, IMAGES, Limits(jobs=jobs), True, lambda done: None)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == jobs
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def answers(logits: np.ndarray, seconds: float = 1.0) -> Answers:
    logits = logits.astype(np.float32)
    few = logits[:1]
    return Answers(
        logits=logits, probabilities=logits, golden=few, golden_probabilities=few, singly=few, backwards=few, pictures=few[:0], app=few[:0],
        shapes=(("1", "(1, 3)"),), refusals=(("another size", "refused: no"),), seconds=seconds, pixels=few[:0],
    )  # fmt: skip


def test_answers_survive_the_way_between_processes():
    sent = answers(np.arange(12).reshape(4, 3))
    found = Answers.of(sent.message(), rows_of(JOB, 4), 3)
    assert {name: np.asarray(value).tolist() for name, value in vars(found).items()} == {
        name: np.asarray(value).tolist() for name, value in vars(sent).items()
    }


@pytest.mark.parametrize("changed", [
    {"logits": np.zeros((4, 9), np.float32)}, {"logits": np.zeros((5, 3), np.float32)}, {"logits": np.zeros((4, 3))},
    {"logits": np.zeros(12, np.float32)}, {"logits": np.float32(1)}, {"golden": np.zeros((2, 3), np.float32)},
    {"labels": np.array(["a"])}, {"labels": np.zeros(4, np.float32)}, {"pixels": np.zeros((1, 3), np.float32)},
    {"backwards": np.zeros((0, 3), np.float32)}, {"more": np.zeros(3)}, {"probabilities": None},
    {"shapes": [["1"]]}, {"shapes": "x"}, {"refusals": [[1, 2]]}, {"seconds": "soon"}, {"seconds": None}, {"also": 1},
], ids=lambda changed: str(changed)[:40])  # fmt: skip
def test_answers_that_do_not_fit_are_refused(changed):
    whole = answers(np.zeros((4, 3))).message()
    arrays, fields = dict(whole.arrays), dict(whole.fields)
    for name, value in changed.items():
        if value is None:
            (arrays if name in arrays else fields).pop(name)
        elif isinstance(value, np.ndarray | np.generic):
            arrays[name] = np.asarray(value)
        else:
            fields[name] = value
    with pytest.raises(WireError):
        Answers.of(Message(fields, arrays), rows_of(JOB, 4), 3)


def test_answers_of_a_worker_that_do_not_fit_are_a_reason(worker):
    worker("import numpy as np; result = Message({'seconds': 1}, {'logits': np.zeros(3)})")
    assert "gave answers that do not fit" in answers_or_reason(JOB, IMAGES, Limits(), True, lambda done: None)


@pytest.mark.parametrize("jobs", [1, 3, 20])
def test_shards_are_joined_in_order_and_progress_adds_up(monkeypatch, jobs):
    images = np.arange(10, dtype=np.uint8)[:, None, None, None]

    def ask(job: Job, images, update) -> Answers:
        mine = images[:, 0, 0, 0].astype(np.float32)
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
    answers, digests = zip(*(each.out.rsplit("digest: ", 1) for each in (first, second)), strict=True)
    assert answers[0] == answers[1]
    assert digests[0] != digests[1]  # the report says how long it took


def test_one_worker_reads_what_all_files_say_of_themselves(exported):
    folders = [exported.exports / name for name in ("onnx-fp32", "coreml-fp16")]
    assert interfaces(folders, Limits(), True) == interfaces(folders, Limits(), False)
    assert interfaces([], Limits(), True) == []


def test_a_file_that_takes_its_reader_down_is_named_and_the_others_are_read(worker):
    """The worker dies of any folder whose name ends with `bad`."""
    worker(
        "import os\nif any(each.endswith('bad') for each in request.fields['folders']): os.abort()\n"
        "result = Message({'found': ['read' for each in request.fields['folders']]})"
    )
    from pathlib import Path

    first, bad, last = interfaces([Path("one"), Path("bad"), Path("two")], Limits(), True)
    assert (first, last) == ("read", "read")
    assert "bad: its file took down the process that read it: its process was killed by SIGABRT" in str(bad)


def test_what_a_file_says_arrives_as_it_was_said(exported):
    from toolkit.validation.interface import read

    artifact = Artifact.open(exported.exports / "coreml-fp16")
    assert interfaces([artifact.folder], Limits(), True) == [read(artifact)]
