"""What a run leaves on the disk: its checkpoint, and with it its curves (curves.py)."""

import math
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.checkpoint import CARD, RESUME, Card, Checkpoint, write_checkpoint
from toolkit.data import Dataset
from toolkit.disks import SLACK_BYTES, why_not_writable
from toolkit.errors import CheckpointError
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.scratch import recover, scratch
from toolkit.training.curves import MetricsLog, check_events, forget_begun, or_checkpoint_error, take_their_place
from toolkit.training.loop import Run
from toolkit.workspace import Workspace
from toolkit.writing import check_place, replacing_folder

COPIES = 5  # of the weights: the old checkpoint and the new one, each with what the optimiser keeps of every weight


def to_resume(workspace: Workspace, recipe: Recipe) -> Checkpoint | None:
    """The checkpoint of an unfinished (or finished) run of this very recipe; None where there is none at all."""
    if not workspace.checkpoint.exists() and not workspace.checkpoint.is_symlink():  # a link to a disk that is not there is no beginning
        say(f"nothing to resume in {workspace.checkpoint}: beginning")
        return None
    checkpoint = Checkpoint.open(workspace.checkpoint)
    if checkpoint.card.finished and workspace.new_metrics(recipe.hash).exists():
        say(f"the run that was to replace the finished one in {workspace.checkpoint} had saved nothing yet: beginning")
        return None
    if checkpoint.card.recipe_hash != recipe.hash:
        raise CheckpointError(
            f"the checkpoint in {workspace.checkpoint} was made by another recipe (hash {checkpoint.card.recipe_hash[:12]}, "
            f"now {recipe.hash[:12]}). Resume with the same flags and recipe, or begin anew: --restart"
        )
    return checkpoint


def refuse_to_lose(workspace: Workspace, recipe: Recipe, otherwise: str | None = None) -> None:
    """Raises CheckpointError where a checkpoint would be replaced that nobody gave up. `otherwise`: what to do instead."""
    refuse_unfinished(workspace, recipe, otherwise)
    refuse_finished(workspace, recipe, otherwise)


def refuse_unfinished(workspace: Workspace, recipe: Recipe, otherwise: str | None = None) -> None:
    if not (workspace.checkpoint / RESUME).is_file():
        return
    try:
        checkpoint = Checkpoint.open(workspace.checkpoint)
        far = f", {checkpoint.card.epochs_done:.3g} of {checkpoint.recipe.train.epochs:g} epochs long"
    except CheckpointError as error:  # of a later toolkit, or damaged
        raise CheckpointError(
            f"an unfinished run lies in {workspace.checkpoint}, and cannot be gone on with: {error}. --restart begins anew"
        ) from error
    own = checkpoint.card.recipe_hash == recipe.hash
    by = "the same command" if own else "the command that began it"
    advice = otherwise or f"With --resume {by} goes on with it; --restart begins anew"
    raise CheckpointError(f"an unfinished run lies in {workspace.checkpoint}{_of_another(checkpoint.card, recipe)}{far}. {advice}")


def refuse_finished(workspace: Workspace, recipe: Recipe, otherwise: str | None = None) -> None:
    """Hours of computing may be in it, and exports, reports and evidence rest on it."""
    if (workspace.checkpoint / RESUME).is_file() or not (workspace.checkpoint / CARD).is_file():  # without a card it is not ours
        return
    try:
        checkpoint = Checkpoint.open(workspace.checkpoint)
    except CheckpointError as error:  # of a later toolkit, or damaged
        raise CheckpointError(
            f"a checkpoint lies in {workspace.checkpoint}, and cannot be read: {error}. --restart trains again and replaces it"
        ) from error
    if not checkpoint.card.finished:  # nor to be gone on with: it was given up
        return
    advice = otherwise or "--restart trains it again, and replaces it; --resume leaves a finished model as it is"
    which = _of_another(checkpoint.card, recipe)
    raise CheckpointError(f"a finished model lies in {workspace.checkpoint}{which}, {_reached(checkpoint)}. Nothing was done. {advice}")


def _of_another(card: Card, recipe: Recipe) -> str:
    return "" if card.recipe_hash == recipe.hash else f", of another recipe (hash {card.recipe_hash[:12]}, now {recipe.hash[:12]})"


def _reached(checkpoint: Checkpoint) -> str:
    card = checkpoint.card
    right = f", {100 * card.metrics['test_accuracy']:.2f} % of the test images right" if "test_accuracy" in card.metrics else ""
    return f"{card.epochs_done:.3g} of {checkpoint.recipe.train.epochs:g} epochs{right}"


def give_up(workspace: Workspace) -> None:
    """An unfinished run is not to be gone on with; what it has reached stays usable until something takes its place."""
    check_place(workspace.checkpoint / RESUME, workspace.folder)
    with or_checkpoint_error(workspace):
        (workspace.checkpoint / RESUME).unlink(missing_ok=True)


def say_what_is_replaced(workspace: Workspace, recipe: Recipe) -> None:
    """Names the finished model that will go, where another recipe made it."""
    try:
        checkpoint = Checkpoint.open(workspace.checkpoint)
    except CheckpointError:  # none, or a damaged one: nothing to miss
        return
    if checkpoint.card.finished and checkpoint.card.recipe_hash != recipe.hash:
        say(f"the finished model in {workspace.checkpoint} ({_reached(checkpoint)}) will be replaced: another recipe made it")


def go_on(run: Run, checkpoint: Checkpoint, state: dict[str, Any]) -> int:
    """The run goes on where its checkpoint was written. Returns at how many visits it last looked at its goal."""
    before = {**checkpoint.card.setting, "torch": checkpoint.card.versions.get("torch", "?")}
    present = {**run.setting, "torch": _versions()["torch"]}
    processes = before.get("processes", "1")
    if state.get("steps") != run.steps and processes != present["processes"]:
        raise CheckpointError(
            f"the run in {checkpoint.folder} was begun with --nproc {processes}: {state.get('steps')} steps an epoch. With "
            f"{present['processes']} there are {run.steps}, for each process needs an image of the last batch. "
            f"Go on with --nproc {processes}"
        )
    try:
        run.go_on_from(state)
        counts = {name: float(state[name]) for name in ("looked_at", *MetricsLog.STATE)}
        if not all(0 <= count < math.inf for count in counts.values()):
            raise ValueError(", ".join(f"{name} {count:g}" for name, count in counts.items()))
        state |= counts
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]  # torch lists every tensor
        raise CheckpointError(
            f"{checkpoint.folder / RESUME} is not of this toolkit and this model ({reason}). Begin anew: --restart"
        ) from error
    if differing := {name for name, value in present.items() if before.get(name) != value}:
        was, now = ({name: each.get(name, "?") for name in sorted(differing)} for each in (before, present))
        say(f"begun with {_listed(was)}, going on with {_listed(now)}: close to an undisturbed run, but not bit for bit")
    return int(counts["looked_at"])


def _listed(setting: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def save(
    workspace: Workspace, recipe: Recipe, data: Dataset, run: Run, log: MetricsLog, metrics: dict[str, float],
    resume: dict[str, Any] | None,
) -> None:  # fmt: skip
    """Replaces the checkpoint as a whole, and the curves with it. `resume` None: the run has come to its end."""
    _, channels, height, width = data.train_images.shape
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": recipe.train.seed,
        "class_labels": list(data.classes), "input_shape": (channels, height, width), "device": run.backend.id, "setting": run.setting,
        "finished": resume is None, "epochs_done": run.epochs_done, "metrics": metrics, "versions": _versions(),
    }  # fmt: skip
    _write(workspace, run.result.state_dict(), card, resume, log.settle)


def adopt(workspace: Workspace, other: Workspace) -> None:
    """Checkpoint and curves of another run become this model's own, and nothing else's stay."""
    recover(workspace.folder)
    with or_checkpoint_error(workspace), scratch(workspace.metrics) as copies:  # no name that somebody could have taken before
        curves, events = copies / workspace.metrics.name, copies / workspace.events.name
        forget_begun(workspace)
        for source, target in ((other.metrics, curves), (other.events, events)):
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copyfile(source, target)
        with replacing_folder(workspace.checkpoint, workspace.folder, lambda: take_their_place(workspace, curves, events)) as folder:
            shutil.copytree(other.checkpoint, folder, dirs_exist_ok=True)


def check_places(workspace: Workspace, recipe: Recipe, root: Path) -> None:
    """Raises ToolkitError where what a run leaves could not take its place. `root`: the model's folder, in which that of the run lies."""
    check_place(workspace.checkpoint, root, folder=True)
    for path in (workspace.metrics, workspace.new_metrics(recipe.hash)):
        check_place(path, root)
    for path in (workspace.events, workspace.new_events(recipe.hash)):
        check_events(path, root)


def check_writable(workspace: Workspace, recipe: Recipe, weights_bytes: int) -> None:
    """Raises ToolkitError where this run's files could not be written: before anything is computed."""
    check_places(workspace, recipe, workspace.folder)
    if why := why_not_writable(workspace.folder, COPIES * weights_bytes + SLACK_BYTES, weights_bytes):
        raise CheckpointError(
            f"cannot write the checkpoint in {workspace.checkpoint}: {why}. The one that was there, if any, was kept. "
            "Make room there, and give the same command again"
        )


def _write(
    workspace: Workspace, weights: dict[str, Any], card: dict[str, Any], resume: dict[str, Any] | None,
    once_whole: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    with or_checkpoint_error(workspace), replacing_folder(workspace.checkpoint, workspace.folder, once_whole) as folder:
        write_checkpoint(folder, weights, card, resume)


def add_metrics(workspace: Workspace, checkpoint: Checkpoint, found: dict[str, float]) -> dict[str, float]:
    """The same weights with more on their card: what was measured from the saved file."""
    metrics = {**checkpoint.card.metrics, **found}
    card = checkpoint.card.model_dump(mode="json", exclude={"weights_sha256", "metrics"})
    _write(workspace, checkpoint.weights(), {**card, "metrics": metrics}, resume=None)
    return metrics


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    return {"toolkit": __version__, "python": platform.python_version(), "platform": platform.platform(), **packages}
