"""The training loop: reads from top to bottom, and can stop and go on at any step.

Every random draw depends on (seed, epoch) and the place in the epoch alone, so that a run that was interrupted and resumed takes
the very steps of one that was not. The whole data set lies on the device as uint8, and so do an epoch's draws: there is no loader,
and no step waits for the device.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.data.augment import Augmentation, augment, draw
from toolkit.devices import Backend
from toolkit.errors import RecipeError
from toolkit.ranks import Ranks
from toolkit.recipe import Train
from toolkit.training.distributed import share_batch_norm
from toolkit.training.schedule import Average, make_optimizer

LOG_STEPS = 20  # reading a figure waits for the device, so not at every step
STOP_STEPS = 4  # several processes ask each other this often whether one was told to stop, and wait for the answer


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


def steps_per_epoch(images: int, batch_size: int, ranks: int = 1) -> int:
    """The last, smaller batch counts, unless a process would get no image, or batch-norm, which cannot train on one, only one."""
    whole, rest = divmod(images, batch_size)
    return whole + (rest >= max(2, ranks))


class Run:
    """One run of a plan over images (N, C, H, W) uint8 and labels (N,) int64, which lie on the device, as the model does.

    `epoch` and `step` within it say how many have been done; `result` is the model that the run is for. A model in float64 is trained
    in float64, on a CPU.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, plan: Train, backend: Backend, ranks: Ranks | None = None) -> None:
        self.images, self.labels, self.plan, self.backend, self.ranks = images, labels, plan, backend, ranks or Ranks()
        self.steps = steps_per_epoch(len(images), plan.batch_size, self.ranks.size)  # in an epoch
        if not self.steps:
            raise RecipeError(
                f"{len(images):,} training images are too few for {self.ranks.size} processes, each of which needs one. "
                "Use a smaller --nproc"
            )
        self.total_steps = max(1, round(plan.epochs * self.steps))
        self.bf16 = plan.autocast == "bf16" or (plan.autocast == "auto" and backend.has_bf16())
        self.layout = torch.channels_last if backend.channels_last(plan.channels_last) else torch.contiguous_format
        self.model = model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.dtype = next(model.parameters()).dtype
        self.average = Average(self.model, plan.ema) if plan.ema else None
        if self.ranks.size > 1:
            self.model = share_batch_norm(self.model, backend)
        self.shared = self.ranks.wrap(self.model)
        self.optimizer, self.schedule = make_optimizer(self.model, plan, self.total_steps)
        self.epoch = self.step = 0
        self.stopping = False
        self.totals = torch.zeros(2, dtype=self.dtype, device=images.device)  # of this epoch: sum of the loss, how many were right

    @property
    def result(self) -> nn.Module:
        return self.average.module if self.average else self.model

    @property
    def done(self) -> bool:
        return self.epoch * self.steps + self.step >= self.total_steps

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.step / self.steps

    @property
    def seen(self) -> int:
        """Images of this epoch."""
        return min(self.step * self.plan.batch_size, len(self.images))

    @property
    def visits(self) -> int:
        """Images since the beginning, each as often as it was seen."""
        return self._visits_by(self.epoch, self.step)

    @property
    def all_visits(self) -> int:
        """As many as it will be at the end."""
        return self._visits_by(*divmod(self.total_steps, self.steps))

    def _visits_by(self, epoch: int, step: int) -> int:
        return epoch * min(self.steps * self.plan.batch_size, len(self.images)) + min(step * self.plan.batch_size, len(self.images))

    @property
    def setting(self) -> dict[str, str]:
        """What the arithmetic depends on beside the recipe: on a CPU, a run that goes on in the same one goes on bit for bit."""
        return {
            "device": self.backend.id, "precision": "bf16 autocast" if self.bf16 else "fp32",
            "layout": "channels_last" if self.layout is torch.channels_last else "contiguous",
            "threads": str(torch.get_num_threads()), "processes": str(self.ranks.size),
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, beside the weights of `result`."""
        return {
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "epoch": self.epoch, "step": self.step, "steps": self.steps, "totals": self.totals.cpu(),
            "model": self.model.state_dict() if self.average else {},
            "updates": self.average.updates if self.average else 0,
        }  # fmt: skip

    def go_on_from(self, state: dict[str, Any]) -> None:
        """`state()` of an earlier run whose `result` the model was built from. Raises ValueError, and others, where it is none."""
        if state["steps"] != self.steps:
            raise ValueError(f"an epoch had {state['steps']} steps, and has {self.steps} with as many processes as there are now")
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        if not (self.epoch >= 0 and 0 <= self.step < self.steps) or self.done:
            raise ValueError(f"step {self.step} of epoch {self.epoch}, where {self.plan.epochs:g} have {self.steps} steps each")
        if self.ranks.leads:
            self.totals.copy_(state["totals"])
        if self.average:
            self.model.load_state_dict(state["model"])
            self.average.updates = int(state["updates"])
            if self.average.updates < 0:
                raise ValueError(f"{self.average.updates} updates of the average")

    def figures(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Figures]:
        """Takes the steps. Yields at the first, then every LOG_STEPS, and at every epoch's end; once `stop()`, a last time."""
        self.model.train()
        drawn = self.draw()
        while not self.done:
            lr = self.take_step(*drawn)
            ended = self.step == self.steps
            self.stopping = self._asked(stop, ended)
            if self.step % LOG_STEPS == 0 or (self.epoch, self.step) == (0, 1) or ended or self.stopping or self.done:
                totals, images = self.ranks.sum(self.totals), self.seen
                loss_sum, right = totals.tolist()  # waits for the device
                figures = Figures(self.epoch, self.step, images, loss_sum / images, right / images, lr, ended)
                self.totals = totals if self.ranks.leads and not ended else torch.zeros_like(totals)  # what is summed, one rank keeps
                if ended:
                    self.epoch, self.step = self.epoch + 1, 0
                    drawn = self.draw()
                yield figures
                if self.stopping:
                    return

    def _asked(self, stop: Callable[[], bool], ended: bool) -> bool:
        return self.ranks.any(stop()) if self.ranks.size == 1 or ended or self.step % STOP_STEPS == 0 else False

    def draw(self) -> tuple[Tensor, Tensor]:
        """Of this epoch, the same on every device: the images' order (N,), and what their augmentation takes (N, DRAWS), place by place."""
        seed = random.Random(f"{self.plan.seed}/{self.epoch}").getrandbits(63)  # spreads neighbouring seeds far apart
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.images), generator=generator)
        return order.to(self.images.device), draw(len(order), generator).to(self.images.device)

    def take_step(self, order: Tensor, draws: Tensor) -> float:
        """One batch forward, backward, and into the weights. Returns the learning rate; loss and hits go into the totals."""
        plan, places = self.plan, slice(self.step * self.plan.batch_size, (self.step + 1) * self.plan.batch_size)
        chosen = self.ranks.share(order[places])  # (B / ranks,)
        batch = augment(self.images[chosen], self.ranks.share(draws[places]), self._augmentation())
        batch = batch.to(self.dtype).contiguous(memory_format=self.layout)  # (B / ranks, C, H, W), 0..255
        target = self.labels[chosen]
        with self.backend.autocast(self.bf16):
            logits = self.shared(batch).to(self.dtype)  # (B / ranks, classes)
            loss = functional.cross_entropy(logits, target, label_smoothing=plan.label_smoothing, reduction="sum")
        self.optimizer.zero_grad(set_to_none=True)
        (loss * (self.ranks.size / len(order[places]))).backward()  # the mean over the batch: gradients are averaged over the ranks
        lr = self.optimizer.param_groups[0]["lr"]  # of this step: afterwards it is the next one's
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update(self.model)
        self.totals += torch.stack([loss.detach(), (logits.argmax(1) == target).sum().to(self.dtype)])
        self.step += 1
        return float(lr)

    def _augmentation(self) -> Augmentation:
        plan, at = self.plan, self.epoch * self.steps + self.step
        if at >= (1 - plan.plain_end) * self.total_steps:
            return Augmentation()
        return Augmentation(plan.shift, plan.rotate, plan.scale, plan.shear, plan.flip)
