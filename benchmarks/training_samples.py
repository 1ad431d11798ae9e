"""How many images, and how many seconds, to the 98.21 % that the reference experiment reports.

    python -m benchmarks.training_samples [--seeds 3] [--write]

toolkit: `toolkit train resnet18-mnist-sprint`, to its end, some seeds. plain: benchmarks/plain_training.py, until it is there
for the first time; it is looked at every LOOK images, at no cost in its time. Both on the same machine, one after the other, by the
whole test set. Ends with 1 where a seed misses the bar, or takes more than MOST images for it.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.plain_training import Plain
from toolkit.environment import describe, in_words
from toolkit.recipe import Recipe
from toolkit.training import train
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
MODEL = "resnet18-mnist-sprint"
BAR = 0.9821
MOST = 10_000
LOOK = 6400
LIMIT = 600_000  # what the reference experiment took


@dataclass(frozen=True)
class Run:
    arm: str
    seed: int
    visits: int
    seconds: float  # training alone, without reading data, judging and saving
    correct: int  # of the 10,000 test images


def ours(seed: int) -> Run:
    path = Workspace.of(MODEL).recipe
    recipe = Recipe.read(path, [f"train.seed={seed}"])
    with tempfile.TemporaryDirectory() as scratch:
        result = train(Workspace(Path(scratch), path), recipe, device="cpu")
    return Run("toolkit", seed, int(result.metrics["image_visits"]), result.seconds["training"], int(result.metrics["test_correct"]))


def plain() -> Run:
    script, visits, seconds, correct = Plain(), 0, 0.0, 0
    steps = script.steps()
    while correct < BAR * 10_000 and visits < LIMIT:
        began, goal = time.monotonic(), visits + LOOK
        while visits < goal:
            visits += next(steps)
        seconds += time.monotonic() - began
        correct = script.test_correct()
        print(f"plain: {visits:,} images, {seconds:.0f} s, {correct / 100:.2f} %", file=sys.stderr, flush=True)
    return Run("plain", 0, visits, seconds, correct)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    runs = [ours(seed) for seed in range(options.seeds)]
    other = plain()
    lines = [
        f"# Images and seconds to {100 * BAR:g} %, {date.today()}", "",
        f"`python -m benchmarks.training_samples --seeds {options.seeds}`; {in_words(describe())}; "
        f"{torch.get_num_threads()} threads.", "",
        "| arm | seed | image visits | training (s) | test accuracy | plain takes |",
        "|---|---|---|---|---|---|",
        *(f"| {run.arm} | {run.seed} | {run.visits:,} | {run.seconds:.0f} | {run.correct / 100:.2f} % | "
          f"{other.seconds / run.seconds:.1f} × |" for run in (*runs, other)), "",
        f"plain was looked at every {LOOK:,} images and stopped once it was there, or after {LIMIT:,}; toolkit ran to its end.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        RESULTS.joinpath("training-samples.md").write_text(text, encoding="utf-8")
        kept = {"runs": [asdict(run) for run in (*runs, other)], "environment": describe()}
        RESULTS.joinpath("training-samples.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0 if all(run.correct >= BAR * 10_000 and run.visits <= MOST for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
