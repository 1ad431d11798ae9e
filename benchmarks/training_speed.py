"""Images/s of the default recipe's loop against a plain DataLoader-and-SGD script, and against its own bare convolutions.

    python -m benchmarks.training_speed [--rounds 6] [--steps 8] [--write]

All in one process, taking turns. plain: benchmarks/plain_training.py. toolkit: the default recipe, as `toolkit train` runs it.
roofline: nothing but the network's convolutions, forward and backward, bf16, channels_last, the same shapes: what is left when
all else is free. Ends with 1 where the toolkit is less than WANTED times as fast as the plain script.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.plain_training import Plain
from toolkit import devices
from toolkit.bench.stats import median_interval
from toolkit.data import load
from toolkit.environment import describe, in_words
from toolkit.networks import build
from toolkit.networks.resnet import resnet18
from toolkit.recipe import Recipe
from toolkit.training.loop import Run
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
MODEL = "resnet18-mnist"
WANTED = 2.5


def ours() -> Iterator[int]:
    """The default recipe's own loop."""
    recipe, data = Recipe.read(Workspace.of(MODEL).recipe), load("mnist")
    torch.manual_seed(0)
    run = Run(build(recipe, 10), data.train_images, data.train_labels, recipe.train, devices.choose("cpu")[0])
    run.model.train()
    while True:
        drawn, run.step = run.draw(), 0
        while run.step < run.steps:
            run.take_step(*drawn)
            yield recipe.train.batch_size


def roofline(batch: int) -> Iterator[int]:
    """Every convolution of the network on its own: forward, and both gradients (of the first, which has no layer before it, one)."""
    shapes: list[tuple[nn.Conv2d, torch.Size]] = []
    model = resnet18(10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda own, given, _: shapes.append((own, given[0].shape)))
    model(torch.zeros(batch, 1, 32, 32))
    layers: list[tuple[torch.Tensor, torch.Tensor, dict[str, Any], bool]] = []
    for place, (convolution, shape) in enumerate(shapes):
        x = torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last)
        weight = convolution.weight.detach().bfloat16().contiguous(memory_format=torch.channels_last)
        layers.append((x, weight, {"stride": convolution.stride, "padding": convolution.padding}, place > 0))
    while True:
        for x, weight, how, inner in layers:
            y = functional.conv2d(x, weight, **how)
            torch.ops.aten.convolution_backward(
                y, x, weight, None, how["stride"], how["padding"], (1, 1), False, (0, 0), 1, (inner, True, False)
            )
        yield batch


def timed(steps: Iterator[int], count: int) -> float:
    """Images a second over so many steps."""
    began, images = time.perf_counter(), sum(next(steps) for _ in range(count))
    return images / (time.perf_counter() - began)


def per_round(mine: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The middle ratio and its 95 % interval."""
    return median_interval([a / b for a, b in zip(mine, theirs, strict=True)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    batch = Recipe.read(Workspace.of(MODEL).recipe).train.batch_size
    makers: dict[str, Callable[[], Iterator[int]]] = {
        "plain": lambda: Plain().steps(),
        "toolkit": ours,
        "roofline": lambda: roofline(batch),
    }
    arms = {name: make() for name, make in makers.items()}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for steps in arms.values():
        timed(steps, 2)
    for _ in range(options.rounds):
        for name, steps in arms.items():
            found[name].append(timed(steps, options.steps))
            print(f"{name}: {found[name][-1]:.1f} images/s", file=sys.stderr, flush=True)
    lines = [
        f"# Training speed, {date.today()}", "",
        f"`python -m benchmarks.training_speed --rounds {options.rounds} --steps {options.steps}`; {in_words(describe())}; "
        f"{torch.get_num_threads()} threads.", "",
        "| arm | images/s | toolkit over it, per round |", "|---|---|---|",
    ]  # fmt: skip
    for name, values in found.items():
        ratio, low, high = per_round(found["toolkit"], values)
        lines.append(
            f"| {name} | {np.median(values):.1f} | " + ("–" if name == "toolkit" else f"{ratio:.2f} ({low:.2f}–{high:.2f})") + " |"
        )
    over_plain, at_best = (per_round(found[name], found["plain"])[0] for name in ("toolkit", "roofline"))
    met = "met" if over_plain >= WANTED else "not met"
    lines += [
        "",
        f"Wanted: {WANTED:g} times the plain script; {met}, {over_plain:.2f}. The bare convolutions reach {at_best:.2f} times it.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        RESULTS.joinpath("training-speed.md").write_text(text, encoding="utf-8")
        kept = {"images_per_s": found, "environment": describe()}
        RESULTS.joinpath("training-speed.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0 if over_plain >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
