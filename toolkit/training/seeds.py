"""The same recipe from several seeds: one run says little about a recipe, their mean and spread say more."""

import json
import shutil
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint import Checkpoint
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.training.fit import TrainResult, train
from toolkit.workspace import Workspace, replacing_folder, write_text


@dataclass(frozen=True)
class SeedsResult:
    """`runs`: seed → what its run measured. Mean and standard deviation are of the test accuracies, as shares of 1.

    The model's own checkpoint is that of the first seed, whichever is the best: picking one would be choosing on the test set.
    """

    checkpoint: Path
    finished: bool
    runs: dict[str, dict[str, float]]
    mean: float | None
    sd: float | None


def train_seeds(workspace: Workspace, recipe: Recipe, count: int, *, resume: bool = False, **options: Any) -> SeedsResult:
    """Trains `count` runs, from the recipe's seed upwards, into seeds/<seed>/ of the workspace. `options` are those of `train`.

    With `resume`, finished runs are kept, an unfinished one goes on, and those that had not begun begin.
    """
    runs: dict[str, dict[str, float]] = {}
    first = recipe.train.seed
    for seed in range(first, first + count):
        place = Workspace(workspace.folder / "seeds" / str(seed), workspace.recipe)
        varied = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
        say(f"seed {seed} ({seed - first + 1} of {count})")
        result: TrainResult = train(place, varied, resume=resume and place.checkpoint.exists(), **options)
        if not result.finished:
            return _summary(workspace, runs, finished=False)
        runs[str(seed)] = result.metrics
    with replacing_folder(workspace.checkpoint) as folder:
        shutil.copytree(workspace.folder / "seeds" / str(first) / "checkpoint", folder, dirs_exist_ok=True)
    shutil.copyfile(workspace.folder / "seeds" / str(first) / workspace.metrics.name, workspace.metrics)
    Checkpoint.open(workspace.checkpoint)
    summary = _summary(workspace, runs, finished=True)
    values = {**asdict(summary), "checkpoint": workspace.checkpoint.name, "recipe_hash": recipe.hash}
    write_text(workspace.folder / "seeds" / "seeds.json", json.dumps(values, indent=1) + "\n")
    return summary


def _summary(workspace: Workspace, runs: dict[str, dict[str, float]], *, finished: bool) -> SeedsResult:
    accuracies = [metrics["test_accuracy"] for metrics in runs.values()]
    mean = statistics.fmean(accuracies) if accuracies else None
    return SeedsResult(workspace.checkpoint, finished, runs, mean, statistics.stdev(accuracies) if len(accuracies) > 1 else None)
