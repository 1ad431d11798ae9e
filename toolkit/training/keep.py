"""What a run leaves on the disk: its checkpoint, and a record of every figure it read."""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.data import Dataset
from toolkit.errors import CheckpointError
from toolkit.recipe import Recipe
from toolkit.workspace import Workspace, replacing_folder, write_text

CURVES = {"loss", "accuracy", "lr", "test_accuracy", "held_out_accuracy"}  # what TensorBoard is shown


def to_resume(workspace: Workspace, recipe: Recipe) -> Checkpoint:
    """The checkpoint of an unfinished (or finished) run of this very recipe."""
    checkpoint = Checkpoint.open(workspace.checkpoint)
    if checkpoint.card.recipe_hash != recipe.hash:
        raise CheckpointError(
            f"the checkpoint in {workspace.checkpoint} was made by another recipe (hash {checkpoint.card.recipe_hash[:12]}, "
            f"now {recipe.hash[:12]}). Resume with the same flags and recipe, or train without --resume"
        )
    return checkpoint


def save(
    workspace: Workspace, recipe: Recipe, data: Dataset, model: nn.Module, device: str,
    metrics: dict[str, float], epochs_done: float, resume: dict[str, Any] | None,
) -> None:  # fmt: skip
    """Replaces the checkpoint as a whole. `resume` None: the run has come to its end."""
    _, channels, height, width = data.train_images.shape
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": recipe.train.seed,
        "class_labels": list(data.classes), "input_shape": (channels, height, width), "device": device,
        "finished": resume is None, "epochs_done": epochs_done, "metrics": metrics, "versions": _versions(),
    }  # fmt: skip
    _write(workspace, model.state_dict(), card, resume)


def _write(workspace: Workspace, weights: dict[str, Any], card: dict[str, Any], resume: dict[str, Any] | None) -> None:
    """Raises CheckpointError where the disk is full, or fails; the checkpoint that was there stays."""
    try:
        with replacing_folder(workspace.checkpoint) as folder:
            write_checkpoint(folder, weights, card, resume)
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch.save's, whatever went wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"cannot write the checkpoint in {workspace.checkpoint}: {reason}. The one that was there, if any, was kept. "
            "Make room, or name another folder of models with TOOLKIT_MODELS, and go on with --resume"
        ) from error


def add_metrics(workspace: Workspace, checkpoint: Checkpoint, found: dict[str, float]) -> dict[str, float]:
    """The same weights with more on their card: what was measured from the saved file."""
    metrics = {**checkpoint.card.metrics, **found}
    card = checkpoint.card.model_dump(mode="json", exclude={"weights_sha256", "metrics"})
    _write(workspace, checkpoint.weights(), {**card, "metrics": metrics}, resume=None)
    return metrics


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}


class MetricsLog:
    """metrics.jsonl, one record a line, and TensorBoard's event files where a folder is given for them.

    A resumed run goes on after the records of its checkpoint, and `seconds` goes on counting. Without a path, as in all
    processes but the first: nowhere.
    """

    def __init__(self, path: Path | None, state: dict[str, Any] | None, events: Path | None = None) -> None:
        self.path, self.records = path, 0
        self.started = time.monotonic() - (state["seconds"] if state else 0.0)
        self.board = _board(events) if events and path else None
        if path is not None:
            kept = path.read_text(encoding="utf-8").splitlines()[: state["records"]] if state and path.is_file() else []
            write_text(path, "".join(line + "\n" for line in kept))
            self.records = len(kept)

    def state(self) -> dict[str, Any]:
        return {"records": self.records, "seconds": time.monotonic() - self.started}

    def add(self, visits: float, record: dict[str, Any]) -> None:
        """A record after so many image visits."""
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "seconds": round(time.monotonic() - self.started, 3)}) + "\n")
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.path}: {error.strerror}. The last checkpoint, if any, was kept") from error
        self.records += 1
        if self.board is not None:
            for name in CURVES & record.keys():
                self.board.add_scalar(name, record[name], round(visits))

    def close(self) -> None:
        if self.board:
            self.board.close()


def _board(folder: Path) -> Any:
    """torch's own writer of TensorBoard event files; raises where the package is missing."""
    from toolkit.errors import ToolkitError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ToolkitError(
            f"--tensorboard needs the package tensorboard ({error}): pip install 'apple-deployment-toolkit[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))
