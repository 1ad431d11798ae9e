"""`--nproc`: one run by several processes from the command line, of which one writes, and a clear end when one dies."""

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
from toolkit.training.launcher import _importance

FLAGS = (
    "--device", "cpu", "--epochs", "2", "--set", "train.subset=320", "--set", "train.batch_size=32", "--set", "train.shift=1",
    "--set", "train.lr=0.02",
)  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(workspace, *flags: str) -> list[str]:
    return [sys.executable, "-m", "toolkit", "train", f"{workspace.folder}{os.sep}", *FLAGS, *flags]


def toolkit(workspace, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(workspace, *flags), capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)


def started(workspace, *flags: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(workspace, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **options
    )


def begun(workspace, *flags: str) -> subprocess.Popen[str]:
    """Under way, and a checkpoint to go on from is there."""
    process, deadline = started(workspace, *flags), time.monotonic() + 120
    while not (workspace.checkpoint / "resume.pt").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def losses(workspace):
    return [record["loss"] for line in workspace.metrics.read_text().splitlines() if "loss" in (record := json.loads(line))]


def test_two_processes_take_the_steps_of_one(fresh):
    """Batch-norm and all: the losses agree within 1e-3, weights and statistics within 5e-3; one file is written, by one process."""
    alone = toolkit(fresh, "--json")
    assert alone.returncode == 0, alone.stderr
    one, first = losses(fresh), Checkpoint.open(fresh.checkpoint)
    weights = first.weights()
    both = toolkit(fresh, "--json", "--nproc", "2", "--restart")
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


def test_a_run_of_two_goes_on_and_ends_as_if_it_had_never_been_stopped(fresh):
    """Told to stop by SIGTERM and taken up by two processes again: the very weights, for a sum of two has but one order."""
    flags = ("--nproc", "2", "--epochs", "12", "--save-minutes", "0")
    process = begun(fresh, *flags)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert not Checkpoint.open(fresh.checkpoint).card.finished
    again = toolkit(fresh, *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert "first step" not in again.stderr  # it went on, and did not begin anew
    found = Checkpoint.open(fresh.checkpoint).weights()
    undisturbed = toolkit(fresh, *flags, "--restart")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert all(torch.equal(tensor, found[name]) for name, tensor in Checkpoint.open(fresh.checkpoint).weights().items())


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


def test_ctrl_c_reaches_all_processes_and_saves(fresh):
    """Within the first epoch, where nothing else would have written a checkpoint."""
    process = started(
        fresh, "--nproc", "2", "--epochs", "2", "--set", "train.subset=1437", "--set", "train.batch_size=2",
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
    assert 0 < card.epochs_done < 1


def test_processes_whose_launcher_is_killed_save_and_end(fresh):
    """Nobody else would stop them: they trained on, and kept the model's folder from everybody."""
    process = begun(fresh, "--nproc", "2", "--epochs", "4000", "--save-minutes", "0")
    ranks = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert len(ranks) >= 2
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
    assert not Checkpoint.open(fresh.checkpoint).card.finished
