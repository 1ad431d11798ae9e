"""Stopping and going on: an interrupted run leaves a usable checkpoint, and takes the very steps of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from toolkit.checkpoint import CARD, RESUME, WEIGHTS, Checkpoint
from toolkit.errors import CheckpointError
from toolkit.networks import from_checkpoint
from toolkit.training import keep

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
def test_resumed_equals_uninterrupted_bit_for_bit(fresh, short, weights_of, interrupt_after, monkeypatch, way, steps, records):
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


def test_records_written_after_the_checkpoint_are_not_doubled(fresh, short, interrupt_after, monkeypatch, records):
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


BROKEN = {
    "visits in words": {"visits": "many"}, "records before the first": {"records": -1}, "seconds without end": {"seconds": float("inf")},
    "a step beyond the epoch": {"step": 4}, "an epoch beyond the run": {"epoch": 3, "step": 0}, "no epoch at all": {"epoch": float("inf")},
    "updates undone": {"updates": -10}, "updates in words": {"updates": "many"}, "three totals": {"totals": torch.zeros(3)},
}  # fmt: skip


@pytest.mark.parametrize("fault", [
    "optimizer", "schedule", "epoch", "step", "steps", "totals", "model", "updates", "records", "visits", "seconds", "looked_at",  # missing
    *("shape", "kind", "other steps"), *BROKEN,
])  # fmt: skip
def test_training_state_of_another_toolkit_or_model_is_one_message(fresh, short, interrupt_after, monkeypatch, fault):
    interrupt_after(6)
    short(fresh, "train.ema=0.9")
    monkeypatch.undo()
    path = fresh.checkpoint / RESUME
    state = torch.load(path, weights_only=True)
    if fault in state:
        del state[fault]
    elif fault in BROKEN:
        state |= BROKEN[fault]
    elif fault == "shape":
        state["model"] = {name: tensor[:1] for name, tensor in state["model"].items() if tensor.ndim}
    elif fault == "other steps":
        state["steps"] = 5
    else:
        state["optimizer"] = 7
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"resume\.pt is not of this toolkit and this model .*--restart"):
        short(fresh, "train.ema=0.9", resume=True)


def test_an_unfinished_run_that_cannot_be_read_is_not_said_to_go_on(fresh, short, interrupt_after, monkeypatch):
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    (fresh.checkpoint / CARD).write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot be gone on with: .*checkpoint\.json.*--restart begins anew") as raised:
        short(fresh)
    assert "--resume" not in str(raised.value)
    assert short(fresh, restart=True).finished


def test_as_many_processes_as_leave_one_without_an_image_are_named(fresh, short, interrupt_after, monkeypatch):
    """Of a batch of one image more: two processes take it, three cannot."""
    interrupt_after(2)
    short(fresh, "train.subset=66")
    monkeypatch.undo()
    card = fresh.checkpoint / CARD
    card.write_text(card.read_text().replace('"processes": "1"', '"processes": "3"'))
    state = torch.load(fresh.checkpoint / RESUME, weights_only=True)
    torch.save({**state, "steps": 4}, fresh.checkpoint / RESUME)
    with pytest.raises(CheckpointError, match=r"begun with --nproc 3: 4 steps an epoch. With 1 there are 5, .* Go on with --nproc 3"):
        short(fresh, "train.subset=66", resume=True)


def test_curves_that_are_no_text_stop_what_would_lose_them(fresh, short, interrupt_after):
    interrupt_after(6)
    short(fresh)
    fresh.metrics.write_bytes(b"{}\n\xfa")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is no text that the toolkit has written.*--restart"):
        short(fresh, resume=True)
    assert fresh.metrics.read_bytes() == b"{}\n\xfa"


def test_training_state_beyond_all_measure_is_not_read(fresh, short, interrupt_after):
    interrupt_after(6)
    short(fresh)
    with (fresh.checkpoint / RESUME).open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(CheckpointError, match=r"resume\.pt cannot be read: it has 1,073,741,824 bytes; at most [\d,]+ are read"):
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


def test_ctrl_c_saves_and_resume_ends_the_run(fresh, records):
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
