"""Does the verdict find what is there, and nothing else? Real rounds of one runtime, of itself slowed by 5 % and by 1 %.

    python -m benchmarks.latency_power MODEL [--pool 64] [--write]

All are measured as `toolkit bench` measures at its default preset, interleaved; then 100 comparisons are drawn by seed from the
pool, each of as many rounds as the preset has. Nothing against itself: pairs of neighbouring rounds. `--write` keeps the medians.
"""

import argparse
import json
import random
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bench.arms import of_model
from toolkit.bench.judge import compare
from toolkit.bench.plan import Options
from toolkit.bench.result import Arm, Round
from toolkit.environment import describe
from toolkit.errors import ToolkitError
from toolkit.processes import watched
from toolkit.progress import progress
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RUNTIME = "onnxruntime-cpu"
SLOWED = {"same": 0.0, "5 % slower": 0.05, "1 % slower": 0.01}
DRAWN = 100


def measure(model: str, pool: int, scratch: Path) -> dict[str, list[Round]]:
    """Name → its rounds. Raises ToolkitError where one fails."""
    options = Options()
    plans, _, _ = of_model(Workspace.of(model), [RUNTIME], ["onnx-fp32"], options, scratch)
    found: dict[str, list[Round]] = {name: [] for name in SLOWED}
    shuffle = random.Random(0)
    with progress("rounds", pool * len(SLOWED), unit="rounds") as update:
        for number in range(pool):
            for name in shuffle.sample(sorted(SLOWED), len(SLOWED)):
                lines: list[bytes] = []
                words = ["slowed", str(SLOWED[name]), plans[0].job(number, options).model_dump_json()]
                ended = watched("benchmarks.latency_workers", words, seconds=300, on_line=lines.append)
                if ended.reason is not None:
                    raise ToolkitError(f"{name}: {ended.reason}")
                found[name].append(Round.model_validate_json(lines[-1]))
                update(sum(map(len, found.values())))
    return found


def arm(name: str, rounds: list[Round]) -> Arm:
    """With its rounds numbered anew, so that the k-th of one is paired with the k-th of another."""
    renumbered = [each.model_copy(update={"number": place}) for place, each in enumerate(rounds)]
    return Arm(
        id=name, artifact="onnx-fp32", runtime=RUNTIME, precision="fp32", version="", threads=None, batch=1, control=False,
        rounds=renumbered, error=None,
    )  # fmt: skip


def verdicts(found: dict[str, list[Round]]) -> dict[str, dict[str, int]]:
    """Comparison → verdict → how often of DRAWN."""
    size, counts = Options().rounds, {name: dict.fromkeys(("faster", "slower", "same", "inconclusive"), 0) for name in SLOWED}
    base = found["same"]
    for seed in range(DRAWN):
        draw = random.Random(seed)
        for name, rounds in found.items():
            if name == "same":
                pairs = [draw.sample((base[place], base[place + 1]), 2) for place in draw.sample(range(0, len(base) - 1, 2), size)]
            else:
                pairs = [[base[place], rounds[place]] for place in draw.sample(range(len(base)), size)]
            first, second = (arm(str(side), [pair[side] for pair in pairs]) for side in (0, 1))
            verdict = compare(second, first, 1, "stream")
            assert verdict is not None
            counts[name][verdict.verdict] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pool", type=int, default=64)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    try:
        found = measure(options.model, options.pool, RESULTS)
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    counts = verdicts(found)
    medians = {name: [float(np.median(each.samples_ns)) / 1e6 for each in rounds] for name, rounds in found.items()}
    logs = {name: np.log(values) for name, values in medians.items()}
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    lines = [
        f"# Does the verdict find what is there? {date.today()}", "",
        f"`python -m benchmarks.latency_power {Path(options.model).name} --pool {options.pool}`; {machine}.", "",
        f"{options.pool} rounds each of {RUNTIME}, and of itself slowed;",
        f"{DRAWN} comparisons of {Options().rounds} rounds each, drawn by seed. Spread: standard deviation of the logs of the medians.", "",
        "| against the plain one | median (ms) | spread of rounds | of paired ratios | faster | slower | same | inconclusive |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, values in counts.items():
        pairs = logs[name] - logs["same"] if name != "same" else logs["same"][1::2] - logs["same"][: len(logs["same"]) // 2 * 2 : 2]
        lines.append(
            f"| {name} | {np.median(medians[name]):.3g} | {100 * logs[name].std(ddof=1):.2f} % | {100 * pairs.std(ddof=1):.2f} % | "
            + " | ".join(str(values[word]) for word in ("faster", "slower", "same", "inconclusive")) + " |"
        )  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        kept: dict[str, Any] = {"verdicts": counts, "medians_ms": medians, "environment": describe()}
        RESULTS.joinpath("latency-power.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("latency-power.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    good = (
        counts["same"]["faster"] + counts["same"]["slower"] <= 5
        and counts["5 % slower"]["slower"] >= 90
        and not counts["1 % slower"]["faster"]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
