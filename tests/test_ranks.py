"""Several processes that torch's launcher has started: who leads, what is shared, and a clean end."""

import os
import subprocess
import sys

import pytest
import torch

from toolkit.devices import BACKENDS
from toolkit.errors import DeviceError
from toolkit.ranks import LostRank, Ranks, joined, launched


def test_a_batch_is_shared_without_rest_or_overlap():
    batch = torch.arange(11)
    parts = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(11))


def test_one_process_alone_needs_nobody():
    with joined(BACKENDS["cpu"]) as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.leads
        assert ranks.any(True)
        assert not ranks.any(False)
        assert torch.equal(ranks.sum(torch.arange(3)), torch.arange(3))


def test_a_batch_system_that_only_counts_has_not_launched_us(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launched()


def test_mps_cannot_be_shared(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match="MPS has one device"), joined(BACKENDS["mps"]):
        pass


PROGRAM = """
import sys
from pathlib import Path
from torch import distributed
from toolkit.recipe import Recipe
from toolkit.training import train
from toolkit.workspace import Workspace

def of_gloo():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

def destroy(real=distributed.destroy_process_group):
    global during
    during = of_gloo()
    real()

def fail(*_):
    raise OSError("a disk that nobody thought of")

distributed.destroy_process_group = destroy
if sys.argv[2] == "fails":
    sys.modules["toolkit.training.fit"].check_weights = fail
workspace = Workspace.of(sys.argv[1])
try:
    train(workspace, Recipe.read(workspace.recipe, ["train.subset=64", "train.epochs=1"]), device="cpu")
except OSError as failed:
    error = failed  # and with it every frame that it came through
sys.stdout.write(f"threads of gloo: {during > 0} {of_gloo()}\\n")  # at once: two write
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the names of threads")
@pytest.mark.parametrize("end", ["ends", "fails"])
def test_no_thread_of_gloo_outlives_a_run(fresh, tmp_path, end):
    """One that lets go of a tensor while the interpreter goes down aborts the process, with all of its work done; and waiting for one
    while holding Python's lock can last for ever, as in a process group that only the model of a failed run keeps.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program), str(fresh.folder), end]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("threads of gloo: True 0") == 2


AGAIN = """
import sys
import time
from pathlib import Path
from toolkit.devices import BACKENDS
from toolkit.ranks import joined

kept = []
for number in range(3):
    with joined(BACKENDS["cpu"]) as ranks:
        ranks.be_patient(1e300)
        assert ranks.collect(ranks.rank * 10) == ([0, 10] if ranks.leads else [])
        assert ranks.deal([5, 6]) == 5 + ranks.rank
        assert ranks.any(ranks.leads)
        kept.append(ranks)
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert "gloo" not in "".join(threads), threads
    time.sleep(0.2 if ranks.leads else 0)  # the other one is there first
sys.stdout.write("met three times\\n")
"""


def test_processes_may_meet_again(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(AGAIN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met three times") == 2


def test_a_rank_that_lost_the_others_says_so_and_any_other_error_stays(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([(torch.distributed.HashStore(), 1, 2)]))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(LostRank, match="rank 1 lost the others"), joined(BACKENDS["cpu"]):
        raise RuntimeError("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), joined(BACKENDS["cpu"]):
        raise RuntimeError("shapes do not fit")
