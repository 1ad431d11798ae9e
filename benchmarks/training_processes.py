"""Two processes take the steps that one takes: the same recipe in one and in two, curve beside curve.

    python -m benchmarks.training_processes [--write]

ResNet18 on the digits in fp32, with what the default recipe has beside; `toolkit train --nproc 2` against `toolkit train`, one
thread a process. Ends with 1 where any loss that was read on the way differs by more than MOST.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from toolkit.environment import describe
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RECIPE = (
    "train.epochs=2", 'train.autocast="off"', "train.ema=0.998", "train.rotate=12", "train.scale=0.1", "train.shear=8",
    "train.plain_end=0.1", "train.decay_all=false", 'train.channels_last="auto"',
)  # fmt: skip
MOST = 1e-3


def curve(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What was read on the way: loss and accuracy are means over the epoch so far."""
    folder.mkdir()
    place = Workspace(folder, folder / "recipe.toml")
    place.recipe.write_bytes(Workspace.of("resnet18-digits").recipe.read_bytes())
    flags = [part for override in RECIPE for part in ("--set", override)]
    command = [sys.executable, "-m", "toolkit", "train", f"{folder}{os.sep}", "--device", "cpu", "--nproc", str(processes), *flags]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in place.metrics.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if "loss" in record]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        one, two = (curve(Path(scratch, str(processes)), processes) for processes in (1, 2))
    rows = [(a["epoch"] + 1, a["images"], a["loss"], b["loss"], a["accuracy"], b["accuracy"]) for a, b in zip(one, two, strict=True)]
    largest = max(abs(row[2] - row[3]) for row in rows)
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    lines = [
        f"# Two processes against one, {date.today()}", "",
        f"`python -m benchmarks.training_processes`; {machine}.", "",
        f"ResNet18 on the digits, {', '.join(RECIPE)}; one thread a process.", "",
        "| epoch | images of it | loss, one process | loss, two | accuracy, one | two |", "|---|---|---|---|---|---|",
        *(f"| {epoch} | {images:,} | {a:.6f} | {b:.6f} | {100 * c:.2f} % | {100 * d:.2f} % |" for epoch, images, a, b, c, d in rows), "",
        f"The largest difference of a loss is {largest:.1e} (wanted: at most {MOST:g}).",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        RESULTS.joinpath("training-processes.md").write_text(text, encoding="utf-8")
    return 0 if largest <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
