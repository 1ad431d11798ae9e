"""The real thing: one epoch on the GPU of this machine, compared with the CPU. Run by hand: pytest -m mac, pytest -m gpu."""

import pytest

from toolkit import devices
from toolkit.checkpoint import Checkpoint
from toolkit.recipe import Recipe
from toolkit.training import train

ONE_EPOCH = ("train.epochs=1", "train.batch_size=32", "train.lr=0.1", "train.shift=1")


@pytest.mark.parametrize("device", [pytest.param("mps", marks=pytest.mark.mac), pytest.param("cuda", marks=pytest.mark.gpu)])
def test_one_epoch_is_that_of_the_cpu(fresh, device, capsys):
    """Same start, same order, same augmentation: after 45 steps only rounding lies between the two."""
    if reason := devices.BACKENDS[device].why_not():
        pytest.skip(reason)
    recipe = Recipe.read(fresh.recipe, ONE_EPOCH)
    expected = train(fresh, recipe, device="cpu").metrics
    on_cpu = Checkpoint.open(fresh.checkpoint).weights()
    capsys.readouterr()
    found = train(fresh, recipe, device=device).metrics
    checkpoint = Checkpoint.open(fresh.checkpoint)
    assert f"self-test: gradients on {device} agree with float64" in capsys.readouterr().err
    assert (checkpoint.card.device, checkpoint.card.finished) == (device, True)
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=0.01)
    assert abs(found["test_correct"] - expected["test_correct"]) <= 10  # of 360; the measured file is run on the CPU both times
    for name, tensor in checkpoint.weights().items():
        if tensor.is_floating_point():
            assert float((tensor - on_cpu[name]).norm() / on_cpu[name].norm().clamp(min=0.1)) < 0.05, name


@pytest.mark.parametrize("device", [pytest.param("mps", marks=pytest.mark.mac), pytest.param("cuda", marks=pytest.mark.gpu)])
def test_an_interrupted_run_goes_on(fresh, short, interrupt_after, monkeypatch, device):
    if reason := devices.BACKENDS[device].why_not():
        pytest.skip(reason)
    interrupt_after(6)
    assert not short(fresh, device=device).finished
    monkeypatch.undo()
    assert short(fresh, device=device, resume=True).finished
    assert Checkpoint.open(fresh.checkpoint).card.epochs_done == 3
