"""The verb: recipe → data → device → loop → checkpoint → accuracy measured again from the saved file."""

import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit import devices
from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset, held_out, load
from toolkit.errors import RecipeError, ToolkitError
from toolkit.networks import build, from_checkpoint, parameter_counts
from toolkit.progress import progress, quietly, say
from toolkit.recipe import Recipe, Train
from toolkit.training import keep
from toolkit.training.distributed import Ranks, joined
from toolkit.training.evaluate import count_correct, reaches
from toolkit.training.keep import MetricsLog
from toolkit.training.loop import Figures, Run
from toolkit.training.selftest import check_gradients
from toolkit.workspace import Workspace, recover

SAVE_MINUTES = 10.0  # within an epoch; a checkpoint is written at every epoch's end anyway
CHECK_IMAGES = 1000  # visits between two looks whether the accuracy that was asked for is reached


@dataclass(frozen=True)
class TrainResult:
    """`seconds`: how long each phase of this process took, of a resumed run since it was resumed."""

    checkpoint: Path
    finished: bool
    metrics: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)


def train(
    workspace: Workspace, recipe: Recipe, *, device: str = "auto", data_dir: Path | None = None, resume: bool = False,
    save_minutes: float = SAVE_MINUTES, tensorboard: bool = False,
) -> TrainResult:  # fmt: skip
    """Trains to the end of the recipe, or to Ctrl-C. Either way the workspace then holds a usable checkpoint.

    `tensorboard`: event files too, in tensorboard/ of the workspace. Under torchrun every process calls this, and the first one writes.
    Raises DeviceError, DataError, CheckpointError (nothing to resume, or another recipe), ToolkitError (diverged).
    """
    backend, reason = devices.choose(device)
    with joined(backend) as ranks, nullcontext() if ranks.leads else quietly():
        say(f"device: {backend.id} ({reason})" + (f"; {ranks.size} processes" if ranks.size > 1 else ""))
        return _Training(workspace, recipe, backend, ranks, save_minutes, tensorboard).end(data_dir, resume)


class _Training:
    """One call of `train`: what its phases share, and how long each has taken."""

    def __init__(
        self, workspace: Workspace, recipe: Recipe, backend: devices.Backend, ranks: Ranks, save_minutes: float, tensorboard: bool
    ) -> None:
        self.workspace, self.recipe, self.backend, self.ranks = workspace, recipe, backend, ranks
        self.save_minutes, self.events = save_minutes, workspace.events if tensorboard else None
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside counts under `name`, but for the phases within it, which count themselves."""
        started, before = time.monotonic(), sum(self.seconds.values())
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started - (sum(self.seconds.values()) - before)

    def end(self, data_dir: Path | None, resume: bool) -> TrainResult:
        if self.ranks.leads:
            recover(self.workspace.checkpoint)
        self.ranks.wait()
        previous = keep.to_resume(self.workspace, self.recipe) if resume else None
        with self.phase("data"):
            data = load(self.recipe.data.set, data_dir)
        if previous is not None and previous.card.finished:
            say(f"training had already finished; nothing to resume in {self.workspace.checkpoint}")
        elif not self._fit(data, previous):
            say(f"interrupted; the checkpoint in {self.workspace.checkpoint} is usable, and --resume goes on from it")
            metrics = Checkpoint.open(self.workspace.checkpoint).card.metrics
            return TrainResult(self.workspace.checkpoint, False, metrics, dict(self.seconds))
        return TrainResult(self.workspace.checkpoint, True, self._measure(data), dict(self.seconds))

    def _model(self, data: Dataset, previous: Checkpoint | None) -> nn.Module:
        """On the device, fresh or as it was; a GPU has computed its gradients right once."""
        torch.manual_seed(self.recipe.train.seed)
        model = from_checkpoint(previous) if previous else build(self.recipe, len(data.classes), data.train_images.shape[1])
        say(f"model: {self.recipe.name}, {parameter_counts(model)['total']:,} parameters; data: {data.name}, "
            f"{len(data.train_images):,} train and {len(data.test_images):,} test images")  # fmt: skip
        if self.backend.id != "cpu":
            with self.phase("self-test"):
                error = check_gradients(model, data.train_images[:8], data.train_labels[:8], self.backend)
            say(f"self-test: gradients on {self.backend.id} agree with float64 on the CPU within {error:.1e}")
        return model.to(self.backend.torch_device)

    def _fit(self, data: Dataset, previous: Checkpoint | None) -> bool:
        """Runs the loop, writing metrics and checkpoints. True when it came to its end, False when interrupted."""
        plan, device, model = self.recipe.train, self.backend.torch_device, self._model(data, previous)
        split = _split(data, plan)
        state = previous.resume_state() if previous else None
        run = Run(model, split.images.to(device), split.labels.to(device), plan, self.backend, self.ranks)
        if state is not None:
            run.go_on_from(state)
        log = MetricsLog(self.workspace.metrics if self.ranks.leads else None, state, self.events)
        images, saved_at, checked_at = len(split.images), time.monotonic(), state["checked_at"] if state else 0.0
        with (
            self.phase("training"),
            _interruptible() as stop,
            closing(log),
            progress("train", round(plan.epochs * images), done=round(run.epochs_done * images)) as update,
        ):
            for figures in run.figures(stop):
                _check_finite(figures, plan.lr)
                if (figures.epoch, figures.step) == (0, 1):
                    _say_first_loss(figures.loss, len(data.classes))
                update(round(run.epochs_done * images), loss=figures.loss, accuracy=figures.accuracy)
                log.add(run.epochs_done * images, asdict(figures))
                ended = run.done
                if plan.until_accuracy and (run.epochs_done - checked_at) * images >= CHECK_IMAGES:
                    checked_at = run.epochs_done
                    ended |= self._reaches(run, split, plan.until_accuracy)
                if figures.epoch_ended and not ended:
                    log.add(run.epochs_done * images, self._judge(run, split, figures.epoch))
                if ended or run.stopping or figures.epoch_ended or time.monotonic() - saved_at > 60 * self.save_minutes:
                    _check_weights(run.result, plan.lr)
                    metrics = {"train_loss": figures.loss, "train_accuracy": figures.accuracy}
                    if self.ranks.leads:
                        with self.phase("saving"):
                            resume = None if ended else {**run.state(), **log.state(), "checked_at": checked_at}
                            keep.save(self.workspace, self.recipe, data, run.result, self.backend.id, metrics, run.epochs_done, resume)
                    saved_at = time.monotonic()
                if ended:
                    return True
        return False

    def _judge(self, run: Run, split: "_Split", epoch: int) -> dict[str, float]:
        """For the curve, and on held-out images for choosing; the figure that counts is measured at the end, from the saved file."""
        title = f"{split.judge} images, after epoch {epoch + 1}"
        with self.phase("evaluation"):
            correct = count_correct(run.result, split.judged, split.judged_labels, self.backend, title, self.ranks, run.bf16)
        say(f"epoch {epoch + 1}: {100 * correct / len(split.judged):.2f} % of the {split.judge} images right on {self.backend.id}")
        return {"epoch": epoch, f"{split.judge.replace('-', '_')}_accuracy": correct / len(split.judged)}

    def _reaches(self, run: Run, split: "_Split", share: float) -> bool:
        with self.phase("evaluation"):
            there = reaches(run.result, split.judged, split.judged_labels, share, self.backend, self.ranks)
        if there:
            visits = round(run.epochs_done * len(split.images))
            say(f"{100 * share:g} % of the {len(split.judged):,} held-out images are right after {visits:,} image visits: stopping")
        return there

    def _measure(self, data: Dataset) -> dict[str, float]:
        """The accuracy that counts: of the saved file, in fp32, on the CPU, whatever device trained it."""
        self.ranks.wait()  # until the file is there
        checkpoint = Checkpoint.open(self.workspace.checkpoint)
        if "test_accuracy" in checkpoint.card.metrics:
            return checkpoint.card.metrics
        model, cpu = from_checkpoint(checkpoint), devices.BACKENDS["cpu"]
        with self.phase("evaluation"):
            correct = count_correct(model, data.test_images, data.test_labels, cpu, "test, from the saved file", self.ranks)
        total = len(data.test_labels)
        found = {"test_correct": correct, "test_images": total, "test_accuracy": correct / total}
        return keep.add_metrics(self.workspace, checkpoint, found) if self.ranks.leads else {**checkpoint.card.metrics, **found}


@dataclass(frozen=True)
class _Split:
    """What is trained on, and what the model is judged by on the way: held-out images, or the test set where none were asked for."""

    images: Tensor
    labels: Tensor
    judged: Tensor
    judged_labels: Tensor
    judge: str


def _split(data: Dataset, plan: Train) -> _Split:
    images, labels = data.train_images[: plan.subset], data.train_labels[: plan.subset]
    count = plan.holdout or (len(images) // 12 if plan.until_accuracy else 0)
    if not count:
        return _Split(images, labels, data.test_images, data.test_labels, "test")
    if count > len(images) // 2:
        raise RecipeError(f"train.holdout={count} is more than half of the {len(images):,} training images. Hold out fewer")
    rest, kept_out = held_out(labels, count)
    return _Split(images[rest], labels[rest], images[kept_out], labels[kept_out], "held-out")


def _say_first_loss(loss: float, classes: int) -> None:
    """A fresh network knows nothing: its loss is that of a guess, ln(classes), whatever the data are."""
    expected = math.log(classes)
    fits = (
        "as a network that knows nothing should have"
        if abs(loss - expected) < 0.5 * expected
        else "unlike a network that knows nothing: are inputs and labels as they should be?"
    )
    say(f"first step: loss {loss:.2f} (ln {classes} = {expected:.2f}), {fits}")


def _check_finite(figures: Figures, lr: float) -> None:
    if not math.isfinite(figures.loss):
        raise _diverged(f"the loss is {figures.loss} in epoch {figures.epoch + 1}, step {figures.step}", lr)


def _check_weights(model: nn.Module, lr: float) -> None:
    """Before a checkpoint takes the place of a good one: a step can break the weights after a loss that was still finite."""
    if broken := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise _diverged(f"NaN or Inf in {', '.join(broken[:5])}", lr)


def _diverged(what: str, lr: float) -> ToolkitError:
    return ToolkitError(
        f"training diverged: {what}. Lower the learning rate, now {lr:g}: --set train.lr={lr / 10:g}. "
        "The last good checkpoint, if any, was kept"
    )


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yields `stop()`, True from the first Ctrl-C (or SIGTERM) on: the step in hand is finished and saved. A second one ends at once."""
    asked = False

    def ask(_signum: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("told to stop: finishing this step and saving (Ctrl-C once more to stop at once)")

    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        yield lambda: asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
