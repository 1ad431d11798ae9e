"""Does the suite notice a wrong op? For each op, cases that passed are run again with it slightly wrong, until one fails."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.conformance.choose import function_of
from benchmarks.conformance.mutate import DEFAULT_FACTOR, FACTOR
from benchmarks.conformance.plugin import Job
from benchmarks.conformance.records import Record, attempts, code, read, read_unseen


def candidates(records: Iterable[Record], op: str, most: int) -> list[Record]:
    """Cases that passed and compared with `op` in their program: of different functions, first those that are about it."""
    plain = op.replace("_", "")

    def order(record: Record) -> tuple[bool, bool, int, float]:
        about = plain in function_of(record.key).lower().replace("_", "")
        return record.precision == "fp16", not about, len(record.ops), record.seconds

    able = sorted((each for each in records if each.outcome == "passed" and each.comparisons and op in each.ops), key=order)
    first = {function_of(record.key): record for record in reversed(able)}
    distinct = sorted(first.values(), key=order)
    return (distinct + [record for record in able if first[function_of(record.key)] is not record])[:most]


def outcomes(folder: Path) -> dict[str, list[dict[str, str]]]:
    """op -> what was tried, in order."""
    tried: dict[str, list[dict[str, str]]] = {}
    for each in attempts(folder):
        tried.setdefault(each["op"], []).append(each)
    return tried


def plan(
    records: Iterable[Record], ops: Iterable[str], tried: Mapping[str, Sequence[Mapping[str, Any]]], most: int
) -> dict[str, dict[str, list[str]]]:
    """suite -> case -> the ops to make wrong in it; nothing for an op that has already turned a case red."""
    records = list(records)
    found: dict[str, dict[str, list[str]]] = {}
    for op in ops:
        done = {each["key"] for each in tried.get(op, ())}
        if any(each["outcome"] == "failed" for each in tried.get(op, ())):
            continue
        for record in candidates(records, op, most):
            if record.key not in done:
                found.setdefault(record.suite, {}).setdefault(record.key, []).append(op)
    return found


def run(folder: Path, most: int, run_all: Callable[[list[Job]], None], suites: Mapping[str, tuple[int, Any]]) -> None:
    """One candidate an op at first, so that most ops need no more; then all the others."""
    from toolkit.mil.ops.table import OPS

    for number in (1, most):
        planned = plan(read(folder).values(), OPS, outcomes(folder), number)
        jobs = [
            Job(suite, str(folder), part=index, parts=suites[suite][0], mutations=cases)
            for suite, cases in planned.items()
            for index in range(suites[suite][0])
        ]
        run_all(jobs)


def write(folder: Path, out: Path) -> None:
    """mutations.md and mutations.json in `out`."""
    from toolkit.mil.ops.table import OPS

    tried = outcomes(folder)
    rows = [_row(op, tried.get(op, [])) for op in OPS]
    made = f"{date.today()}, {platform.platform(terse=True)}, coremltools {version('coremltools')}, evaluator {code()}"
    out.mkdir(parents=True, exist_ok=True)
    (out / "mutations.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = markdown(rows, made, read_unseen())
    (out / "mutations.md").write_text(text, encoding="utf-8")
    print(text.splitlines()[4])


def markdown(rows: Sequence[Mapping[str, Any]], made: str, unseen: Mapping[str, str]) -> str:
    seen, others = [row for row in rows if row["red"]], [row for row in rows if not row["red"]]
    lines = [
        "# Is a wrong op noticed?", "", f"`make conformance-full ARGS=--mutations`; {made}.", "",
        f"{len(seen)} of {len(rows)} ops turn a case of coremltools red when their results are multiplied by {DEFAULT_FACTOR} "
        f"({FACTOR['fp16']} in float16 cases; whole numbers: plus 1; bools: turned round). Each of these cases passes when it is run "
        "again, in the same process, with the op as it is.", "",
        "The others turn a case of our own red, with values by a formula: tests/mil/test_unjudged_ops.py.", "",
        "| op | cases tried | why none of coremltools' cases is red |", "|---|---|---|",
        *(f"| `{row['op']}` | {row['tried']} | {unseen.get(row['op'], '**not explained**')} |" for row in others), "",
        "| op | case that turned red |", "|---|---|",
        *(f"| `{row['op']}` | `{_one_line(row['red'])}` |" for row in seen),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _one_line(key: str) -> str:
    """Some cases are named by arrays of numbers."""
    text = " ".join(key.split()).replace("|", "/")
    return text if len(text) <= 250 else text[:250] + "…"


def _row(op: str, tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    red = next((each for each in tried if each["outcome"] == "failed"), None)
    return {"op": op, "tried": len(tried), "red": red["key"] if red else None, "error": red["error"] if red else ""}
