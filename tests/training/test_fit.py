"""What `train` offers beside plain epochs: fractions of them, a goal, held-out images, the average, event files, a first look."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.cli import main
from toolkit.data import held_out, load
from toolkit.devices import BACKENDS
from toolkit.errors import RecipeError
from toolkit.networks import build, from_checkpoint
from toolkit.ranks import Ranks
from toolkit.recipe import Recipe
from toolkit.training.evaluate import count_correct, reaches


def records(workspace):
    return [json.loads(line) for line in workspace.metrics.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("epochs", "visits", "ended"), [(0.25, 16, []), (0.5, 32, []), (1.5, 32, [0]), (0.01, 16, [])])
def test_a_fraction_of_an_epoch_visits_so_many_images(fresh, short, epochs, visits, ended):
    assert short(fresh, f"train.epochs={epochs}").finished
    last = [record for record in records(fresh) if "images" in record][-1]
    assert last["images"] == visits  # of the last, unfinished epoch
    assert [record["epoch"] for record in records(fresh) if record.get("epoch_ended")] == ended
    card = Checkpoint.open(fresh.checkpoint).card
    assert card.epochs_done == max(epochs, 0.25)  # one step, of four, is the least
    assert card.metrics["image_visits"] == 64 * card.epochs_done


def test_whole_epochs_have_one_hash_however_they_are_written(fresh):
    assert Recipe.read(fresh.recipe, ["train.epochs=2"]).hash == Recipe.read(fresh.recipe, ["train.epochs=2.0"]).hash
    assert Recipe.read(fresh.recipe, ["train.epochs=2"]).hash != Recipe.read(fresh.recipe, ["train.epochs=2.5"]).hash


def test_held_out_images_are_even_over_the_classes_never_trained_on_and_the_same_for_every_seed():
    labels = load("digits").train_labels
    rest, kept = held_out(labels, 100)
    assert sorted([*rest.tolist(), *kept.tolist()]) == list(range(len(labels)))
    assert labels[kept].bincount().tolist() == [10] * 10
    assert torch.equal(held_out(labels, 100)[1], kept)


def test_the_curve_is_of_the_held_out_images_and_never_of_the_test_set(fresh, short, monkeypatch):
    seen = []
    module = sys.modules["toolkit.training.fit"]
    monkeypatch.setattr(module, "count_correct", lambda *given: seen.append((len(given[1]), given[4])) or count_correct(*given))
    short(fresh, "train.subset=320", "train.holdout=20", "train.batch_size=50", "train.epochs=2")
    assert seen == [(20, "held-out images, after epoch 1"), (360, "test, from the saved file"), (20, "held-out, from the saved file")]
    assert [record["images"] for record in records(fresh) if record.get("epoch_ended")] == [300, 300]
    assert [record["epoch"] for record in records(fresh) if "held_out_accuracy" in record] == [0]


def test_the_held_out_images_judge_the_file_that_was_saved(fresh, short):
    """What things are chosen by: also where the run ends within its first epoch."""
    metrics = short(fresh, "train.subset=320", "train.holdout=100", "train.epochs=0.5").metrics
    data = load("digits")
    _, kept = held_out(data.train_labels[:320], 100)
    model = from_checkpoint(Checkpoint.open(fresh.checkpoint))
    correct = count_correct(model, data.train_images[kept], data.train_labels[kept], BACKENDS["cpu"], "t")
    assert (metrics["held_out_correct"], metrics["held_out_images"]) == (correct, 100)
    assert metrics == Checkpoint.open(fresh.checkpoint).card.metrics


def test_more_than_half_cannot_be_held_out(fresh, short):
    with pytest.raises(RecipeError, match=r"train.holdout=40 is more than half of the 64 training images"):
        short(fresh, "train.holdout=40")
    assert not fresh.checkpoint.exists()


def test_training_stops_once_the_goal_is_reached_on_the_held_out_images(fresh, short, capsys):
    overrides = ("train.subset=1437", "train.batch_size=32", "train.epochs=30", "train.lr=0.1", "train.until_accuracy=0.9", "train.ema=0.9")
    result = short(fresh, *overrides)
    assert (result.finished, result.reached, result.missed) == (True, True, False)
    card = Checkpoint.open(fresh.checkpoint).card
    assert card.epochs_done < 15
    assert "90 % of the 119 held-out images are right after" in capsys.readouterr().err
    data = load("digits")
    _, kept = held_out(data.train_labels, 119)
    model = from_checkpoint(Checkpoint.open(fresh.checkpoint))
    assert count_correct(model, data.train_images[kept], data.train_labels[kept], BACKENDS["cpu"], "t") >= 0.9 * 119


def test_a_goal_that_is_not_reached_is_said_and_is_no_success(fresh, capsys):
    flags = ["--device", "cpu", "--epochs", "0.1", "--until-accuracy", "99.9"]
    with pytest.raises(SystemExit) as ended:
        main(["train", f"{fresh.folder}{os.sep}", *flags])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert "99.9 % of the 119 held-out images were not yet right after" in err
    assert "FAILED: the accuracy that was asked for was not reached" in out
    assert Checkpoint.open(fresh.checkpoint).card.finished


@pytest.mark.parametrize("right", [0, 899, 900, 901, 1000])
def test_reaching_a_share_is_exact_at_its_edge(right):
    """The model answers 1 for an image of ones; labels are 1."""

    class Echo(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x[:, 0, 0, 0].long(), 2).float()

    images = (torch.arange(1000) < right).to(torch.uint8)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))][
        :, None, None, None
    ]
    assert reaches(Echo(), images, torch.ones(1000, dtype=torch.int64), 0.9, BACKENDS["cpu"]) is (right >= 900)


def test_what_is_saved_is_the_average(fresh, short, weights_of):
    short(fresh, "train.ema=0.9")
    averaged = weights_of(fresh)
    short(fresh)
    assert not any(torch.equal(averaged[name], tensor) for name, tensor in weights_of(fresh).items() if tensor.ndim > 1)


def test_a_layout_changes_no_shape_of_what_is_saved(fresh, short, weights_of):
    short(fresh)
    plain = weights_of(fresh)
    short(fresh, 'train.channels_last="on"')
    found = weights_of(fresh)
    assert {name: tensor.shape for name, tensor in plain.items()} == {name: tensor.shape for name, tensor in found.items()}
    assert max(float((plain[name] - found[name]).abs().max()) for name in plain) < 1e-3


def test_the_end_can_be_without_augmentation(fresh, short, monkeypatch):
    from toolkit.training import loop

    seen = []
    real = loop.augment
    monkeypatch.setattr(loop, "augment", lambda images, draws, by: seen.append(by.shift) or real(images, draws, by))
    short(fresh, "train.plain_end=0.25", "train.shift=2")  # twelve steps
    assert seen == [2] * 9 + [0] * 3


def test_the_first_loss_is_said_to_be_that_of_a_guess(fresh, short, capsys):
    short(fresh, "train.epochs=1")
    assert f"(ln 10 = {math.log(10):.2f}), as a network that knows nothing should have" in capsys.readouterr().err


def test_a_first_loss_that_is_far_from_a_guess_is_doubted(fresh, short, capsys, monkeypatch):
    module = sys.modules["toolkit.training.fit"]

    def loud(*given):
        model = build(*given)
        with torch.no_grad():
            model.network[8].weight.mul_(200)
        return model

    monkeypatch.setattr(module, "build", loud)
    short(fresh, "train.epochs=1", "train.lr=0.0001")
    assert "unlike a network that knows nothing: are inputs and labels as they should be?" in capsys.readouterr().err


def test_event_files_hold_the_curves_of_the_last_run(fresh, short):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    short(fresh, "train.epochs=5", tensorboard=True)
    short(fresh, tensorboard=True)
    events = accumulator.EventAccumulator(str(fresh.events))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy", "lr", "test_accuracy"}
    logged = [record for record in records(fresh) if "loss" in record]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([record["loss"] for record in logged])
    assert [event.step for event in events.Scalars("loss")] == [16, 64, 128, 192]


def test_without_tensorboard_its_option_is_one_message_and_begins_nothing(fresh, short, monkeypatch, capsys):
    from toolkit.errors import ToolkitError

    short(fresh)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ToolkitError, match=r"--tensorboard needs the package tensorboard .*pip install"):
        short(fresh, tensorboard=True)
    assert not list(fresh.folder.glob("*.new"))
    capsys.readouterr()
    short(fresh, resume=True)
    assert "had already finished" in capsys.readouterr().err


def test_every_phase_has_its_time(fresh, short):
    result = short(fresh)
    assert set(result.seconds) == {"data", "training", "evaluation", "saving"}
    assert all(seconds >= 0 for seconds in result.seconds.values())


def test_a_phase_within_another_counts_for_itself_alone(fresh, monkeypatch):
    module, clock = sys.modules["toolkit.training.fit"], iter([0.0, 1.0, 4.0, 10.0])
    training = module.Training(fresh, Recipe.read(fresh.recipe), BACKENDS["cpu"], Ranks())
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with training.phase("training"), training.phase("saving"):
        pass
    assert training.seconds == {"saving": 3.0, "training": 7.0}


@pytest.mark.parametrize("limit", [4096, 40_000])  # bytes a file: the weights do not fit, or only what is needed to go on does not
def test_a_disk_that_is_full_is_one_message_and_the_last_checkpoint_stays(fresh, short, weights_of, limit):
    """A real refusal of the system's: files of this process may not grow beyond the limit."""
    short(fresh)
    before, curves = weights_of(fresh), fresh.metrics.read_bytes()
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); from toolkit.cli import main; main(sys.argv[1:])"
    )
    flags = ["--device", "cpu", "--set", "train.subset=64", "--set", "train.momentum=0.9", "--set", "train.ema=0.9", "--epochs", "3"]
    command = [sys.executable, "-c", program, "train", f"{fresh.folder}{os.sep}", *flags]
    done = subprocess.run([*command, "--restart"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot write the checkpoint" in done.stderr
    assert "was kept" in done.stderr
    assert "Traceback" not in done.stderr
    after = weights_of(fresh)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert fresh.metrics.read_bytes() == curves
    assert not list(fresh.folder.glob(".*"))
    again = "--resume" if limit == 40_000 else "--restart"  # found before anything was computed: nothing has begun
    assert ("--resume" in done.stderr) == (again == "--resume")
    assert subprocess.run([sys.executable, "-m", "toolkit", *command[3:], again], check=False, capture_output=True).returncode == 0
    assert Checkpoint.open(fresh.checkpoint).recipe.train.momentum == 0.9
