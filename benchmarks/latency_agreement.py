"""Three clocks on one model in the same minutes: toolkit bench, torch.utils.benchmark, and MLPerf LoadGen's SingleStream.

    python -m benchmarks.latency_agreement MODEL [--rounds 6] [--write]

Every round runs each of the three on each arm, in an order drawn by seed, each in a process of its own.
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
from toolkit.bench.bench import run_round
from toolkit.bench.plan import Options
from toolkit.bench.result import Round
from toolkit.bench.stats import median_interval
from toolkit.environment import describe
from toolkit.errors import ToolkitError
from toolkit.processes import watched
from toolkit.progress import progress
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
RUNTIMES = ("torch-cpu", "onnxruntime-cpu")
TOOLS = ("toolkit bench", "torch.utils.benchmark", "LoadGen")
SECONDS = 3.0


def median_ms(tool: str, plan: Any, number: int, options: Options) -> float:
    """One round of one tool. Raises ToolkitError where it fails."""
    job = plan.job(number, options)
    if tool == "toolkit bench":
        found = run_round(job)
        if not isinstance(found, Round):
            raise ToolkitError(found)
        return float(np.median(found.samples_ns)) / 1e6
    module, words = ("benchmarks.latency_workers", ["timer"]) if tool == "torch.utils.benchmark" else ("toolkit.bench.loadgen", [])
    lines: list[bytes] = []
    ended = watched(module, [*words, job.model_copy(update={"seconds": SECONDS}).model_dump_json()], seconds=300, on_line=lines.append)
    if ended.reason is not None:
        raise ToolkitError(f"{tool}: {ended.reason}")
    return float(json.loads(lines[-1])["p50_ms"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    options, shuffle = Options(), random.Random(0)
    found: dict[tuple[str, str], list[float]] = {}
    try:
        loadgen.require()
        plans, _, _ = of_model(Workspace.of(given.model), RUNTIMES, ["onnx-fp32"], options, RESULTS)
        turns = [(plan, tool) for plan in plans if not plan.control for tool in TOOLS]
        with progress("rounds", given.rounds * len(turns), unit="rounds") as update:
            for number in range(given.rounds):
                for plan, tool in shuffle.sample(turns, len(turns)):
                    found.setdefault((plan.id, tool), []).append(median_ms(tool, plan, number, options))
                    update(sum(map(len, found.values())))
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    machine = ", ".join(f"{key} {value}" for key, value in describe().items())
    lines = [
        f"# Three clocks on one model, {date.today()}", "",
        f"`python -m benchmarks.latency_agreement {Path(given.model).name} --rounds {given.rounds}`; {machine}.", "",
        "| arm | tool | p50 (ms) | 95 % interval over rounds | against toolkit bench, paired | agrees |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    agrees = True
    for plan_id in dict.fromkeys(plan.id for plan, _ in turns):
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
