"""Several seeds: runs of their own, their mean and spread, and no choosing among them."""

import json
import statistics

import pytest
import torch

from toolkit.checkpoint import RESUME, Checkpoint
from toolkit.errors import CheckpointError, RecipeError, ToolkitError
from toolkit.recipe import Recipe
from toolkit.training import train_seeds
from toolkit.workspace import Workspace
from toolkit.writing import alone_in

SHORT = ("train.subset=64", "train.batch_size=16", "train.epochs=1", "train.seed=5")


def test_mean_and_spread_are_those_of_the_runs_and_the_checkpoint_is_the_first(fresh):
    result = train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 3, device="cpu")
    assert result.finished
    assert list(result.runs) == ["5", "6", "7"]
    places = [Workspace(fresh.folder / "seeds" / str(seed), fresh.recipe) for seed in (5, 6, 7)]
    cards = [Checkpoint.open(place.checkpoint).card for place in places]
    assert [card.seed for card in cards] == [5, 6, 7]
    accuracies = [card.metrics["test_accuracy"] for card in cards]
    assert (result.mean, result.sd) == (pytest.approx(statistics.mean(accuracies)), pytest.approx(statistics.stdev(accuracies)))
    first, kept = Checkpoint.open(places[0].checkpoint), Checkpoint.open(fresh.checkpoint)
    assert first.card == kept.card
    assert all(torch.equal(tensor, kept.weights()[name]) for name, tensor in first.weights().items())
    assert not all(torch.equal(tensor, Checkpoint.open(places[1].checkpoint).weights()[name]) for name, tensor in first.weights().items())
    assert json.loads((fresh.folder / "seeds/seeds.json").read_text())["mean"] == result.mean


def test_a_seed_in_the_middle_is_the_run_that_it_would_be_alone(fresh, short, weights_of):
    train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu")
    inside = Checkpoint.open(fresh.folder / "seeds/6/checkpoint").weights()
    short(fresh, *SHORT[:3], "train.shift=0", "train.seed=6")
    assert Recipe.read(fresh.recipe).train.shift == 0
    assert all(torch.equal(tensor, inside[name]) for name, tensor in weights_of(fresh).items())


def test_with_resume_finished_seeds_are_kept_and_the_rest_is_trained(fresh, monkeypatch, capsys):
    recipe = Recipe.read(fresh.recipe, SHORT)
    train_seeds(fresh, recipe, 2, device="cpu")
    stamps = {seed: (fresh.folder / f"seeds/{seed}/checkpoint/model.safetensors").stat().st_mtime_ns for seed in (5, 6)}
    result = train_seeds(fresh, recipe, 3, resume=True, device="cpu")
    assert list(result.runs) == ["5", "6", "7"]
    assert capsys.readouterr().err.count("had already finished") == 2
    assert {seed: (fresh.folder / f"seeds/{seed}/checkpoint/model.safetensors").stat().st_mtime_ns for seed in (5, 6)} == stamps


def test_a_series_does_not_write_over_an_unfinished_run(fresh, short, interrupt_after, monkeypatch):
    """Neither over the model's own nor over one of its seeds, and it says so before it trains anything."""
    interrupt_after(2)
    short(fresh)
    monkeypatch.undo()
    for resume in (False, True):
        with pytest.raises(CheckpointError, match="an unfinished run lies in"):
            train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu", resume=resume)
    assert not (fresh.folder / "seeds").exists()
    interrupt_after(6)
    train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu", restart=True)
    monkeypatch.undo()
    assert not Checkpoint.open(fresh.checkpoint).card.finished  # until the series ends, and then it is another
    finished = (fresh.folder / "seeds/5/checkpoint/model.safetensors").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="seeds/6/checkpoint"):
        train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu")
    assert (fresh.folder / "seeds/5/checkpoint/model.safetensors").stat().st_mtime_ns == finished
    assert train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu", resume=True).finished


def test_a_stop_in_the_last_step_of_a_seed_ends_the_series(fresh, interrupt_after):
    interrupt_after(4)  # four steps a run
    result = train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 3, device="cpu")
    assert (result.finished, list(result.runs)) == (False, ["5"])
    assert not (fresh.folder / "seeds/6").exists()


def test_an_interrupted_series_says_so_and_keeps_what_was_finished(fresh, interrupt_after):
    interrupt_after(6)  # four steps a run: in the second
    result = train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 3, device="cpu")
    assert not result.finished
    assert list(result.runs) == ["5"]
    assert not fresh.checkpoint.exists()


def test_a_series_and_a_run_do_not_write_into_one_folder(fresh):
    with alone_in(fresh.folder), pytest.raises(ToolkitError, match=r"another run is training into .*tiny\. Wait for it"):
        train_seeds(fresh, Recipe.read(fresh.recipe, SHORT), 2, device="cpu")
    assert not (fresh.folder / "seeds").exists()


def test_seeds_beyond_the_last_one_are_refused_before_anything_is_trained(fresh):
    recipe = Recipe.read(fresh.recipe, [*SHORT[:3], f"train.seed={2**31 - 1}"])
    with pytest.raises(RecipeError, match=r"(?s)with a seed of --seeds, has 1 fault:.*train\.seed.*2147483648"):
        train_seeds(fresh, recipe, 2, device="cpu")
    assert not (fresh.folder / "seeds").exists()


def test_a_restarted_series_gives_an_unfinished_run_up_once_there_is_something_to_go_on_with(fresh, short, interrupt_after, monkeypatch):
    interrupt_after(2)
    short(fresh)
    monkeypatch.undo()
    recipe = Recipe.read(fresh.recipe, [*SHORT[:2], "train.epochs=3", "train.seed=5"])

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr("toolkit.training.loop.augment", kill)  # before anything is saved
    with pytest.raises(Killed):
        train_seeds(fresh, recipe, 2, device="cpu", restart=True)
    assert (fresh.checkpoint / RESUME).is_file()
    monkeypatch.undo()
    monkeypatch.setattr("toolkit.training.fit.Training._judge", kill)  # after the first epoch's checkpoint
    with pytest.raises(Killed):
        train_seeds(fresh, recipe, 2, device="cpu", restart=True)
    monkeypatch.undo()
    assert not (fresh.checkpoint / RESUME).exists()
    assert train_seeds(fresh, recipe, 2, device="cpu", resume=True).finished
