"""The verb: recipe → data → device → loop → checkpoint → accuracy measured again from the saved file."""

import json
import math
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from toolkit import devices
from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.data import Dataset, load
from toolkit.errors import CheckpointError, ToolkitError
from toolkit.networks import Classifier, build, from_checkpoint, parameter_counts
from toolkit.progress import progress, say
from toolkit.recipe import Recipe
from toolkit.training.evaluate import count_correct
from toolkit.training.loop import Figures, run
from toolkit.training.selftest import check_gradients
from toolkit.workspace import Workspace, replacing_folder, write_text

SAVE_EVERY_S = 600.0  # within an epoch; a checkpoint is written at every epoch's end anyway


@dataclass(frozen=True)
class TrainResult:
    checkpoint: Path
    finished: bool
    metrics: dict[str, float]


def train(workspace: Workspace, recipe: Recipe, *, device: str = "auto", data_dir: Path | None = None, resume: bool = False) -> TrainResult:
    """Trains to the end of the recipe, or to Ctrl-C. Either way the workspace then holds a usable checkpoint.

    Raises DeviceError, DataError, CheckpointError (nothing to resume, or another recipe), ToolkitError (diverged).
    """
    backend, reason = devices.choose(device)
    say(f"device: {backend.id} ({reason})")
    previous = _to_resume(workspace, recipe) if resume else None
    if previous is not None and previous.card.finished:
        say(f"training had already finished; nothing to resume in {workspace.checkpoint}")
        if "test_accuracy" not in previous.card.metrics:  # it was stopped while that was being measured
            return _measure(workspace, load(recipe.data.set, data_dir))
        return TrainResult(workspace.checkpoint, True, previous.card.metrics)
    data = load(recipe.data.set, data_dir)
    torch.manual_seed(recipe.train.seed)
    model = from_checkpoint(previous) if previous else build(recipe, len(data.classes), data.train_images.shape[1])
    say(f"model: {recipe.name}, {parameter_counts(model)['total']:,} parameters; data: {data.name}, "
        f"{len(data.train_images):,} train and {len(data.test_images):,} test images")  # fmt: skip
    if backend.id != "cpu":
        error = check_gradients(model, data.train_images[:8], data.train_labels[:8], backend)
        say(f"self-test: gradients on {backend.id} agree with float64 on the CPU within {error:.1e}")
    finished = _fit(workspace, recipe, data, model.to(backend.torch_device), backend, previous)
    if not finished:
        say(f"interrupted; the checkpoint in {workspace.checkpoint} is usable, and --resume goes on from it")
        return TrainResult(workspace.checkpoint, False, Checkpoint.open(workspace.checkpoint).card.metrics)
    return _measure(workspace, data)


def _to_resume(workspace: Workspace, recipe: Recipe) -> Checkpoint:
    checkpoint = Checkpoint.open(workspace.checkpoint)
    if checkpoint.card.recipe_hash != recipe.hash:
        raise CheckpointError(
            f"the checkpoint in {workspace.checkpoint} was made by another recipe (hash {checkpoint.card.recipe_hash[:12]}, "
            f"now {recipe.hash[:12]}). Resume with the same flags and recipe, or train without --resume"
        )
    return checkpoint


def _fit(
    workspace: Workspace, recipe: Recipe, data: Dataset, model: Classifier, backend: devices.Backend, previous: Checkpoint | None
) -> bool:
    """Runs the loop, writing metrics and checkpoints. True when it came to its end, False when interrupted."""
    plan = recipe.train
    images, labels = data.train_images[: plan.subset], data.train_labels[: plan.subset]
    total = len(images) * plan.epochs
    state = previous.resume_state() if previous else None
    log = _MetricsLog(workspace.metrics, keep=state["records"] if state else 0)
    saved_at = started = time.monotonic()
    device = backend.torch_device
    with _interruptible() as stop, progress("train", total) as update:
        for figures, snapshot in run(model, images.to(device), labels.to(device), plan, backend, state, stop):
            _check_finite(figures, plan.lr)
            epochs = figures.epoch + (1 if figures.epoch_ended else figures.images / len(images))  # 1: a last single image is dropped
            done = round(epochs * len(images))
            update(done, loss=figures.loss, accuracy=figures.accuracy)
            log.add({**asdict(figures), "seconds": round(time.monotonic() - started, 3)})
            last = done == total
            if figures.epoch_ended and not last:
                log.add(_test_figures(model, data, backend, figures.epoch))
            if last or stop() or figures.epoch_ended or time.monotonic() - saved_at > SAVE_EVERY_S:
                resume = None if last else {**snapshot(), "records": log.records}
                _check_weights(model, plan.lr)
                metrics = {"train_loss": figures.loss, "train_accuracy": figures.accuracy}
                _save(workspace, recipe, data, model, backend, metrics, epochs, resume)
                saved_at = time.monotonic()
            if last:
                return True
    return False


def _check_finite(figures: Figures, lr: float) -> None:
    if not math.isfinite(figures.loss):
        raise _diverged(f"the loss is {figures.loss} in epoch {figures.epoch + 1}, step {figures.step}", lr)


def _check_weights(model: Classifier, lr: float) -> None:
    """Before a checkpoint takes the place of a good one: a step can break the weights after a loss that was still finite."""
    if broken := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise _diverged(f"NaN or Inf in {', '.join(broken[:5])}", lr)


def _diverged(what: str, lr: float) -> ToolkitError:
    return ToolkitError(
        f"training diverged: {what}. Lower the learning rate, now {lr:g}: --set train.lr={lr / 10:g}. "
        "The last good checkpoint, if any, was kept"
    )


def _test_figures(model: Classifier, data: Dataset, backend: devices.Backend, epoch: int) -> dict[str, float]:
    correct = count_correct(model, data.test_images, data.test_labels, backend, f"test after epoch {epoch + 1}")
    say(f"epoch {epoch + 1}: {100 * correct / len(data.test_labels):.2f} % of the test images right on {backend.id}")
    return {"epoch": epoch, "test_accuracy": correct / len(data.test_labels)}


def _save(
    workspace: Workspace, recipe: Recipe, data: Dataset, model: Classifier, backend: devices.Backend,
    metrics: dict[str, float], epochs_done: float, resume: dict[str, Any] | None,
) -> None:  # fmt: skip
    _, channels, height, width = data.train_images.shape
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": recipe.train.seed,
        "class_labels": list(data.classes), "input_shape": (channels, height, width), "device": backend.id,
        "finished": resume is None, "epochs_done": epochs_done, "metrics": metrics, "versions": _versions(),
    }  # fmt: skip
    with replacing_folder(workspace.checkpoint) as folder:
        write_checkpoint(folder, model.state_dict(), card, resume)


def _measure(workspace: Workspace, data: Dataset) -> TrainResult:
    """The accuracy that counts: of the saved file, in fp32, on the CPU, whatever device trained it."""
    checkpoint = Checkpoint.open(workspace.checkpoint)
    model = from_checkpoint(checkpoint)
    correct = count_correct(model, data.test_images, data.test_labels, devices.BACKENDS["cpu"], "test, from the saved file")
    metrics = {
        **checkpoint.card.metrics,
        "test_correct": correct, "test_images": len(data.test_labels), "test_accuracy": correct / len(data.test_labels),
    }  # fmt: skip
    card = checkpoint.card.model_dump(mode="json", exclude={"weights_sha256", "metrics"})
    with replacing_folder(workspace.checkpoint) as folder:
        write_checkpoint(folder, checkpoint.weights(), {**card, "metrics": metrics}, resume=None)
    return TrainResult(workspace.checkpoint, True, metrics)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}


class _MetricsLog:
    """metrics.jsonl, one record a line; a resumed run goes on after the records of its checkpoint."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        kept = path.read_text(encoding="utf-8").splitlines()[:keep] if keep and path.is_file() else []
        write_text(path, "".join(line + "\n" for line in kept))
        self.records = len(kept)

    def add(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records += 1


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Yields `stop()`, True from the first Ctrl-C on: the step in hand is finished and saved. A second one ends at once."""
    asked = False

    def ask(_signum: int, _frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("Ctrl-C: finishing this step and saving (once more to stop at once)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
