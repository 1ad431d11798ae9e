"""Three clocks on one model in the same minutes: toolkit bench, torch.utils.benchmark, and MLPerf LoadGen's SingleStream.

    python -m benchmarks.latency_agreement MODEL [--rounds 8] [--write]

Every round is a process for each arm, in which the three take turns of a second on one session, in an order drawn by seed:
what differs is the clock and nothing else. A tool's figure of a round is the median of its turns.
"""

import argparse
import json
import random
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bench import loadgen
from toolkit.bench.arms import of_model
from toolkit.bench.plan import Options
from toolkit.bench.stats import median_interval
from toolkit.environment import describe, in_words
from toolkit.errors import ToolkitError
from toolkit.limits import Limits
from toolkit.progress import progress
from toolkit.workers import Message, call
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RUNTIMES = ("torch-cpu", "onnxruntime-cpu")
TOOLS = ("toolkit bench", "torch.utils.benchmark", "LoadGen")
TURNS, TURN_SECONDS = 10, 1.0


def medians_ms(plan: Any, number: int, options: Options) -> dict[str, float]:
    """Tool → the middle turn of one round. Raises ToolkitError where it fails."""
    job = plan.job(number, options).model_copy(update={"turns": TURNS, "seconds": TURNS * TURN_SECONDS})
    try:
        found = call("benchmarks.latency_workers:clocks", Message(job.model_dump(mode="json")), limits=Limits(seconds=600))
    except ToolkitError as error:
        raise ToolkitError(f"{plan.id}: {error}") from error
    return {tool: float(np.median(values)) for tool, values in found.fields.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    options, shuffle = Options(), random.Random(0)
    found: dict[tuple[str, str], list[float]] = {}
    try:
        loadgen.require()
        plans, _, _ = of_model(Workspace.of(given.model), RUNTIMES, ["onnx-fp32"], options, RESULTS)
        arms = [plan for plan in plans if not plan.control]
        with progress("rounds", given.rounds * len(arms), unit="rounds") as update:
            for number in range(given.rounds):
                for plan in shuffle.sample(arms, len(arms)):
                    for tool, value in medians_ms(plan, number, options).items():
                        found.setdefault((plan.id, tool), []).append(value)
                    update(sum(map(len, found.values())) // len(TOOLS))
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    lines = [
        f"# Three clocks on one model, {date.today()}", "",
        f"`python -m benchmarks.latency_agreement {Path(given.model).name} --rounds {given.rounds}`; {in_words(describe())}.", "",
        "| arm | tool | p50 (ms) | 95 % interval over rounds | against toolkit bench, paired | agrees |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    agrees = True
    for plan_id in (plan.id for plan in arms):
        own = median_interval(found[plan_id, TOOLS[0]])
        for tool in TOOLS:
            centre, low, high = median_interval(found[plan_id, tool])
            ratio = float(np.exp(np.mean(np.log(found[plan_id, tool]) - np.log(found[plan_id, TOOLS[0]]))))
            good = own[1] <= centre <= own[2] or abs(ratio - 1) <= 0.03
            agrees = agrees and good
            lines.append(
                f"| {plan_id} | {tool} | {centre:.3g} | {low:.3g}–{high:.3g} | {100 * (ratio - 1):+.1f} % | {'yes' if good else 'NO'} |"
            )
    text = "\n".join([*lines, "", "Agrees: within the interval that toolkit bench prints, or within 3 %."]) + "\n"
    print(text)
    if given.write:
        kept = {"p50_ms": {f"{plan}, {tool}": values for (plan, tool), values in found.items()}, "environment": describe()}
        RESULTS.joinpath("latency-agreement.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("latency-agreement.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
