"""Several processes of torchrun are one validation: the images are shared, the first one speaks and writes, and none outlives the end."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.validation.conftest import cli, path_of
from tests.validation.test_run import answers
from toolkit.environment import describe
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.ranks import Ranks
from toolkit.validation import Limits, ValidationResult
from toolkit.validation.sharing import Crew, Dismissed, shared
from toolkit.validation.worker import Job

IMAGE = np.zeros((1, 1, 1, 1), np.float32)
JOB = Job(folder="nowhere", runtime="torch-cpu", golden=IMAGE, classes=3, pictures=("of rank 0",), pixels=IMAGE)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
RESULT = ValidationResult.model_construct(model="tiny")


@dataclass
class Table:
    size: int
    parts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts, self.all_here = [None] * self.size, threading.Barrier(self.size, timeout=30)


@dataclass(frozen=True)
class Seat(Ranks):
    """One of several ranks that are threads."""

    table: Table | None = None

    def deal(self, parts=()):
        if self.leads:
            self.table.parts[:] = parts
        return self._pass(lambda: self.table.parts[self.rank])

    def collect(self, part):
        self.table.parts[self.rank] = part
        return self._pass(lambda: list(self.table.parts) if self.leads else [])

    def be_patient(self, seconds):
        assert seconds == 3600 + 3600

    def _pass(self, take):
        self.table.all_here.wait()
        taken = take()
        self.table.all_here.wait()
        return taken


class Together:
    """Calls `shared` in so many threads, each of them a rank. `ended`: what it came to on each; `environments`: rank → name → value."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seat, self.environments, self.ended = threading.local(), dict[int, dict[str, str]](), list[Any]()
        monkeypatch.setattr("toolkit.validation.sharing.describe", lambda: self.environments.get(self.seat.ranks.rank, describe()))

    def __call__(self, size: int, validation: Callable[[Crew], ValidationResult]) -> list[Any]:
        table, self.ended = Table(size), [None] * size
        ranks = [threading.Thread(target=self._rank, args=(Seat(rank, size, table=table), validation)) for rank in range(size)]
        for thread in ranks:
            thread.start()
        for thread in ranks:
            thread.join()
        return self.ended

    def _rank(self, seat: Seat, validation: Callable[[Crew], ValidationResult]) -> None:
        self.seat.ranks = seat
        try:
            self.ended[seat.rank] = shared(validation, seat, Limits(), isolate=False)
        except (ToolkitError, OSError) as end:
            self.ended[seat.rank] = end


@pytest.fixture
def together(monkeypatch) -> Together:
    return Together(monkeypatch)


@pytest.fixture
def asked(monkeypatch) -> list[Job]:
    """Every worker's job; an answer is the image's own number."""
    jobs = []
    lock = threading.Lock()

    def ask(job: Job, images, update):
        mine = images[:, 0, 0, 0].astype(np.float32)
        with lock:
            jobs.append(job)
        if job.runtime == "no room" and job.pictures:
            raise OSError("there is no room")
        if 7 in mine and not job.pictures and job.runtime == "fails at 7":
            raise ArtifactError("seven is too many")
        assert job.golden.dtype == np.float32
        update(len(mine))
        return answers(mine[:, None] * [1, 2, 3])

    monkeypatch.setattr("toolkit.validation.run.ask", ask)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    return jobs


IMAGES = np.arange(10, dtype=np.uint8)[:, None, None, None]


@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_the_shares_of_all_ranks_are_joined_in_order(asked, together, size):
    seen = []

    def validation(crew: Crew):
        assert crew.ask(JOB, IMAGES, seen.append).logits[:, 0].tolist() == list(range(10))
        return RESULT

    assert together(size, validation) == [RESULT] * size
    assert len(asked) == min(size, 10)
    assert max(seen) == 10


def test_only_the_first_rank_is_asked_about_pictures_and_golden_images(asked, together):
    """They lie in its own temporary folder, which another machine has not."""

    def validation(crew: Crew):
        crew.ask(JOB, IMAGES, lambda done: None)
        return RESULT

    together(3, validation)
    assert sum(job.pictures == JOB.pictures and job.golden is IMAGE and job.pixels is IMAGE for job in asked) == 1
    assert sum(job.pictures == () and job.golden is not IMAGE and len(job.pixels) == 0 for job in asked) == 2


def test_a_share_without_answers_is_told_with_its_rank_and_the_ranks_go_on(asked, together):
    def validation(crew: Crew):
        assert crew.ask(replace(JOB, runtime="fails at 7"), IMAGES, lambda done: None) == "rank 2 of 3: seven is too many"
        assert len(crew.ask(JOB, IMAGES, lambda done: None).logits) == 10
        return RESULT

    assert together(3, validation) == [RESULT] * 3


@pytest.mark.parametrize("where", ["validation", "share"])
def test_the_other_ranks_are_dismissed_where_the_first_fails(asked, together, monkeypatch, where):
    """Also in the midst of its own share, where they wait to hand in theirs."""

    def validation(crew: Crew):
        if where == "share":
            job = replace(JOB, runtime="no room")
            crew.ask(job, IMAGES, lambda done: None)
        raise ArtifactError("there is no room")

    first, *others = together(3, validation)
    assert "there is no room" in str(first)
    assert type(first) is (OSError if where == "share" else ArtifactError)
    assert [type(end) for end in others] == [Dismissed] * 2


def test_another_file_in_the_same_place_is_no_share(asked, together, monkeypatch):
    """As on a machine that has a folder of its own."""
    monkeypatch.setattr("toolkit.validation.sharing._listed", lambda job: f"{together.seat.ranks.rank == 2}")

    def validation(crew: Crew):
        words = "rank 2 of 3: nowhere is not what it is on rank 0: several machines need a shared folder"
        assert crew.ask(JOB, IMAGES, lambda done: None) == words
        return RESULT

    assert together(3, validation) == [RESULT] * 3


def test_an_artifact_is_known_by_what_lists_its_files(tmp_path):
    from toolkit.validation.sharing import _listed

    job = replace(JOB, folder=str(tmp_path))
    assert _listed(job) == "missing"
    (tmp_path / "manifest.json").write_text("{}")
    assert _listed(job) == hashlib.sha256(b"{}").hexdigest()
    (tmp_path / "checkpoint.json").write_text("[]")
    assert _listed(job) == hashlib.sha256(b"[]").hexdigest()


def test_each_of_several_workers_on_a_machine_has_one_thread(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Crew(Ranks(0, 2), Limits(), True).threads == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert Crew(Ranks(0, 2), Limits(), True).threads is None
    assert Crew(Ranks(0, 2), Limits(jobs=2), True).threads == 1


@pytest.mark.parametrize(("rank", "other", "words"), [
    (1, {"onnxruntime": "0.1"}, r"rank 1 has onnxruntime 0\.1, and rank 0 \d"),
    (2, {"coremltools": None}, r"rank 2 has no coremltools, and rank 0 \d"),
    (2, {"coreai-of-tomorrow": "1.0"}, r"rank 2 has coreai-of-tomorrow 1\.0, and rank 0 none"),
])  # fmt: skip
def test_ranks_with_other_versions_are_refused(together, rank, other, words):
    """What they find would be no news about the environment that the report names."""
    together.environments[rank] = {name: value for name, value in {**describe(), **other}.items() if value is not None}
    first, *others = together(3, lambda crew: RESULT)
    assert re.match(words, str(first))
    assert [type(end) for end in others] == [Dismissed] * 2


def test_ranks_may_have_more_cores_and_memory(together):
    together.environments[1] = {**describe(), "cores": "128", "memory": "2000 GiB"}
    assert together(2, lambda crew: RESULT) == [RESULT] * 2


COUNTING = """
import sys
from toolkit.cli import main
from toolkit.validation import sharing

def counting(job, images, *rest, real=sharing.answers_or_reason):
    sys.stderr.write(f"a share of {len(images)}\\n")
    return real(job, images, *rest)

sharing.answers_or_reason = counting
main(sys.argv[1:])
"""


def test_two_processes_find_what_one_finds(exported_copy, tmp_path, capsys):
    chosen = ("--runtime", "onnxruntime-cpu", "--runtime", "torch-cpu")
    words = ("validate", path_of(exported_copy), "--limit", "50", "--no-cache", "--json", *chosen)
    assert cli(*words) == 0
    alone = json.loads(capsys.readouterr().out)
    (exported_copy.reports / "validation.json").unlink()
    program = tmp_path / "program.py"
    program.write_text(COUNTING)
    both = subprocess.run(
        [sys.executable, *TORCHRUN, str(program), *words], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("a share of 25") == 2 * len(alone["rows"])
    found = json.loads(both.stdout)  # one result: the first process speaks
    assert json.loads((exported_copy.reports / "validation.json").read_text())["rows"] == found["rows"]
    assert [_told(row) for row in found["rows"]] == [_told(row) for row in alone["rows"]]
    for key in ("reference_predictions", "test_indices", "test_labels", "artifacts"):
        assert found[key] == alone[key]
    assert [_passed(check) for check in found["checks"]] == [_passed(check) for check in alone["checks"]]


def _told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["artifact"], row["runtime"], row["indices"], row["changed"], row["figures"]["accuracy"]


def _passed(check: dict[str, Any]) -> tuple[Any, ...]:
    return check["level"], check["name"], check["artifact"], check["passed"]


@pytest.mark.parametrize(("words", "said"), [
    (("--artifact", "onnx-fp8"), "there is no artifact 'onnx-fp8'"),
    (("--runtime", "onnxruntime-npu"), "onnxruntime-npu"),
])  # fmt: skip
def test_bad_input_is_said_once_by_two_processes(exported_copy, words, said):
    words = ("validate", path_of(exported_copy), *words)
    both = subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "toolkit", *words], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    assert both.returncode != 0
    assert len([line for line in both.stderr.splitlines() if line.startswith("toolkit: ") and said in line]) == 1
    assert both.stderr.count("toolkit: ") == 1


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["alone", "torchrun"])
def test_told_to_stop_none_of_its_processes_goes_on(exported_copy, launcher):
    """SIGTERM, as a scheduler sends it. Workers are in a session of their own, and would hear nothing of it."""
    words = ("validate", path_of(exported_copy), "--no-cache", "--all-images", "--runtime", "onnx-reference")
    command = [sys.executable, *launcher, "-m", "toolkit", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    wanted, workers, deadline = 2 if launcher else 1, list[psutil.Process](), time.monotonic() + 120
    while len(workers) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = [each for each in psutil.Process(process.pid).children(recursive=True) if _is_worker(each)]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert len(workers) == wanted, err
    assert launcher or process.returncode == 130
    assert not [each for each in workers if each.is_running()]
    assert not Path(exported_copy.reports).exists()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "toolkit.workers" in process.cmdline()
    except psutil.Error:
        return False
