"""The loop's promise to a GPU: between two readings of the figures nothing waits for it, and nothing is sent to it."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.devices import Backend
from toolkit.networks.resnet import small_cnn
from toolkit.recipe import Train
from toolkit.training.loop import Run

META = Backend("meta", "meta", lambda: None, lambda: None, lambda: 0, lambda: False)
WAYS = {
    "plain": {},
    "all": {"shift": 2, "rotate": 10.0, "scale": 0.1, "shear": 5.0, "flip": True, "ema": 0.99, "nesterov": True, "decay_all": False},
}


class Crossings(TorchDispatchMode):
    """Counts tensors that cross between the CPU and the device. To read a number from meta, which has none, raises by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if len(devices) > 1:
            self.found.append(func.name())
        return out


def run(**keys: Any) -> Run:
    with torch.device("meta"):
        model = small_cnn(10, 1)
        images, labels = torch.zeros(64, 1, 28, 28, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
    return Run(model, images, labels, Train(batch_size=16, schedule="one-cycle", label_smoothing=0.1, **keys), META)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_waits_for_nothing_and_sends_nothing(way: str):
    loop = run(**WAYS[way])
    drawn = loop.draw()
    with Crossings() as crossings:
        for _ in range(loop.steps):
            loop.take_step(*drawn)
    assert crossings.found == []


def test_it_would_be_seen():
    loop = run()
    with Crossings() as crossings:
        loop.draw()  # an epoch's draws are sent at once
    assert crossings.found == ["aten::_to_copy", "aten::_to_copy"]
    with pytest.raises(RuntimeError, match="meta"):
        loop.totals.tolist()
