"""What changes the weights, and how fast: the optimiser, its learning rate over the run, and the average of the weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from toolkit.recipe import Train


def make_optimizer(model: nn.Module, plan: Train, total_steps: int) -> tuple[torch.optim.SGD, LRScheduler]:
    decayed = [parameter for parameter in model.parameters() if plan.decay_all or parameter.ndim > 1]
    spared = [parameter for parameter in model.parameters() if not (plan.decay_all or parameter.ndim > 1)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}] if spared else [{"params": decayed}]
    optimizer = torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, nesterov=plan.nesterov, weight_decay=plan.weight_decay)
    if plan.schedule == "one-cycle":
        return optimizer, OneCycleLR(
            optimizer, max_lr=plan.lr, total_steps=max(2, total_steps), pct_start=plan.warmup, cycle_momentum=False
        )
    return optimizer, LambdaLR(optimizer, lambda _: 1.0)


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of weights and buffers (torch's own); None where the recipe asks for none.

    The decay grows to its value, as (1 + n) / (10 + n) after n updates: a short run is not averaged with its first weights.
    """
    if not decay:
        return None

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        updates = int(average.n_averaged)  # it lies on the CPU; the copy that is handed over would have to be waited for
        share = 1 - min(decay, (1 + updates) / (10 + updates))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(current), share)
        else:  # batch-norm's count of batches
            torch._foreach_copy_(list(averages), list(current))

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average
