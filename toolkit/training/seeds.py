"""The same recipe from several seeds: one run says little about a recipe, their mean and spread say more."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.training import keep
from toolkit.training.fit import Training, session
from toolkit.workspace import Workspace, write_text


@dataclass(frozen=True)
class SeedsResult:
    """`runs`: seed → what its run measured. `mean` and `sd` are of the test accuracies, `held_out_mean` and `held_out_sd` of those on
    held-out images, which are the ones to choose by; shares of 1, None where there are none (for sd: fewer than two).

    The model's own checkpoint is that of the first seed, whichever is the best: picking one would be choosing on the test set.
    """

    checkpoint: Path
    finished: bool
    runs: dict[str, dict[str, float]]
    mean: float | None
    sd: float | None
    held_out_mean: float | None = None
    held_out_sd: float | None = None
    reached: dict[str, bool] | None = None  # seed → was the accuracy that was asked for, where one was

    @property
    def missed(self) -> bool:
        return not all((self.reached or {}).values())


def train_seeds(workspace: Workspace, recipe: Recipe, count: int, *, device: str = "auto", **options: Any) -> SeedsResult:
    """Trains `count` runs, from the recipe's seed upwards, into seeds/<seed>/ of the workspace. `options` are those of `Training`.

    With `resume`, finished runs are kept, an unfinished one goes on, and those that had not begun begin. Several processes
    share each run, one after the other.
    """
    runs: dict[str, dict[str, float]] = {}
    reached: dict[str, bool] = {}
    seeds = range(recipe.train.seed, recipe.train.seed + count)
    places = {seed: Workspace(workspace.folder / "seeds" / str(seed), workspace.recipe) for seed in seeds}
    with session(device) as (backend, ranks):
        if not options.get("restart"):
            for place in [workspace] if options.get("resume") else [workspace, *places.values()]:
                keep.refuse_to_lose(place)
        keep.say_what_is_replaced(workspace, recipe)
        for number, (seed, place) in enumerate(places.items(), start=1):
            say(f"seed {seed} ({number} of {count})")
            varied = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
            training = Training(place, varied, backend, ranks, **options)
            result = training.end()
            if result.finished:
                runs[str(seed)] = result.metrics
            if result.reached is not None:
                reached[str(seed)] = result.reached
            if not result.finished or (training.stopped and number < count):
                return _summary(workspace, runs, reached, finished=False)
        summary = _summary(workspace, runs, reached, finished=True)
        if ranks.leads:
            keep.adopt(workspace, places[recipe.train.seed])
            values = {**asdict(summary), "checkpoint": workspace.checkpoint.name, "recipe_hash": recipe.hash}
            write_text(workspace.folder / "seeds" / "seeds.json", json.dumps(values, indent=1) + "\n")
        ranks.wait()
    return summary


def _summary(workspace: Workspace, runs: dict[str, dict[str, float]], reached: dict[str, bool], *, finished: bool) -> SeedsResult:
    test, held_out = ([metrics[name] for metrics in runs.values() if name in metrics] for name in ("test_accuracy", "held_out_accuracy"))
    return SeedsResult(workspace.checkpoint, finished, runs, *_mean_and_sd(test), *_mean_and_sd(held_out), reached or None)


def _mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None
