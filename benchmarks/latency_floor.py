"""What the harness itself costs: the runtime `null`, which returns at once, timed as any other.

    python -m benchmarks.latency_floor MODEL [--rounds 4] [--write]

What is printed is in every figure of `toolkit bench`. It asserts nothing: a busy machine would make a test of it fail.
"""

import argparse
import random
import sys
import tempfile
from datetime import date
from pathlib import Path

from toolkit.bench.arms import of_model
from toolkit.bench.plan import Options
from toolkit.bench.result import Round
from toolkit.bench.rounds import take
from toolkit.bench.stats import summarise
from toolkit.environment import describe, in_words
from toolkit.errors import ToolkitError
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"


def measured(model: str, number: int) -> list[Round]:
    """Raises ToolkitError where a round fails."""
    options, rounds = Options(), list[Round]()
    with tempfile.TemporaryDirectory() as scratch:
        (plan, *_), _, _ = of_model(Workspace.of(model), ["null"], None, options, Path(scratch))
        for each in range(number):
            (outcome,), _ = take([plan.job(each, options)], random.Random(each))
            if not isinstance(outcome, Round):
                raise ToolkitError(f"null: {outcome}")
            rounds.append(outcome)
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    try:
        found = summarise(measured(given.model, given.rounds), batch=1)
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    assert found is not None
    assert found.p50_ms is not None
    quantiles = [1e3 * value if value is not None else float("nan") for value in (found.p50_ms.value, found.p90_ms, found.p99_ms)]
    text = "\n".join([
        f"# What the harness itself costs, {date.today()}", "",
        f"`python -m benchmarks.latency_floor {Path(given.model).name} --rounds {given.rounds}`; {in_words(describe())}.", "",
        "The runtime `null` makes two small arrays and returns. Microseconds of a call; wanted: p50 below 2.", "",
        "| calls | p50 | p90 | p99 |", "|---|---|---|---|",
        f"| {found.calls:,} | " + " | ".join(f"{value:.2f}" for value in quantiles) + " |", "",
    ])  # fmt: skip
    print(text)
    if given.write:
        RESULTS.joinpath("latency-floor.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
