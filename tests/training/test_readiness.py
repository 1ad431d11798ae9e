"""What MPS can take, by torch's own table: known operators on either side, planted faults, and our own step free of both."""

import pytest
import torch

from toolkit.recipe import Recipe
from toolkit.training import readiness
from toolkit.training.readiness import examine_mps, has_mps_kernel, is_composite


@pytest.mark.parametrize("operator", [
    "aten::add.Tensor",  # by way of its structured out= form
    "aten::native_batch_norm", "aten::relu", "aten::mm", "aten::view", "aten::upsample_bilinear2d",
])  # fmt: skip
def test_operators_that_mps_has(operator: str):
    assert has_mps_kernel(operator)
    assert not is_composite(operator)


@pytest.mark.parametrize("operator", ["aten::convolution", "aten::convolution_backward", "aten::_foreach_lerp_.Scalar", "aten::reshape"])
def test_operators_that_one_kernel_has_for_all_backends(operator: str):
    assert is_composite(operator)
    assert not has_mps_kernel(operator)


@pytest.mark.parametrize("operator", [
    "aten::linalg_eig", "aten::geqrf", "aten::ormqr", "torchvision::nms", "aten::no_such_operator",
    "aten::rrelu_with_noise_functional",  # likewise, and its out= form has another name
    "aten::linalg_lstsq",  # for all backends, but it only allocates for linalg_lstsq.out, of CPU and CUDA
])  # fmt: skip
def test_operators_that_mps_has_not(operator: str):
    assert not has_mps_kernel(operator)
    assert not is_composite(operator)


def test_our_own_steps_need_nothing_that_mps_lacks(trained):
    found = examine_mps(Recipe.read(trained.recipe, ["train.shift=2", "train.rotate=10", "train.ema=0.9", "train.flip=true"]))
    assert found.faults == []
    operators = {(use.step, use.operator) for use in found.operators}
    assert {
        ("training", "aten::convolution_backward"),
        ("training", "aten::mul_.Tensor"),  # of the momentum, from the second step on
        ("training", "aten::grid_sampler_2d"),
        ("inference", "aten::_softmax"),
    } <= operators


def test_the_default_models_steps_too():
    """ResNet18 on MNIST, which need not be there."""
    from toolkit.workspace import Workspace

    assert examine_mps(Recipe.read(Workspace.of("resnet18-mnist").recipe)).faults == []


class Planted(torch.nn.Module):
    """Computes as it should, and on the way what MPS cannot."""

    def __init__(self, inner: torch.nn.Module, fault: str) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.inner(x)
        if self.fault == "float64":
            return out + (out.double() * 0).float()
        return out + torch.geqrf(torch.eye(3)).tau.sum() * 0


@pytest.mark.parametrize(("fault", "words"), [("float64", "MPS has no float64"), ("geqrf", "torch has no MPS kernel for it")])
def test_planted_faults_are_named_in_both_steps(trained, monkeypatch, fault, words):
    real = readiness.build
    monkeypatch.setattr(readiness, "build", lambda *given: Planted(real(*given), fault))
    found = examine_mps(Recipe.read(trained.recipe))
    assert {use.step for use in found.faults} == {"training", "inference"}
    assert all(words in use.fault for use in found.faults)
