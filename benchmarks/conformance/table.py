"""The results as Markdown and JSON."""

import json
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.conformance.records import Reason, Record, code, covered, read, read_reasons, verdict

VERDICTS = ("passed", "explained", "failed", "nothing compared", "not applicable")
PACKAGES = ("coremltools", "torch", "numpy")
MOST_FAILURES = 200  # in the Markdown; the JSON has them all


def summary(records: Iterable[Record], reasons: list[Reason]) -> list[dict[str, Any]]:
    """One row for each suite and precision, then one for all. `applicable`: predicted and compared, or failed on the way."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record.suite, record.precision or "none"][verdict(record, reasons)[0]] += 1
    total = sum(counts.values(), Counter())
    return [_row(suite, precision, counts[suite, precision]) for suite, precision in sorted(counts)] + [_row("all", "all", total)]


def _row(suite: str, precision: str, counts: Counter[str]) -> dict[str, Any]:
    applicable = sum(counts[name] for name in ("passed", "explained", "failed"))
    share = {f"{name} %": round(100 * counts[name] / applicable, 2) if applicable else None for name in ("passed", "explained", "failed")}
    names = {name: counts[name] for name in VERDICTS}
    return {"suite": suite, "precision": precision, "cases": counts.total(), "applicable": applicable, **names, **share}


def report(records: Mapping[str, Record], reasons: list[Reason]) -> dict[str, Any]:
    """All that the table says, for JSON."""
    from toolkit.mil.ops.table import OPS

    judged = {key: verdict(record, reasons)[0] for key, record in records.items()}
    tried = {op for key, record in records.items() if judged[key] == "passed" for op in record.ops}
    return {
        "date": date.today().isoformat(),
        "machine": platform.platform(terse=True),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "evaluators": Counter(record.code for record in records.values() if record.code),
        "evaluator": code(),
        "rows": summary(records.values(), reasons),
        "predictions": sum(record.predictions for record in records.values()),
        "comparisons": sum(record.comparisons for record in records.values()),
        "ops": {"known": len(OPS), "in cases that passed": len(tried & set(OPS)), "in none": sorted(set(OPS) - tried)},
        "reasons": [
            {"kind": kind, "reason": reason, "cases": cases} for (kind, reason), cases in covered(records.values(), reasons).most_common()
        ],
        "failed": {key: records[key].error for key in sorted(records) if judged[key] == "failed"},
    }


def markdown(found: Mapping[str, Any]) -> str:
    names = ("suite", "precision", "cases", "applicable", *VERDICTS, "passed %")
    lines = ["# coremltools' own tests, run by the reference evaluator", "", _made(found), ""]
    lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join("–" if row[name] is None else str(row[name]) for name in names) + " |" for row in found["rows"]]
    lines += ["", _LEGEND, "", f"{found['predictions']} predictions, {found['comparisons']} comparisons of predicted values."]
    ops = found["ops"]
    none = f" In none: {', '.join(ops['in none'])}." if ops["in none"] else ""
    lines += [f"Of {ops['known']} ops, {ops['in cases that passed']} ran in cases that passed.{none}", "", "## Not counted, and why", ""]
    lines += ["| kind | cases | reason |", "|---|---|---|"]
    lines += [f"| {each['kind']} | {each['cases']} | {each['reason']} |" for each in found["reasons"]]
    if found["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"- `{key}`: {error[:200]}" for key, error in list(found["failed"].items())[:MOST_FAILURES]]
    return "\n".join(lines) + "\n"


_LEGEND = (
    "A case is *applicable* when it predicted and compared what it predicted, or failed on the way. *Nothing compared*: it passed, "
    "but no comparison saw a predicted value, so it shows nothing and counts neither way. *Explained*: it fails, and the reason is "
    "known and is not the evaluator's. *fp16*: the test asks for float16, or its program gives float16 somewhere. Upstream's tolerance of "
    "0.5 for them is narrowed to 0.5 % of the largest expected value; a float32 tolerance on such a program is widened to that."
)


def _made(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    others = sum(cases for evaluator, cases in found["evaluators"].items() if evaluator != found["evaluator"])
    stale = f" **{others} cases were decided by another version of the evaluator.**" if others else ""
    return f"{found['date']}, {found['machine']}, {versions}, evaluator {found['evaluator']}.{stale}"


def write(results: Path, out: Path) -> None:
    """conformance.md and conformance.json in `out`, and the figures on the screen."""
    found = report(read(results), read_reasons())
    out.mkdir(parents=True, exist_ok=True)
    (out / "conformance.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "conformance.md").write_text(markdown(found), encoding="utf-8")
    for row in found["rows"]:
        passed = f"{row['passed']} of {row['applicable']} passed ({row['passed %']} %)"
        print(f"{row['suite']:>12} {row['precision']:>5}: {passed}, {row['cases']} cases")
    print(f"written to {out / 'conformance.md'}")
