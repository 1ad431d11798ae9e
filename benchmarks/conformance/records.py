"""The results file: one JSON line a case, appended as it is decided, so that a run can be stopped and taken up again."""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = ("not applicable", "explained")


@dataclass(frozen=True)
class Record:
    """`outcome`: passed, failed, skipped, xfailed or crashed. `code`: the evaluator that decided it.

    `largest`: the largest difference found, relative to the largest value expected.
    """

    key: str
    suite: str
    outcome: str
    precision: str = ""
    predictions: int = 0
    comparisons: int = 0
    largest: float | None = None
    seconds: float = 0.0
    error: str = ""
    code: str = ""
    ops: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reason:
    """Why failures whose key matches `case` and whose error matches `error` (both regular expressions) do not count."""

    reason: str
    kind: str
    case: str = ""
    error: str = ""

    def covers(self, record: Record) -> bool:
        return bool(re.search(self.case, record.key) and re.search(self.error, record.error))


def append(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read(folder: Path) -> dict[str, Record]:
    """All records of a run, the last one of each case; a line that was cut off by the end of the process is passed over."""
    return {record.key: record for path in sorted(folder.glob("*.jsonl")) for record in _lines(path)}


def _lines(path: Path) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield Record(**json.loads(line))
        except ValueError:
            continue


def append_attempt(path: Path, op: str, key: str, outcome: str, error: str = "") -> None:
    """A case that ran with `op` made wrong (mutations.py)."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"op": op, "key": key, "outcome": outcome, "error": error}) + "\n")


def attempts(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in sorted(folder.glob("*.mutated")) for line in path.read_text(encoding="utf-8").splitlines()]


def read_reasons(path: Path = HERE / "reasons.toml") -> list[Reason]:
    """Raises ValueError for one that would cover everything, or is of no known kind."""
    reasons = [Reason(**each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["reason"]]
    for each in reasons:
        if each.kind not in KINDS or not each.reason or not (each.case or each.error):
            raise ValueError(f"{path}: {each} needs a reason, a case or an error, and a kind out of {', '.join(KINDS)}")
    return reasons


def read_unseen(path: Path = HERE / "reasons.toml") -> dict[str, str]:
    """op -> why no case of coremltools notices that it is wrong."""
    return {each["op"]: each["reason"] for each in tomllib.loads(path.read_text(encoding="utf-8"))["unseen"]}


def verdict(record: Record, reasons: Iterable[Reason]) -> tuple[str, str]:
    """(passed, failed, nothing compared, explained or not applicable; the reason for the last two)."""
    if record.outcome in ("skipped", "xfailed"):
        how = "skipped by" if record.outcome == "skipped" else "expected to fail by"
        return "not applicable", f"{how} the test itself: {_short(record.error)}"
    if record.outcome == "passed":
        return ("passed" if record.comparisons else "nothing compared"), ""
    covering = next((reason for reason in reasons if reason.covers(record)), None)
    return (covering.kind, covering.reason) if covering else ("failed", "")


def _short(message: str) -> str:
    """What a skip says, so that the same reason counts as one: without the numbers and paths of the case."""
    text = re.sub(r"^Skipped: ", "", message) or "no reason given"
    return re.sub(r"\d+(, \d+)+|/\S+", "…", text)[:100].replace("|", "/")


def code() -> str:
    """Twelve digits that stand for the evaluator's sources."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "toolkit" / "mil").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def covered(records: Iterable[Record], reasons: Iterable[Reason]) -> Counter[tuple[str, str]]:
    """How many cases each reason took out: (kind, reason) -> cases."""
    found = (verdict(record, reasons) for record in records)
    return Counter((kind, reason) for kind, reason in found if reason)
