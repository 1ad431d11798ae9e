"""Several processes of torchrun are one validation: the images are shared, the first one speaks and writes, and none outlives the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
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
from toolkit.validation.sharing import Crew, _refuse_others
from toolkit.validation.worker import Job

JOB = Job(folder="nowhere", runtime="torch-cpu", golden="of rank 0", pictures=("of rank 0",), threads=None, pixels="of rank 0")
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

    def _pass(self, take):
        self.table.all_here.wait()
        taken = take()
        self.table.all_here.wait()
        return taken


def together(size: int, work, end: ValidationResult | None = RESULT) -> tuple[Any, list[Any]]:
    """What `work` returns on the first of so many ranks, and what the others return at the end."""
    table, ended = Table(size), [None] * (size - 1)

    def help(rank: int) -> None:
        try:
            ended[rank - 1] = Crew(Seat(rank, size, table=table), Limits(), isolate=False).help()
        except SystemExit as code:
            ended[rank - 1] = code.code

    others = [threading.Thread(target=help, args=(rank,)) for rank in range(1, size)]
    for thread in others:
        thread.start()
    first = Seat(0, size, table=table)
    found = work(Crew(first, Limits(), isolate=False))
    first.deal([end] * size)
    for thread in others:
        thread.join()
    return found, ended


@pytest.fixture
def asked(monkeypatch) -> list[Job]:
    """Every worker's job; an answer is the image's own number."""
    jobs = []
    lock = threading.Lock()

    def ask(job: Job, update):
        mine = np.load(job.images)[:, 0, 0, 0].astype(np.float32)
        with lock:
            jobs.append(job)
        if 7 in mine and not job.pictures and job.runtime == "fails at 7":
            raise ArtifactError("seven is too many")
        assert job.golden == "of rank 0" or np.load(job.golden).dtype == np.float32
        update(len(mine))
        return answers(mine[:, None] * [1, 2, 3])

    monkeypatch.setattr("toolkit.validation.run.ask", ask)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    return jobs


IMAGES = np.arange(10, dtype=np.uint8)[:, None, None, None]


@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_the_shares_of_all_ranks_are_joined_in_order(asked, size):
    seen = []
    found, ended = together(size, lambda crew: crew.ask(JOB, IMAGES, seen.append))
    assert found.logits[:, 0].tolist() == list(range(10))
    assert len(asked) == min(size, 10)
    assert max(seen) == 10
    assert ended == [RESULT] * (size - 1)


def test_only_the_first_rank_is_asked_about_pictures_and_golden_images(asked):
    """They lie in its own temporary folder, which another machine has not."""
    together(3, lambda crew: crew.ask(JOB, IMAGES, lambda done: None))
    assert sum(job.pictures == JOB.pictures and job.golden == JOB.golden and job.pixels == JOB.pixels for job in asked) == 1
    assert sum(job.pictures == () and job.golden != JOB.golden and job.pixels == "" for job in asked) == 2


def test_a_share_without_answers_is_told_with_its_rank_and_the_ranks_go_on(asked):
    from dataclasses import replace

    def work(crew: Crew):
        return crew.ask(replace(JOB, runtime="fails at 7"), IMAGES, lambda done: None), crew.ask(JOB, IMAGES, lambda done: None)

    (lost, well), _ = together(3, work)
    assert lost == "rank 2 of 3: seven is too many"
    assert len(well.logits) == 10


def test_the_other_ranks_end_quietly_where_the_first_has_no_result(asked):
    assert together(3, lambda crew: None, end=None)[1] == [0, 0]


def test_each_of_several_workers_on_a_machine_has_one_thread(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Crew(Ranks(0, 2), Limits(), True).threads == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert Crew(Ranks(0, 2), Limits(), True).threads is None
    assert Crew(Ranks(0, 2), Limits(jobs=2), True).threads == 1


def test_ranks_with_other_versions_are_refused():
    """What they find would be no news about the environment that the report names."""
    here = describe()
    _refuse_others([here, {**here, "cores": "128", "memory": "2000 GiB"}])
    with pytest.raises(ToolkitError, match=r"rank 1 has onnxruntime 0\.1, and rank 0 \d"):
        _refuse_others([here, {**here, "onnxruntime": "0.1"}])
    with pytest.raises(ToolkitError, match=r"rank 2 has torch not, and rank 0 2"):
        _refuse_others([here, here, {name: value for name, value in here.items() if name != "torch"}])


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


def test_bad_input_is_said_once_by_two_processes(exported_copy):
    words = ("validate", path_of(exported_copy), "--artifact", "onnx-fp8")
    both = subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "toolkit", *words], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    assert both.returncode != 0
    assert both.stderr.count("there is no artifact 'onnx-fp8'") == 1
    assert "rank 1 lost" not in both.stderr


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
        return "toolkit.validation" in process.cmdline()
    except psutil.Error:
        return False
