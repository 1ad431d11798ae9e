"""Killed at any moment and resumed, a run ends with the very weights of one that was left alone.

    python benchmarks/training_kill.py [--kills 20] [--write]

A short run of the digits model, once undisturbed; then again, killed by SIGKILL at random moments and started with --resume
every time, until it has been killed so often, then let go on to its end. Ends with 1 where a single bit differs.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from toolkit.checkpoint import Checkpoint
from toolkit.environment import describe, in_words
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RECIPE = (  # what the default recipe has beside resnet18-digits' own
    "train.epochs=6", "train.ema=0.998", "train.rotate=12", "train.scale=0.1", "train.shear=8", "train.plain_end=0.1",
    "train.decay_all=false", 'train.channels_last="auto"',
)  # fmt: skip


def start(folder: Path) -> "subprocess.Popen[bytes]":
    flags = [part for override in RECIPE for part in ("--set", override)]
    command = [sys.executable, "-m", "toolkit", "train", f"{folder}{os.sep}", "--device", "cpu", "--save-minutes", "0.01", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--resume"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path) -> None:
    process = start(folder)
    _, err = process.communicate()
    if process.returncode:
        sys.exit(f"a run that nobody killed ended with {process.returncode}: {err.decode()}")


def digest(folder: Path) -> str:
    weights = Checkpoint.open(folder / "checkpoint").weights()
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(weights[name].numpy().tobytes())
    return found.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    moments, killed = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as scratch:
        quiet, disturbed = Path(scratch, "quiet"), Path(scratch, "disturbed")
        for folder in (quiet, disturbed):
            folder.mkdir()
            (folder / "recipe.toml").write_bytes(Workspace.of("resnet18-digits").recipe.read_bytes())
        began = time.monotonic()
        finish(quiet)
        took = time.monotonic() - began
        while len(killed) < options.kills:
            process = start(disturbed)
            try:
                process.wait(moments.uniform(0.2, 1.2) * took / 3)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                if process.returncode:
                    sys.exit(f"--resume after kill {len(killed)} ended with {process.returncode}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
                if Checkpoint.open(disturbed / "checkpoint").card.finished:  # begin anew, until it has been killed often enough
                    if digest(disturbed) != digest(quiet):
                        sys.exit(f"after {len(killed)} kills the weights are others")
                    (disturbed / "checkpoint").rename(Path(scratch, f"done-{len(killed)}"))
                continue
            card = disturbed / "checkpoint" / "checkpoint.json"
            killed.append(Checkpoint.open(card.parent).card.epochs_done if card.exists() else 0.0)
            print(f"kill {len(killed)}: {killed[-1]:.2f} of 6 epochs were safe", flush=True)
        finish(disturbed)
        same = digest(quiet) == digest(disturbed)
    text = (
        f"# {options.kills} kills, {date.today()}\n\n`python benchmarks/training_kill.py --kills {options.kills}`; "
        f"{in_words(describe())}.\n\n"
        f"ResNet18 on the digits, {', '.join(RECIPE)}; {took:.0f} s undisturbed; a checkpoint after each epoch, and within it\n"
        f"at the readings of the figures, 0.6 s apart at the least.\n"
        f"SIGKILL at random moments; safe by then were {', '.join(f'{each:.2f}' for each in killed)} epochs.\n\n"
        f"Weights at the end: {'the same, bit for bit' if same else '**different**'}.\n"
    )
    print(text)
    if options.write:
        RESULTS.joinpath("training-kill.md").write_text(text, encoding="utf-8")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
