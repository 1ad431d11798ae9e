"""The training loop: reads from top to bottom, and can stop and go on at any step.

Every random draw depends on (seed, epoch, step) alone, so that a run that was interrupted and resumed takes the very
steps of one that was not. The whole data set lies on the device as uint8; there is no loader.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.data.augment import augment
from toolkit.devices import Backend
from toolkit.recipe import Train

LOG_STEPS = 20  # reading a figure waits for the device, so not at every step


@dataclass
class Progress:
    """Where a run stands. `step` counts within the epoch."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Figures:
    """Running means over the epoch so far, read from the device every LOG_STEPS steps and at the epoch's end."""

    epoch: int
    step: int
    images: int
    loss: float
    accuracy: float
    lr: float
    epoch_ended: bool


def make_optimizer(model: nn.Module, plan: Train, total_steps: int) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=plan.lr, momentum=plan.momentum, nesterov=plan.nesterov, weight_decay=plan.weight_decay
    )
    if plan.schedule == "one-cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=plan.lr, total_steps=total_steps, pct_start=plan.warmup, cycle_momentum=False
        )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """The last, smaller batch counts, unless it is a single image: batch-norm cannot train on one."""
    whole, rest = divmod(images, batch_size)
    return whole + (rest > 1)


def run(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: Train,
    backend: Backend,
    state: dict[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Figures, Callable[[], dict[str, Any]]]]:
    """Trains `model` (on the device already) and yields figures together with a function that takes a resume state.

    `images` (N, C, H, W) uint8 and `labels` (N,) int64 on the device. Ends early, after a last yield, once `stop()`.
    """
    steps = steps_per_epoch(len(images), plan.batch_size)
    optimizer, schedule = make_optimizer(model, plan, total_steps=steps * plan.epochs)
    at = Progress()
    totals = torch.zeros(3, device=images.device)  # loss sum, correct, images seen this epoch
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        at = Progress(state["epoch"], state["step"])
        totals = state["totals"].to(images.device)
    use_bf16 = plan.autocast == "bf16" or (plan.autocast == "auto" and backend.has_bf16())

    def snapshot() -> dict[str, Any]:
        return {
            "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
            "epoch": at.epoch, "step": at.step, "totals": totals.cpu(),
        }  # fmt: skip

    model.train()
    while at.epoch < plan.epochs:
        order = torch.randperm(len(images), generator=_generator(plan.seed, at.epoch, -1))  # the same on every device
        while at.step < steps:
            chosen = order[at.step * plan.batch_size : (at.step + 1) * plan.batch_size].to(images.device)
            draws = _generator(plan.seed, at.epoch, at.step)
            batch = augment(images[chosen], draws, shift=plan.shift, flip=plan.flip).float()  # (B, C, H, W), 0..255
            target = labels[chosen]
            with backend.autocast(use_bf16):
                logits = model(batch).float()  # (B, classes)
                loss = functional.cross_entropy(logits, target, label_smoothing=plan.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            lr = optimizer.param_groups[0]["lr"]  # of this step: afterwards it is the next one's
            optimizer.step()
            schedule.step()
            correct = (logits.argmax(1) == target).sum()
            totals += torch.stack([loss.detach() * len(target), correct.float(), correct.new_tensor(len(target)).float()])
            at.step += 1
            ended, stopping = at.step == steps, stop()
            if at.step % LOG_STEPS == 0 or ended or stopping:
                loss_sum, right, seen = totals.tolist()  # waits for the device
                figures = Figures(at.epoch, at.step, int(seen), loss_sum / seen, right / seen, lr, ended)
                if ended:
                    at, totals = Progress(at.epoch + 1, 0), torch.zeros_like(totals)
                yield figures, snapshot
                if stopping:
                    return
                if ended:
                    break


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """A CPU generator that depends on nothing else; random.Random spreads neighbouring seeds far apart."""
    return torch.Generator().manual_seed(random.Random(f"{seed}/{epoch}/{step}").getrandbits(63))
