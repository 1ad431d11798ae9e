"""Stopping and going on: an interrupted run leaves a usable checkpoint, and takes the very steps of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from toolkit.checkpoint import CARD, RESUME, WEIGHTS, Checkpoint
from toolkit.errors import CheckpointError, ToolkitError
from toolkit.networks import from_checkpoint
from toolkit.training import keep
from toolkit.workspace import alone_in


def records(workspace):
    """The records without the one figure that no two runs share."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "seconds"}
        for line in workspace.metrics.read_text(encoding="utf-8").splitlines()
    ]


WAYS = {
    "constant": (),
    "one-cycle": ('train.schedule="one-cycle"', "train.nesterov=true", "train.decay_all=false", 'train.channels_last="on"'),
    "averaged": ("train.ema=0.9", "train.rotate=10", "train.scale=0.1", "train.shear=5", "train.plain_end=0.3", "train.holdout=16"),
    "as the default": (
        'train.schedule="one-cycle"', "train.nesterov=true", "train.decay_all=false", 'train.channels_last="on"', 'train.autocast="bf16"',
        "train.label_smoothing=0.1", "train.ema=0.9", "train.shift=2", "train.rotate=12", "train.scale=0.1", "train.shear=8",
        "train.plain_end=0.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [1, 3, 4, 6])  # four steps an epoch (of the averaged three): in the middle, and at the end of one
def test_resumed_equals_uninterrupted_bit_for_bit(fresh, short, weights_of, interrupt_after, monkeypatch, way, steps):
    overrides = (*WAYS[way], "train.epochs=2.5", "train.flip=true")
    whole = short(fresh, *overrides)
    weights, log = weights_of(fresh), records(fresh)
    interrupt_after(steps)
    assert not short(fresh, *overrides).finished
    monkeypatch.undo()
    again = short(fresh, *overrides, resume=True)
    assert again.finished
    found = weights_of(fresh)
    assert all(torch.equal(weights[name], found[name]) for name in weights)
    assert again.metrics == whole.metrics
    stopped_at = [record for record in records(fresh) if record not in log]
    assert [record for record in records(fresh) if record in log] == log
    assert len(stopped_at) <= 1  # one more only for the stop


@pytest.mark.parametrize("steps", [33, 40, 42])  # on the way; at a look; at an epoch's end
def test_a_goal_is_reached_after_the_same_images_wherever_the_run_was_interrupted(
    fresh, short, weights_of, interrupt_after, monkeypatch, steps
):
    overrides = ("train.subset=1437", "train.batch_size=32", "train.epochs=30", "train.lr=0.1", "train.until_accuracy=0.9")
    whole = short(fresh, *overrides)
    weights = weights_of(fresh)
    assert whole.metrics["image_visits"] > 1318  # 42 steps
    interrupt_after(steps)
    assert not short(fresh, *overrides).finished
    monkeypatch.undo()
    assert short(fresh, *overrides, resume=True).metrics == whole.metrics
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())


def test_interrupted_twice_equals_uninterrupted(fresh, short, weights_of, interrupt_after, monkeypatch):
    short(fresh)
    weights = weights_of(fresh)
    for number, steps in enumerate((2, 7)):
        interrupt_after(steps)
        short(fresh, resume=number > 0)
        monkeypatch.undo()
    short(fresh, resume=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())


def test_the_checkpoint_of_an_unfinished_run_says_so_and_is_usable(fresh, short, interrupt_after):
    interrupt_after(6)
    result = short(fresh)
    assert (result.finished, result.checkpoint) == (False, fresh.checkpoint)
    checkpoint = Checkpoint.open(fresh.checkpoint)
    assert checkpoint.card.finished is False
    assert checkpoint.card.epochs_done == 1.5
    assert "test_accuracy" not in checkpoint.card.metrics
    assert from_checkpoint(checkpoint)(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert {path.name for path in fresh.checkpoint.iterdir()} == {CARD, RESUME, WEIGHTS}


def test_a_finished_run_keeps_no_training_state(trained):
    assert {path.name for path in trained.checkpoint.iterdir()} == {CARD, WEIGHTS}


def test_records_written_after_the_checkpoint_are_not_doubled(fresh, short, interrupt_after, monkeypatch):
    """As after a crash: the log ran on, the checkpoint did not."""
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    with fresh.metrics.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 1, "step": 3, "lost": true}\n')
    short(fresh, resume=True)
    steps = [(record["epoch"], record["step"]) for record in records(fresh) if "step" in record]
    assert steps == [(0, 1), (0, 4), (1, 2), (1, 4), (2, 4)]
    assert not any("lost" in record for record in records(fresh))


def test_a_new_run_starts_a_new_log(fresh, short):
    short(fresh)
    first = records(fresh)
    short(fresh)
    assert records(fresh) == first


@pytest.fixture
def killed_at_once(short, monkeypatch):
    """A run that ends in its first step, with nothing saved."""

    class Killed(BaseException):
        pass

    def run(workspace, *overrides, **options):
        def kill(*_):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("toolkit.training.loop.augment", kill)
            with pytest.raises(Killed):
                short(workspace, *overrides, **options)

    return run


def test_a_run_killed_before_its_first_checkpoint_leaves_the_finished_one_whole_and_is_begun_again(
    fresh, short, weights_of, killed_at_once, capsys
):
    short(fresh)
    curves, weights = fresh.metrics.read_bytes(), weights_of(fresh)
    killed_at_once(fresh)
    assert fresh.metrics.read_bytes() == curves
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())
    capsys.readouterr()
    assert short(fresh, resume=True).finished
    err = capsys.readouterr().err
    assert "had saved nothing yet: beginning" in err
    assert "had already finished" not in err
    assert fresh.metrics.read_bytes() != curves  # its seconds are others
    assert not fresh.new_metrics.exists()
    assert short(fresh, resume=True).finished
    assert "had already finished" in capsys.readouterr().err


def test_records_that_cannot_take_their_place_are_one_message(fresh, short, weights_of, monkeypatch):
    short(fresh)
    weights, log = weights_of(fresh), keep.MetricsLog(fresh, None)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        log.settle()
    monkeypatch.undo()
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())


def test_a_restart_killed_before_its_first_checkpoint_leaves_the_unfinished_run_to_go_on_with(
    fresh, short, weights_of, interrupt_after, monkeypatch, killed_at_once, capsys
):
    short(fresh)
    weights, log = weights_of(fresh), records(fresh)
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    killed_at_once(fresh, restart=True)
    assert short(fresh, resume=True).finished
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())
    assert [record for record in records(fresh) if record in log] == log
    capsys.readouterr()
    short(fresh, resume=True)
    assert "had already finished" in capsys.readouterr().err


def test_a_finished_model_of_another_recipe_is_named_before_it_is_replaced(fresh, short, capsys):
    short(fresh)
    capsys.readouterr()
    short(fresh)
    assert "will be replaced" not in capsys.readouterr().err
    short(fresh, "train.lr=0.02")
    assert "(3 epochs, " in (said := capsys.readouterr().err)
    assert "will be replaced: another recipe made it" in said


def test_another_recipe_cannot_go_on(fresh, short, interrupt_after):
    interrupt_after(2)
    short(fresh)
    with pytest.raises(CheckpointError, match=r"made by another recipe.*Resume with the same flags and recipe"):
        short(fresh, "train.lr=0.2", resume=True)
    assert not Checkpoint.open(fresh.checkpoint).card.finished


def test_with_nothing_to_go_on_from_a_run_begins(fresh, short, weights_of, capsys):
    """So that one command, run again after every kill, ends the run."""
    short(fresh)
    before = weights_of(fresh)
    shutil.rmtree(fresh.checkpoint)
    assert short(fresh, resume=True).finished
    assert "nothing to resume in" in capsys.readouterr().err
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(fresh).items())


def test_an_unfinished_run_is_not_written_over_unasked(fresh, short, interrupt_after, monkeypatch, weights_of):
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    before = weights_of(fresh)
    with pytest.raises(
        CheckpointError, match=r"an unfinished run lies in .*, 1.5 of 3 epochs long\. `toolkit train --resume` goes on .* --restart"
    ):
        short(fresh)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(fresh).items())
    assert short(fresh, restart=True).finished
    assert short(fresh).finished  # a finished one is only made again


def test_two_runs_do_not_write_into_one_folder(fresh, short):
    """The second would take the first one's half-written checkpoint for what a killed run left."""
    with alone_in(fresh.folder), pytest.raises(ToolkitError, match=r"another run is training into .*tiny\. Wait for it"):
        short(fresh)
    assert short(fresh).finished


def test_going_on_elsewhere_is_said(fresh, short, interrupt_after, monkeypatch, capsys):
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    threads = torch.get_num_threads()
    card = fresh.checkpoint / CARD
    card.write_text(card.read_text().replace(f'"threads": "{threads}"', '"threads": "64"'))
    assert short(fresh, resume=True).finished
    assert f"begun with threads 64, going on with threads {threads}: close to an undisturbed run" in capsys.readouterr().err


def test_going_on_under_another_torch_is_said(fresh, short, interrupt_after, monkeypatch, capsys):
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    here = keep._versions()
    assert here["torch"] == torch.__version__
    monkeypatch.setattr(keep, "_versions", lambda: {**here, "torch": "9.9"})
    assert short(fresh, resume=True).finished
    assert f"begun with torch {torch.__version__}, going on with torch 9.9: close to" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["missing", "shape", "kind", "steps"])
def test_training_state_of_another_toolkit_or_model_is_one_message(fresh, short, interrupt_after, monkeypatch, fault):
    interrupt_after(6)
    short(fresh, "train.ema=0.9")
    monkeypatch.undo()
    path = fresh.checkpoint / RESUME
    state = torch.load(path, weights_only=True)
    if fault == "missing":
        del state["looked_at"]
    elif fault == "shape":
        state["model"] = {name: tensor[:1] for name, tensor in state["model"].items() if tensor.ndim}
    elif fault == "steps":
        state["steps"] = 5
    else:
        state["optimizer"] = 7
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"resume\.pt is not of this toolkit and this model .*--restart"):
        short(fresh, "train.ema=0.9", resume=True)


def test_training_state_beyond_all_measure_is_not_read(fresh, short, interrupt_after):
    interrupt_after(6)
    short(fresh)
    with (fresh.checkpoint / RESUME).open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(CheckpointError, match=r"resume\.pt has 1073741824 bytes"):
        short(fresh, resume=True)


def test_a_run_stopped_while_its_accuracy_was_measured_is_measured_on_resume(fresh, short, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["toolkit.training.fit"], "count_correct", stopped)
        with pytest.raises(KeyboardInterrupt):
            short(fresh, "train.epochs=1")
    card = Checkpoint.open(fresh.checkpoint).card
    assert card.finished
    assert "test_accuracy" not in card.metrics
    assert short(fresh, "train.epochs=1", resume=True).metrics["test_images"] == 360


def test_a_finished_run_is_not_trained_further(fresh, short, weights_of, capsys):
    result = short(fresh)
    before = weights_of(fresh)
    again = short(fresh, resume=True)
    assert (again.checkpoint, again.finished, again.metrics) == (result.checkpoint, True, result.metrics)
    assert "had already finished; nothing to resume" in capsys.readouterr().err
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(fresh).items())


def test_missing_training_state_is_said(fresh, short, interrupt_after):
    interrupt_after(2)
    short(fresh)
    (fresh.checkpoint / RESUME).unlink()
    with pytest.raises(CheckpointError, match=rf"has no {RESUME}.*Begin anew: --restart"):
        short(fresh, resume=True)


def test_training_state_of_other_weights_is_refused(fresh, short, interrupt_after, monkeypatch):
    interrupt_after(2)
    short(fresh)
    stale = (fresh.checkpoint / RESUME).read_bytes()
    monkeypatch.undo()
    interrupt_after(3)
    short(fresh, restart=True)
    (fresh.checkpoint / RESUME).write_bytes(stale)
    with pytest.raises(CheckpointError, match="belongs to other weights"):
        short(fresh, resume=True)


def test_within_long_epochs_a_checkpoint_is_written_by_the_clock(fresh, short, monkeypatch):
    """At every reading of the figures, not only at an epoch's end."""
    saved = []
    real = keep.save
    monkeypatch.setattr("toolkit.training.loop.LOG_STEPS", 1)
    monkeypatch.setattr(keep, "save", lambda *arguments: saved.append(arguments[3].epochs_done) or real(*arguments))
    short(fresh, "train.epochs=1", save_minutes=0.0)
    assert saved == [0.25, 0.5, 0.75, 1.0]


def start(workspace, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toolkit", "train", str(workspace.folder) + os.sep, "--device", "cpu", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_ctrl_c_saves_and_resume_ends_the_run(fresh):
    """A real SIGINT to a real process: exit 130 and a usable checkpoint, then --resume exits 0."""
    flags = ("--set", "train.subset=480", "--set", "train.batch_size=16", "--epochs", "8")
    process = start(fresh, *flags)
    deadline = time.monotonic() + 120
    while not _epochs_logged(fresh.metrics) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "told to stop: finishing this step and saving" in err
    assert "Traceback" not in err
    card = Checkpoint.open(fresh.checkpoint).card
    assert not card.finished
    assert 0 < card.epochs_done < 8
    process = start(fresh, *flags, "--resume")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    card = Checkpoint.open(fresh.checkpoint).card
    assert card.finished
    assert card.epochs_done == 8
    ended = [record["epoch"] for record in records(fresh) if record.get("epoch_ended")]
    assert ended == list(range(8))


def _epochs_logged(metrics: Path) -> bool:
    return metrics.is_file() and "epoch_ended" in metrics.read_text(encoding="utf-8")
