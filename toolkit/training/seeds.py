"""The same recipe from several seeds: one run says little about a recipe, their mean and spread say more."""

import json
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint import CARD, RESUME
from toolkit.disks import require_room
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.scratch import put_back
from toolkit.training import keep
from toolkit.training.fit import Training, session
from toolkit.workspace import Workspace, keep_recipe
from toolkit.writing import alone_in, check_files, write_text

SEEDS = "seeds"  # the folder of the runs


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
    recipes = [_of_seed(workspace, recipe, recipe.train.seed + number) for number in range(count)]
    places = [Workspace(workspace.folder / SEEDS / str(each.train.seed), workspace.recipe) for each in recipes]
    with session(device) as (backend, ranks), alone_in(workspace.folder) if ranks.leads else nullcontext():
        if ranks.leads:
            put_back(workspace.folder)
            for each, varied in zip((workspace, *places), (recipe, *recipes), strict=True):  # before the first of them is trained
                keep.check_places(each, varied, workspace.folder)
                require_room(each.folder)
            check_files(workspace.folder, workspace.folder / SEEDS / "seeds.json", workspace.checkpoint / RESUME)
            _refuse_to_lose(workspace, recipe, dict(zip(places, recipes, strict=True)), **options)
            keep_recipe(workspace)
        ranks.wait()
        keep.say_what_is_replaced(workspace, recipe)
        for number, (varied, place) in enumerate(zip(recipes, places, strict=True), start=1):
            seed = varied.train.seed
            say(f"seed {seed} ({number} of {count})")
            training = Training(place, varied, backend, ranks, **options, instead_of=workspace if options.get("restart") else None)
            result = training.end()
            if result.finished:
                runs[str(seed)] = result.metrics
            if result.reached is not None:
                reached[str(seed)] = result.reached
            if not result.finished or (training.stopped and number < count):
                return _summary(workspace, runs, reached, finished=False)
        summary = _summary(workspace, runs, reached, finished=True)
        if ranks.leads:
            keep.adopt(workspace, places[0])
            values = {**asdict(summary), "checkpoint": workspace.checkpoint.name, "recipe_hash": recipe.hash}
            write_text(workspace.folder / SEEDS / "seeds.json", json.dumps(values, indent=1) + "\n", workspace.folder)
        ranks.wait()
    return summary


def _of_seed(workspace: Workspace, recipe: Recipe, seed: int) -> Recipe:
    """Raises RecipeError where there is no such seed."""
    values = recipe.model_dump(mode="json")
    return Recipe.from_values({**values, "train": {**values["train"], "seed": seed}}, source=f"{workspace.recipe}, with a seed of --seeds,")


def _refuse_to_lose(
    workspace: Workspace, recipe: Recipe, places: dict[Workspace, Recipe], *, resume: bool = False, restart: bool = False, **_: Any
) -> None:
    """The model's own checkpoint is replaced at the end: --restart alone gives it up, and a series that has begun was told so."""
    if restart:
        return
    keep.refuse_unfinished(
        workspace, recipe, "--seeds would replace it in the end: finish it with --resume and without --seeds, or give it up with --restart"
    )
    if not (resume and any((place.checkpoint / CARD).is_file() for place in places)):
        keep.refuse_finished(
            workspace, recipe, "--seeds would replace it in the end, by the run of the first seed: --restart asks for that"
        )
    for place, varied in () if resume else places.items():
        keep.refuse_unfinished(place, varied)
    for place, varied in () if resume else places.items():
        keep.refuse_finished(place, varied, "--resume keeps it and trains the seeds that are missing; --restart trains all of them again")


def _summary(workspace: Workspace, runs: dict[str, dict[str, float]], reached: dict[str, bool], *, finished: bool) -> SeedsResult:
    test, held_out = ([metrics[name] for metrics in runs.values() if name in metrics] for name in ("test_accuracy", "held_out_accuracy"))
    return SeedsResult(workspace.checkpoint, finished, runs, *_mean_and_sd(test), *_mean_and_sd(held_out), reached or None)


def _mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None
