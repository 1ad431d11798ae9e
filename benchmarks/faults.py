"""Every known fault, planted in copies of a model's artifacts: what the gate catches, and what the debugger names.

    python benchmarks/faults.py MODEL [--artifact NAME …] [--fault ID …] [--limit N] [--write]

MODEL is a name under models/, or a path; it needs a checkpoint and exports. Every artifact is tested: toolkit.validation
judges, and toolkit.debug looks for the culprit of whatever the gate has not named itself. `--write` puts the table into
benchmarks/results. Ends with 1 where a fault got through.
"""

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import Any

from toolkit.environment import in_words
from toolkit.errors import ToolkitError
from toolkit.faults import FAULTS, Planted, SelfTestResult, self_test
from toolkit.workspace import Workspace

RESULTS = Path(__file__).parent / "results"
LIMIT = 50  # images of the test set; the golden images come on top


def diagnose(workspace: Workspace, name: str, planted: Planted) -> str | None:
    """What the debugger says, where its culprit is the planted op, or its words name the fault. None: it names something else."""
    from toolkit.debug import debug

    try:
        found: Any = debug(workspace, name)
    except ToolkitError as error:
        return str(error) if planted.named_in(str(error)) else None
    culprit = found.culprit
    said = f"{found.kind}: {found.explanation}"
    if culprit is None:
        return said if planted.named_in(said) else None
    said = f"{culprit.name} ({culprit.module or 'no module'}): {said}"
    there = culprit.name == planted.where or culprit.name.startswith(f"{planted.where}_")  # an op that was inserted at that place
    return said if there or planted.named_in(said) else None


def debugger() -> str | None:
    """None where toolkit.debug can be used, else why not."""
    try:
        import toolkit.debug  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def table(result: SelfTestResult, command: str, without: str | None) -> str:
    """Markdown: what got through first, then all, then what does not apply and why."""
    total, named = len(result.rows), sum(row.named for row in result.rows)
    lines = [
        f"# Planted faults in {result.model}, {date.today()}", "",
        f"`{command}`; {in_words(result.environment)}.", "",
        f"{sum(row.caught for row in result.rows)} of {total} caught ({100 * result.kill_rate:.1f} %), {named} of {total} named"
        + (f" (without a debugger: {without})" if without else "") + ".", "",
        "| fault | artifact | caught by | named | it lies at | what happened |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in sorted(result.rows, key=lambda row: row.caught):
        caught = cell(row.by) if row.caught else f"**not caught**{' (the gate fell over)' if row.by else ''}"
        named_it = "yes" if row.named else "no"
        lines.append(f"| {row.fault} | {row.artifact} | {caught} | {named_it} | {cell(row.where)} | {FAULTS[row.fault].sentence} |")
    lines += ["", "Not planted:", ""]
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in result.not_applicable:
        reasons.setdefault((each.fault, each.reason), []).append(each.artifact)
    lines += [f"- {fault} in {', '.join(artifacts)}: {reason}" for (fault, reason), artifacts in reasons.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--artifact", nargs="*")
    parser.add_argument("--fault", nargs="*", choices=list(FAULTS), metavar="ID")
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    without = debugger()
    try:
        result = self_test(
            Workspace.of(options.model), artifacts=options.artifact, limit=options.limit, data_dir=options.data_dir,
            faults=options.fault, diagnose=None if without else diagnose,
        )  # fmt: skip
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    model = options.model if "/" not in options.model else result.model
    text = table(result, f"python benchmarks/faults.py {model} --limit {options.limit}", without)
    print(text)
    if options.write:
        RESULTS.joinpath("faults.md").write_text(text, encoding="utf-8")
        RESULTS.joinpath("faults.json").write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return 0 if result.kill_rate == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
