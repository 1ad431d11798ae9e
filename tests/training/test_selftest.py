"""The self-test before training on a GPU: it lets a right device pass, stops a wrong one, and touches nothing."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from toolkit import devices
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.errors import DeviceError
from toolkit.networks import NETWORKS, build
from toolkit.recipe import Recipe
from toolkit.training.selftest import TOLERANCE, check_gradients


class WrongGradient(torch.autograd.Function):
    """The identity; its gradient is multiplied by `factor` in float32 and right in float64, as on a faulty device."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * (ctx.factor if gradient.dtype == torch.float32 else 1.0), None


class WrongScale(nn.Module):
    def __init__(self, count: int, factor: float) -> None:
        super().__init__()
        self.scale, self.factor = nn.Parameter(torch.ones(count, 1, 1)), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * WrongGradient.apply(self.scale, self.factor)  # type: ignore[no-any-return]


def wrong_network(factor: float) -> Any:
    """small-cnn with a scale, in the middle, whose gradient is wrong in float32."""
    return lambda classes, channels: nn.Sequential(*NETWORKS["small-cnn"](classes, channels)[:3], WrongScale(16, factor),
                                                   *NETWORKS["small-cnn"](classes, channels)[3:])  # fmt: skip


@pytest.fixture(scope="module")
def eight() -> tuple[torch.Tensor, torch.Tensor]:
    data = load("digits")
    return data.train_images[:8], data.train_labels[:8]


def test_on_a_device_that_is_right_training_is_that_of_the_cpu(fresh, short, weights_of, fake_mps, capsys):
    """The whole mps path over a stand-in that computes on the CPU: same steps, same weights, and the card says mps."""
    short(fresh)
    expected = weights_of(fresh)
    capsys.readouterr()
    assert short(fresh, device="mps").finished
    said = capsys.readouterr().err
    assert "device: mps (asked for by name)" in said
    assert float(re.search(r"self-test: gradients on mps agree with float64 on the CPU within (\S+)", said)[1]) < 1e-3
    assert fake_mps.synchronised >= 1
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights_of(fresh).items())
    assert Checkpoint.open(fresh.checkpoint).card.device == "mps"


def test_mps_is_what_auto_takes_where_it_is(fresh, short, fake_mps, capsys):
    short(fresh, "train.epochs=1", device="auto")
    assert "device: mps (" in capsys.readouterr().err


def test_on_the_cpu_there_is_nothing_to_test(fresh, short, capsys):
    short(fresh, "train.epochs=1")
    assert "self-test" not in capsys.readouterr().err


def test_an_interrupted_run_goes_on_over_a_device(fresh, short, weights_of, fake_mps, interrupt_after, monkeypatch):
    short(fresh, device="mps")
    expected = weights_of(fresh)
    interrupt_after(6)
    short(fresh, device="mps")
    monkeypatch.undo()
    monkeypatch.setitem(devices.BACKENDS, "mps", fake_mps.backend)
    short(fresh, device="mps", resume=True)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights_of(fresh).items())


def test_no_float64_is_ever_moved_to_the_device(fresh, short, fake_mps, monkeypatch):
    """MPS has none, and refuses it with a TypeError."""
    moved: list[torch.dtype] = []
    for kind in (torch.Tensor, nn.Module):

        def to(self: Any, *arguments: Any, real: Any = kind.to, **options: Any) -> Any:
            if any(isinstance(each, str | torch.device) for each in [*arguments, *options.values()]):
                tensors = [self] if isinstance(self, torch.Tensor) else [*self.parameters(), *self.buffers()]
                moved.extend(tensor.dtype for tensor in tensors)
            return real(self, *arguments, **options)

        monkeypatch.setattr(kind, "to", to)
    short(fresh, "train.epochs=1", "train.flip=true", device="mps")
    assert {torch.float32, torch.uint8, torch.int64} <= set(moved)
    assert torch.float64 not in moved


@pytest.mark.parametrize("factor", [1.1, -1.0, 0.0, float("nan")])
def test_a_device_with_wrong_gradients_is_refused(fresh, short, fake_mps, monkeypatch, factor):
    monkeypatch.setitem(NETWORKS, "small-cnn-wrong", wrong_network(factor))
    with pytest.raises(DeviceError, match=r"mps computes wrong gradients: network\.3\.scale is off by .* Use --device cpu"):
        short(fresh, 'network.builder="small-cnn-wrong"', device="mps")
    assert not fresh.checkpoint.exists()
    assert not fresh.metrics.exists()


def test_the_same_network_passes_when_its_gradient_is_right(fresh, short, fake_mps, monkeypatch):
    monkeypatch.setitem(NETWORKS, "small-cnn-wrong", wrong_network(1.0))
    assert short(fresh, 'network.builder="small-cnn-wrong"', "train.epochs=1", device="mps").finished


def test_a_wrong_forward_is_found_too(fresh, short, fake_mps, monkeypatch):
    """Batch-norm that normalises wrongly in float32."""
    real = nn.functional.batch_norm

    def wrong(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
        return real(x, *arguments) * (1.2 if x.dtype == torch.float32 else 1.0)

    monkeypatch.setattr(nn.functional, "batch_norm", wrong)
    with pytest.raises(DeviceError, match="mps computes wrong gradients"):
        short(fresh, device="mps")
    assert not fresh.checkpoint.exists()


def test_a_refused_device_leaves_an_older_checkpoint(fresh, short, weights_of, fake_mps, monkeypatch):
    short(fresh, "train.epochs=1")
    before = weights_of(fresh)
    monkeypatch.setitem(NETWORKS, "small-cnn-wrong", wrong_network(2.0))
    with pytest.raises(DeviceError):
        short(fresh, 'network.builder="small-cnn-wrong"', device="mps")
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of(fresh).items())


@pytest.mark.parametrize("builder", sorted(NETWORKS))
def test_the_model_stays_as_it_was(fresh, eight, fake_mps, builder):
    model = build(Recipe.read(fresh.recipe, [f'network.builder="{builder}"']), 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    error = check_gradients(model, *eight, fake_mps.backend)
    assert 0 < error < TOLERANCE / 2  # fp32 against float64
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {tensor.dtype for name, tensor in after.items() if "num_batches" not in name} == {torch.float32}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tf32_is_off_during_the_test_and_only_then(fresh, eight, fake_mps, monkeypatch):
    """On CUDA its rounding flips enough ReLUs of a ResNet18 to look like wrong gradients."""
    seen = []
    real = nn.functional.interpolate
    monkeypatch.setattr(nn.functional, "interpolate", lambda *a, **k: seen.append(torch.backends.cudnn.allow_tf32) or real(*a, **k))
    before = torch.backends.cudnn.allow_tf32
    check_gradients(build(Recipe.read(fresh.recipe), 10), *eight, fake_mps.backend)
    assert seen == [before, False]  # the truth on the CPU, then the device
    assert torch.backends.cudnn.allow_tf32 == before
