"""Two processes take the steps that one takes: the same recipe in one and in two, loss beside loss.

    python -m benchmarks.training_processes [--steps 40] [--write]

resnet18-digits with what the default recipe has beside, from a fresh network, one thread a process. In fp32 the first steps of such a
network make any rounding large; how large, one process shows whose numbers are laid out in another order. In float64 there is next to
no rounding to be made large: what differs there is a fault. Ends with 1 where a loss in float64 differs by more than FAULT.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from itertools import takewhile
from pathlib import Path

import torch

from toolkit.data import load
from toolkit.devices import BACKENDS
from toolkit.environment import describe, in_words
from toolkit.networks import build
from toolkit.ranks import joined
from toolkit.recipe import Recipe
from toolkit.training.loop import Run
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
MODEL = "resnet18-digits"
RECIPE = ('train.autocast="off"', "train.ema=0.998", "train.rotate=12", "train.scale=0.1", "train.shear=8", "train.decay_all=false")
ARMS = (  # precision, processes, layout; the first of each precision is what its others are compared with
    ("float64", 1, "off"), ("float64", 2, "off"),
    ("float32", 1, "off"), ("float32", 2, "off"), ("float32", 1, "on"),
)  # fmt: skip
CLOSE = 1e-3  # what losses in fp32 are counted by
FAULT = 1e-9


def take_steps(steps: int, precision: str, layout: str) -> list[float] | None:
    """The mean loss of each batch, whole ones of the first epoch, over all processes; None in any but the first of them."""
    recipe, data = Recipe.read(Workspace.of(MODEL).recipe, [*RECIPE, f'train.channels_last="{layout}"']), load("digits")
    torch.manual_seed(recipe.train.seed)
    with joined(BACKENDS["cpu"]) as ranks:
        model = build(recipe, len(data.classes)).to(getattr(torch, precision))
        run = Run(model, data.train_images, data.train_labels, recipe.train, BACKENDS["cpu"], ranks)
        run.model.train()
        losses, drawn = [], run.draw()
        for _ in range(min(steps, len(data.train_images) // recipe.train.batch_size)):
            run.totals.zero_()
            run.take_step(*drawn)
            losses.append(float(ranks.sum(run.totals)[0]) / recipe.train.batch_size)
        return losses if ranks.leads else None


def losses_of(arm: tuple[str, int, str], steps: int) -> list[float]:
    precision, processes, layout = arm
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "benchmarks.training_processes", "--steps", str(steps), "--arm", precision, layout]
    done = subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    return list(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--arm", nargs=2, help=argparse.SUPPRESS)  # what this script starts
    options = parser.parse_args()
    if options.arm:
        if (losses := take_steps(options.steps, *options.arm)) is not None:
            print(json.dumps(losses))
        return 0
    double, double_two, single, single_two, again = (losses_of(arm, options.steps) for arm in ARMS)
    differences = [
        [abs(a - b) for a, b in zip(one, other, strict=True)]
        for one, other in ((double, double_two), (single, single_two), (single, again))
    ]
    within = [len(list(takewhile(lambda difference: difference <= CLOSE, each))) for each in differences]
    lines = [
        f"# Two processes against one, {date.today()}", "",
        f"`python -m benchmarks.training_processes --steps {options.steps}`; {in_words(describe())}.", "",
        f"{MODEL}, {', '.join(RECIPE)}; a fresh network.", "",
        "| step | loss, one process, float64 | two, float64: difference | two, fp32: difference | one, fp32, channels_last: difference |",
        "|---|---|---|---|---|",
        *(
            f"| {step + 1} | {double[step]:.6f} | " + " | ".join(f"{each[step]:.1e}" for each in differences) + " |"
            for step in range(len(double)) if step == 0 or (step + 1) % 4 == 0
        ), "",
        f"Largest difference of two processes in float64: {max(differences[0]):.1e} (wanted: at most {FAULT:g}). In fp32 the losses "
        f"agree within {CLOSE:g} for {within[1]} steps; those of one process in two layouts, which differ by nothing but rounding, for "
        f"{within[2]}.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        RESULTS.joinpath("training-processes.md").write_text(text, encoding="utf-8")
    return 0 if max(differences[0]) <= FAULT else 1


if __name__ == "__main__":
    sys.exit(main())
