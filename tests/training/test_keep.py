"""What a run leaves and what it replaces: nothing is lost that was not asked for, and all that belongs together changes together."""

import shutil
from pathlib import Path

import pytest
import torch

from toolkit.checkpoint import WEIGHTS, Checkpoint
from toolkit.errors import CheckpointError, ToolkitError
from toolkit.workspace import alone_in


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
        monkeypatch.setattr("toolkit.workspace._onto_the_disk", full)
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
        CheckpointError, match=r"an unfinished run lies in .*, 1.5 of 3 epochs long\. With --resume the same command goes on .* --restart"
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
