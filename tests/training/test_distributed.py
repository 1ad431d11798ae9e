"""Several processes are one run: the same steps as one process alone, one that writes, and a clear end when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.devices import BACKENDS
from toolkit.errors import DeviceError
from toolkit.training.distributed import LostRank, Ranks, _importance, joined, launched
from toolkit.training.loop import steps_per_epoch

FLAGS = (
    "--device",
    "cpu",
    "--set",
    "train.subset=320",
    "--set",
    "train.batch_size=32",
    "--epochs",
    "2",
    "--set",
    "train.shift=1",
    "--set",
    "train.lr=0.02",
)


def toolkit(workspace, *flags: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit", "train", f"{workspace.folder}{os.sep}", *FLAGS, *flags]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options
    )


def begun(workspace, *flags: str) -> subprocess.Popen[str]:
    """Under way, and a checkpoint to go on from is there."""
    command = [sys.executable, "-m", "toolkit", "train", f"{workspace.folder}{os.sep}", *FLAGS, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (workspace.checkpoint / "resume.pt").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def losses(workspace):
    return [record["loss"] for line in workspace.metrics.read_text().splitlines() if "loss" in (record := json.loads(line))]


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


@pytest.mark.parametrize(("images", "ranks", "steps"), [(66, 1, 5), (66, 2, 5), (66, 3, 4), (64, 3, 4), (67, 3, 5)])
def test_a_last_batch_that_leaves_a_process_without_an_image_is_dropped(images, ranks, steps):
    assert steps_per_epoch(images, 16, ranks) == steps


def test_a_batch_system_that_only_counts_has_not_launched_us(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launched()


def test_mps_cannot_be_shared(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match="MPS has one device"), joined(BACKENDS["mps"]):
        pass


def test_two_processes_take_the_steps_of_one(fresh, tmp_path):
    """Batch-norm and all: the losses agree within 1e-3, weights and statistics within 5e-3; one file is written, by one process."""
    alone = toolkit(fresh, "--json")
    assert alone.returncode == 0, alone.stderr
    one, first = losses(fresh), Checkpoint.open(fresh.checkpoint)
    weights = first.weights()
    both = toolkit(fresh, "--json", "--nproc", "2")
    assert both.returncode == 0, both.stderr
    assert "2 processes" in both.stderr
    assert both.stderr.count("device: cpu") == 1
    assert "Warning" not in both.stderr
    assert losses(fresh) == pytest.approx(one, abs=1e-3)
    found = Checkpoint.open(fresh.checkpoint)
    for name, tensor in found.weights().items():
        torch.testing.assert_close(tensor, weights[name], atol=5e-3, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}")
    result, before = json.loads(both.stdout), json.loads(alone.stdout)
    assert abs(result["metrics"]["test_correct"] - before["metrics"]["test_correct"]) <= 3
    assert result["metrics"]["test_images"] == 360


IN_FLOAT64 = """
import json
import sys
import torch
from toolkit.data import load
from toolkit.devices import BACKENDS
from toolkit.networks import build
from toolkit.recipe import Recipe
from toolkit.training.distributed import joined
from toolkit.training.loop import Run
from toolkit.workspace import Workspace

def figures(ranks):  # a function, so that nothing of it lives when the interpreter goes down
    recipe, data = Recipe.read(Workspace.of(sys.argv[1]).recipe, ["train.epochs=1", "train.ema=0.9", "train.rotate=10"]), load("digits")
    torch.manual_seed(0)
    run = Run(build(recipe, 10).double(), data.train_images, data.train_labels, recipe.train, BACKENDS["cpu"], ranks)
    losses = [each.loss for each in run.figures()]
    weights = torch.cat([tensor.flatten().double() for tensor in run.result.state_dict().values()])
    return [*losses, float(weights.norm())]

with joined(BACKENDS["cpu"]) as ranks:
    found = figures(ranks)
    if ranks.leads:
        print(json.dumps(found))
"""


def test_in_float64_two_processes_take_the_very_steps_of_one(fresh, tmp_path):
    """What rounding hides in fp32 would be seen here: losses, and the norm of all weights and statistics, to eleven digits."""
    program = tmp_path / "program.py"
    program.write_text(IN_FLOAT64)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc-per-node", "2"]):
        command = [sys.executable, *launcher, str(program), str(fresh.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert len(found[0]) > 3
    assert found[1] == pytest.approx(found[0], rel=1e-11)


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

distributed.destroy_process_group = destroy
workspace = Workspace.of(sys.argv[1])
train(workspace, Recipe.read(workspace.recipe, ["train.subset=64", "train.epochs=1"]), device="cpu")
sys.stdout.write(f"threads of gloo: {during > 0} {of_gloo()}\\n")  # at once: two write
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the names of threads")
def test_no_thread_of_gloo_outlives_a_run(fresh, tmp_path):
    """One that lets go of a tensor while the interpreter goes down aborts the process, with all of its work done."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(program), str(fresh.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("threads of gloo: True 0") == 2


def test_a_process_that_dies_ends_the_job_with_one_message_and_the_run_can_go_on(fresh):
    flags = ("--nproc", "2", "--epochs", "400", "--save-minutes", "0")
    process = begun(fresh, *flags)
    ranks = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    assert len(ranks) == 1
    ranks[0].send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "rank 1 of 2 was killed by SIGKILL, and the others were stopped" in err
    assert "--resume goes on from it" in err
    assert err.count("toolkit: ") == 1
    assert "Traceback" not in err
    card = Checkpoint.open(fresh.checkpoint).card
    assert not card.finished
    assert card.epochs_done > 0
    another = toolkit(fresh, "--epochs", "400", "--nproc", "2", "--resume", "--set", "train.lr=0.03")
    assert another.returncode == 2
    assert another.stderr.count("another recipe") == 1  # said once, not by every process
    assert "Traceback" not in another.stderr
    assert "ended with exit code" not in another.stderr


def test_a_run_of_two_goes_on_and_ends(fresh):
    """Told to stop by SIGTERM, taken up by two processes again, and as good as one that was never stopped."""
    flags = ("--nproc", "2", "--epochs", "12", "--save-minutes", "0")
    process = begun(fresh, *flags)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert not Checkpoint.open(fresh.checkpoint).card.finished
    again = toolkit(fresh, *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert "first step" not in again.stderr  # it went on, and did not begin anew
    found = losses(fresh)
    alone = toolkit(fresh, "--epochs", "12")
    assert alone.returncode == 0, alone.stderr
    assert found[-1] == pytest.approx(losses(fresh)[-1], abs=1e-2)


def test_two_seeds_of_two_processes(fresh):
    done = toolkit(fresh, "--nproc", "2", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("seed 1 (2 of 2)") == 1
    assert list(json.loads(done.stdout)["runs"]) == ["0", "1"]
    assert Checkpoint.open(fresh.checkpoint).card.seed == 0
    assert "Traceback" not in done.stderr


def test_a_missing_goal_of_two_processes_is_exit_code_1(fresh):
    done = toolkit(fresh, "--nproc", "2", "--epochs", "0.1", "--until-accuracy", "99.9")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "toolkit: " not in done.stderr
    assert "FAILED" in done.stdout
    assert "held_out_accuracy" in Checkpoint.open(fresh.checkpoint).card.metrics


@pytest.mark.parametrize(("failures", "cause"), [
    ({0: (1, "lost", 5), 1: (-9, None, 6)}, 1),  # one that lost the others is no cause
    ({0: (-15, None, 5), 1: (2, "said", 6)}, 1),  # nor one that was stopped because of them
    ({0: (1, None, 6), 1: (1, None, 5)}, 1),  # the earliest
])  # fmt: skip
def test_the_cause_is_named_and_not_what_followed_from_it(failures, cause):
    def failure(exitcode, said, timestamp):
        message = {"message": said, "lost": said == "lost"} if said else "no reply"
        return SimpleNamespace(exitcode=exitcode, error_file_data={"message": message}, timestamp=timestamp)

    found = {rank: failure(*each) for rank, each in failures.items()}
    assert min(found, key=lambda rank: _importance(found[rank])) == cause


def test_a_rank_that_lost_the_others_says_so_and_any_other_error_stays(monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda _: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(LostRank, match="rank 1 lost the others"), joined(BACKENDS["cpu"]):
        raise RuntimeError("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), joined(BACKENDS["cpu"]):
        raise RuntimeError("shapes do not fit")


def test_ctrl_c_reaches_all_processes_and_saves(fresh):
    flags = ("--nproc", "2", "--epochs", "400")
    command = [sys.executable, "-m", "toolkit", "train", f"{fresh.folder}{os.sep}", *FLAGS, *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (not fresh.metrics.is_file() or len(losses(fresh)) < 3) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    card = Checkpoint.open(fresh.checkpoint).card
    assert not card.finished
    assert card.epochs_done > 0
