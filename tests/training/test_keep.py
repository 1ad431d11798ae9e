"""What a run leaves and what it replaces: nothing is lost that was not asked for, and all that belongs together changes together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.conftest import SHORT
from toolkit.checkpoint import CARD, WEIGHTS, Checkpoint
from toolkit.errors import CheckpointError, ToolkitError
from toolkit.recipe import Recipe
from toolkit.training import TrainResult, train, train_seeds
from toolkit.workspace import Workspace
from toolkit.writing import alone_in


def test_a_new_run_starts_a_new_log(fresh, short, records):
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
    assert not list(fresh.folder.glob("*.new"))
    assert short(fresh, resume=True).finished
    assert "had already finished" in capsys.readouterr().err


def test_what_a_run_of_another_recipe_left_begins_nothing(fresh, short, killed_at_once, capsys):
    """It was killed before it saved anything: the finished model is still that of its own recipe."""
    short(fresh)
    killed_at_once(fresh, "train.lr=0.02")
    stamp = (fresh.checkpoint / WEIGHTS).stat().st_mtime_ns
    capsys.readouterr()
    assert short(fresh, resume=True).finished
    assert "had already finished" in capsys.readouterr().err
    assert (fresh.checkpoint / WEIGHTS).stat().st_mtime_ns == stamp
    short(fresh, "train.lr=0.02", resume=True)
    assert "had saved nothing yet: beginning" in capsys.readouterr().err
    assert Checkpoint.open(fresh.checkpoint).recipe.train.lr == 0.02


@pytest.mark.parametrize("fault", ["the curves' place", "the disk itself"])
def test_what_cannot_be_written_is_one_message_and_nothing_is_changed(fresh, short, weights_of, monkeypatch, fault):
    pytest.importorskip("tensorboard")
    short(fresh, tensorboard=True)
    weights, curves, events, replace = weights_of(fresh), fresh.metrics.read_bytes(), sorted(fresh.events.iterdir()), Path.replace

    def full(self, target=None):
        if self.suffix == ".new" or target is None:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    if fault == "the disk itself":
        monkeypatch.setattr("toolkit.writing._onto_the_disk", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        short(fresh)
    monkeypatch.undo()
    assert fresh.metrics.read_bytes() == curves
    assert sorted(fresh.events.iterdir()) == events
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(fresh).items())
    stamp = (fresh.checkpoint / WEIGHTS).stat().st_mtime_ns
    assert short(fresh, resume=True).finished
    assert (fresh.checkpoint / WEIGHTS).stat().st_mtime_ns != stamp  # the run that failed was begun again


def test_a_restart_killed_before_its_first_checkpoint_leaves_the_unfinished_run_to_go_on_with(
    fresh, short, weights_of, interrupt_after, monkeypatch, killed_at_once, capsys, records
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
    assert "(3 of 3 epochs, " in (said := capsys.readouterr().err)
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
        CheckpointError, match=r"an unfinished run lies in .*, 1.5 of 3 epochs long\. With --resume the same command goes on .* --restart"
    ):
        short(fresh)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(fresh).items())
    assert short(fresh, restart=True).finished


@pytest.fixture
def again() -> Callable[..., TrainResult]:
    """`train` itself: `short` gives a finished model up."""
    return lambda workspace, *more, **options: train(workspace, Recipe.read(workspace.recipe, [*SHORT, *more]), device="cpu", **options)


@pytest.mark.parametrize(("more", "says"), [
    ((), r"a finished model lies in .*, 3 of 3 epochs, .* right\. Nothing was done\. --restart trains it again"),
    (("train.lr=0.02",), r"of another recipe \(hash .*\), 3 of 3 epochs, .*--restart trains it again"),
    (("train.seed=5",), r"of another recipe"),
])  # fmt: skip
def test_a_finished_model_is_trained_again_only_when_that_is_asked_for(fresh, short, again, more, says):
    short(fresh)
    before = {path: path.read_bytes() for path in fresh.folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=says):
        again(fresh, *more)
    with pytest.raises(CheckpointError, match=r"--seeds would replace it in the end"):
        train_seeds(fresh, Recipe.read(fresh.recipe, [*SHORT, *more]), 2, device="cpu")
    assert {path: path.read_bytes() for path in fresh.folder.rglob("*") if path.is_file()} == before
    assert again(fresh, *more, restart=True).finished
    assert Checkpoint.open(fresh.checkpoint).recipe.train.lr == (0.02 if more == ("train.lr=0.02",) else 0.1)


def test_a_finished_model_is_left_as_it_is_by_resume(fresh, short, again, capsys):
    short(fresh)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in fresh.folder.rglob("*") if path.is_file()}
    assert again(fresh, resume=True).finished
    assert "had already finished" in capsys.readouterr().err
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in fresh.folder.rglob("*") if path.is_file()} == before


def test_weights_without_a_card_are_not_ours_to_replace(fresh, short, again):
    short(fresh)
    (fresh.checkpoint / CARD).unlink()
    for restart in (False, True):
        with pytest.raises(ToolkitError, match=r"checkpoint is in the way: .*Move it away"):
            again(fresh, restart=restart)
    assert (fresh.checkpoint / WEIGHTS).is_file()


def test_a_checkpoint_that_cannot_be_read_is_not_written_over_unasked(fresh, short, again):
    """One of a later toolkit, say."""
    short(fresh)
    (fresh.checkpoint / CARD).write_text('{"schema_version": 2}', encoding="utf-8")
    before = {path: path.read_bytes() for path in fresh.folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"a checkpoint lies in .*, and cannot be read: .* --restart trains again"):
        again(fresh)
    assert {path: path.read_bytes() for path in fresh.folder.rglob("*") if path.is_file()} == before
    assert again(fresh, restart=True).finished


def test_a_run_leaves_the_recipe_that_it_used_where_there_was_none(fresh, again):
    """As from a wheel, whose recipes lie elsewhere: the folder can then be verified wherever it goes."""
    text = fresh.recipe.read_text(encoding="utf-8")
    elsewhere = Workspace(fresh.folder.parent / "another", fresh.recipe)
    assert again(elsewhere, "train.epochs=1").finished
    assert (elsewhere.folder / "recipe.toml").read_text(encoding="utf-8") == text  # overrides stand on the card
    (elsewhere.folder / "recipe.toml").write_text("# the user's own\n" + text, encoding="utf-8")
    assert again(elsewhere, "train.epochs=1", restart=True).finished
    assert (elsewhere.folder / "recipe.toml").read_text(encoding="utf-8").startswith("# the user's own")


def test_a_series_leaves_its_recipe_too(fresh):
    elsewhere = Workspace(fresh.folder.parent / "another", fresh.recipe)
    train_seeds(elsewhere, Recipe.read(fresh.recipe, [*SHORT, "train.epochs=1"]), 2, device="cpu")
    text = fresh.recipe.read_text(encoding="utf-8")
    for folder in (elsewhere.folder, elsewhere.folder / "seeds/0", elsewhere.folder / "seeds/1"):
        assert (folder / "recipe.toml").read_text(encoding="utf-8") == text


def test_two_runs_do_not_write_into_one_folder(fresh, short):
    """The second would take the first one's half-written checkpoint for what a killed run left."""
    with alone_in(fresh.folder), pytest.raises(ToolkitError, match=r"another run is training into .*tiny\. Wait for it"):
        short(fresh)
    assert short(fresh).finished


@pytest.mark.parametrize("shown", [True, False])
def test_event_files_are_those_of_the_model_that_is_there(fresh, short, killed_at_once, shown):
    """Until another run replaces it, whether that one writes any or not."""
    pytest.importorskip("tensorboard")
    short(fresh, tensorboard=True)
    earlier = sorted(fresh.events.iterdir())
    killed_at_once(fresh, tensorboard=True)
    assert sorted(fresh.events.iterdir()) == earlier
    short(fresh, tensorboard=shown)
    assert not any(path.exists() for path in earlier)
    assert fresh.events.exists() == shown
    assert not list(fresh.folder.glob("*.new"))


def test_event_files_of_a_run_that_left_no_model_go(fresh, short, killed_at_once):
    pytest.importorskip("tensorboard")
    killed_at_once(fresh, tensorboard=True)
    assert fresh.events.exists()
    short(fresh)
    assert not fresh.events.exists()


def test_an_unfinished_run_of_another_recipe_is_said_to_be_one(fresh, short, interrupt_after, monkeypatch):
    interrupt_after(6)
    short(fresh)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"of another recipe \(hash .*With --resume the command that began it goes on with it"):
        short(fresh, "train.lr=0.02")


def test_event_files_that_cannot_be_written_are_one_message(fresh, short, monkeypatch):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", full)
    with pytest.raises(ToolkitError, match=r"cannot write event files in .*No space left on device.*leave --tensorboard out"):
        short(fresh, tensorboard=True)
