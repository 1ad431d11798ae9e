"""What changes the weights, and how fast: the optimiser, its learning rate over the run, and the average of the weights."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from toolkit.recipe import Train


def make_optimizer(model: nn.Module, plan: Train, total_steps: int) -> tuple[torch.optim.SGD, LRScheduler]:
    decayed = [parameter for parameter in model.parameters() if plan.decay_all or parameter.ndim > 1]
    spared = [parameter for parameter in model.parameters() if not (plan.decay_all or parameter.ndim > 1)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}] if spared else [{"params": decayed}]
    optimizer = torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, nesterov=plan.nesterov, weight_decay=plan.weight_decay)
    if plan.schedule == "one-cycle":
        steps = max(2, total_steps)
        warmup = plan.warmup if plan.warmup * steps != 1 else plan.warmup * (1 + 1e-9)  # torch divides by warmup · steps - 1
        return optimizer, OneCycleLR(optimizer, max_lr=plan.lr, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    return optimizer, LambdaLR(optimizer, lambda _: 1.0)


class Average:
    """The exponential moving average of a model's weights and buffers, in `module`, after so many `updates`.

    The decay grows to its value, as (1 + n) / (10 + n) after n updates: a short run is not averaged with its first weights.
    torch's own AveragedModel computes the same, and waits for the device at every update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = copy.deepcopy(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 1.0
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in moving], [current for _, current in moving], share)
        for average, current in pairs:
            if not average.is_floating_point():  # batch-norm's count of batches
                average.copy_(current)
        self.updates += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
