"""What a layer of the file came from: the checkpoint's weights and batch-norm, and how large activations become."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.checkpoint import Checkpoint
from toolkit.faults.surgery import Array, Layer, NotApplicable

SAME = 2e-2  # of the largest weight: fp16 and a folded batch-norm are far below, other layers far above


@dataclass(frozen=True)
class Folded:
    """A convolution and the batch-norm that was folded into it; all per output channel, float64."""

    module: str  # of the convolution
    weight: Array  # (out, in/groups, h, w), before folding
    bias: Array  # (out,), before folding
    gain: Array
    shift: Array
    mean: Array
    variance: Array

    def refold(self, epsilon: float) -> tuple[Array, Array]:
        """(weight, bias) as an exporter folds them with that epsilon."""
        factor = self.gain / np.sqrt(self.variance + epsilon)
        return self.weight * factor[:, None, None, None], (self.bias - self.mean) * factor + self.shift


def tensors(checkpoint: Checkpoint) -> dict[str, Array]:
    return {name: tensor.double().numpy() for name, tensor in checkpoint.weights().items()}


def module_of(layer: Layer, stored: dict[str, Array]) -> tuple[str, Array]:
    """The checkpoint's module whose weight this is, and the factor (out,) by which the file's differs.

    A folded batch-norm scales whole output channels, so a module fits when each channel is a multiple of its own.
    Raises NotApplicable when none does.
    """
    weight = layer.weight().astype(np.float64)
    best: tuple[float, str, Array] | None = None
    for name, own in stored.items():
        if not name.endswith(".weight") or own.shape != weight.shape:
            continue
        mine, theirs = own.reshape(len(own), -1), weight.reshape(len(own), -1)
        factor = (mine * theirs).sum(1) / np.maximum((mine * mine).sum(1), 1e-300)
        off = float(np.abs(theirs - factor[:, None] * mine).max() / np.abs(theirs).max())
        if best is None or off < best[0]:
            best = (off, name.removesuffix(".weight"), factor)
    if best is None or not best[0] < SAME:
        raise NotApplicable(f"no weight of the checkpoint became {layer.name}")
    return best[1], best[2]


def folded(layer: Layer, checkpoint: Checkpoint, stored: dict[str, Array]) -> Folded:
    """The convolution and batch-norm that became `layer`. Raises NotApplicable when no batch-norm was folded into it."""
    module, factor = module_of(layer, stored)
    for norm, epsilon in _batch_norms(checkpoint):
        if len(stored[f"{norm}.weight"]) != len(factor):
            continue
        weight = stored[f"{module}.weight"]
        found = Folded(
            module, weight, stored.get(f"{module}.bias", np.zeros(len(weight))), stored[f"{norm}.weight"], stored[f"{norm}.bias"],
            stored[f"{norm}.running_mean"], stored[f"{norm}.running_var"],
        )  # fmt: skip
        expected = found.gain / np.sqrt(found.variance + epsilon)
        if np.abs(expected - factor).max() < SAME * np.abs(factor).max():
            return found
    raise NotApplicable(f"no batch-norm was folded into {layer.name}")


def _batch_norms(checkpoint: Checkpoint) -> Iterator[tuple[str, float]]:
    """(name, epsilon)."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from toolkit.networks import from_checkpoint

    for name, module in from_checkpoint(checkpoint).named_modules():
        if isinstance(module, _BatchNorm):
            yield name, module.eps


def relu_peaks(checkpoint: Checkpoint, images: Array) -> list[float]:
    """The largest result of each call of a ReLU module on `images` (N, C, H, W), in the order of the calls."""
    import torch

    from toolkit.networks import from_checkpoint

    peaks: list[float] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        peaks.append(float(output.max()))

    classifier = from_checkpoint(checkpoint)
    for module in classifier.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(note)
    with torch.inference_mode():
        classifier(torch.tensor(images))
    return peaks
