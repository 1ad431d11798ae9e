"""Two processes take the steps that one takes: the same recipe in one and in two, curve beside curve.

    python -m benchmarks.training_processes [--lr 0.001] [--write]

ResNet18 on the digits in fp32, with what the default recipe has beside, at a constant learning rate; `toolkit train --nproc 2`
against `toolkit train`, one thread a process. A fresh network at a large learning rate makes any rounding large within a few
steps. How large, a third arm shows: one process again, with its numbers laid out in another order. Ends with 1 where a loss that
was read on the way differs between one process and two by more than MOST.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from toolkit.environment import describe
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RECIPE = (
    "train.epochs=1", 'train.schedule="constant"', 'train.autocast="off"', "train.ema=0.998", "train.rotate=12", "train.scale=0.1",
    "train.shear=8", "train.plain_end=0.1", "train.decay_all=false",
)  # fmt: skip
MOST = 1e-3


def losses(folder: Path, processes: int, layout: str, lr: float) -> dict[tuple[int, int], float]:
    """(epoch, images of it) → the mean over the epoch so far."""
    folder.mkdir()
    place = Workspace(folder, folder / "recipe.toml")
    place.recipe.write_bytes(Workspace.of("resnet18-digits").recipe.read_bytes())
    flags = [part for override in (*RECIPE, f"train.lr={lr}", f"train.channels_last={layout}") for part in ("--set", override)]
    command = [sys.executable, "-m", "toolkit", "train", f"{folder}{os.sep}", "--device", "cpu", "--nproc", str(processes), *flags]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in place.metrics.read_text(encoding="utf-8").splitlines()]
    return {(record["epoch"] + 1, record["images"]): record["loss"] for record in records if "loss" in record}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        arms = {
            name: losses(Path(scratch, f"arm-{place}"), processes, layout, options.lr)
            for place, (name, processes, layout) in enumerate((("one", 1, "on"), ("two", 2, "on"), ("again", 1, "off")))
        }
    one, two, again = arms.values()
    largest = max(abs(one[at] - two[at]) for at in one)
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    lines = [
        f"# Two processes against one, {date.today()}", "",
        f"`python -m benchmarks.training_processes --lr {options.lr:g}`; {machine}.", "",
        f"ResNet18 on the digits, {', '.join(RECIPE)}; one thread a process.", "",
        "| epoch | images of it | loss, one process | two: difference | one, in another layout: difference |", "|---|---|---|---|---|",
        *(f"| {at[0]} | {at[1]:,} | {loss:.6f} | {two[at] - loss:+.1e} | {again[at] - loss:+.1e} |" for at, loss in one.items()), "",
        f"The largest difference between one and two is {largest:.1e} (wanted: at most {MOST:g}); "
        f"what rounding alone does, {max(abs(one[at] - again[at]) for at in one):.1e}.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        RESULTS.joinpath("training-processes.md").write_text(text, encoding="utf-8")
    return 0 if largest <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
