"""Does the verdict find what is there, and nothing else? Real rounds of one runtime, of itself slowed by 5 % and by 1 %.

    python -m benchmarks.latency_power MODEL [--pool 64] [--write]

All are measured as `toolkit bench` measures at its default preset, side by side; then 100 comparisons are drawn by seed from
the pool, each of as many rounds as the preset has. `--write` keeps the medians.
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
from toolkit.bench.rounds import take
from toolkit.environment import describe, in_words
from toolkit.errors import ToolkitError
from toolkit.progress import progress
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RUNTIME = "onnxruntime-cpu"
PLAIN = "plain"
SLOWED = {PLAIN: 0, "the same again": 0, "5 % slower": 5, "1 % slower": 1}  # per cent
DRAWN = 100


def measure(model: str, pool: int, scratch: Path) -> dict[str, list[Round]]:
    """Name → its rounds. Raises ToolkitError where one fails."""
    options = Options()
    plans, _, _ = of_model(Workspace.of(model), [RUNTIME], ["onnx-fp32"], options, scratch)
    found: dict[str, list[Round]] = {name: [] for name in SLOWED}
    shuffle = random.Random(0)
    tasks = [f"benchmarks.latency_workers:slowed_by_{percent}" for percent in SLOWED.values()]
    with progress("rounds", pool, unit="rounds") as update:
        for number in range(pool):
            outcomes, _ = take([plans[0].job(number, options)] * len(SLOWED), shuffle, tasks=tasks)
            for name, outcome in zip(SLOWED, outcomes, strict=True):
                if not isinstance(outcome, Round):
                    raise ToolkitError(f"{name}: {outcome}")
                found[name].append(outcome)
            update(number + 1)
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
    others = [name for name in SLOWED if name != PLAIN]
    counts = {name: dict.fromkeys(("faster", "slower", "same", "inconclusive"), 0) for name in others}
    for seed in range(DRAWN):
        chosen = random.Random(seed).sample(range(len(found[PLAIN])), Options().rounds)
        for name in others:
            verdict = compare(
                arm(name, [found[name][each] for each in chosen]), arm(PLAIN, [found[PLAIN][each] for each in chosen]), 1, "stream"
            )
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
    lines = [
        f"# Does the verdict find what is there? {date.today()}", "",
        f"`python -m benchmarks.latency_power {Path(options.model).name} --pool {options.pool}`; {in_words(describe())}.", "",
        f"{options.pool} rounds each of {RUNTIME}, and of itself slowed;",
        f"{DRAWN} comparisons of {Options().rounds} rounds each, drawn by seed. Spread: standard deviation of the logs of the medians.", "",
        "| against the plain one | p50 (ms) | spread of rounds | of paired ratios | mean ratio | faster | slower | same | inconclusive |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, values in counts.items():
        pairs = logs[name] - logs[PLAIN]
        lines.append(
            f"| {name} | {np.median(medians[name]):.3g} | {100 * logs[name].std(ddof=1):.2f} % | {100 * pairs.std(ddof=1):.2f} % | "
            f"{np.exp(pairs.mean()):.4f} | "
            + " | ".join(str(values[word]) for word in ("faster", "slower", "same", "inconclusive")) + " |"
        )  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        kept: dict[str, Any] = {"verdicts": counts, "medians_ms": medians, "environment": describe()}
        RESULTS.joinpath("latency-power.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("latency-power.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    good = (
        counts["the same again"]["faster"] + counts["the same again"]["slower"] <= 5
        and counts["5 % slower"]["slower"] >= 90
        and not counts["1 % slower"]["faster"]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
