"""Results on the terminal: a table for people, JSON for programs. One renderer for each type of result."""

import dataclasses
import json as json_module
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from toolkit.printable import line
from toolkit.progress import showing
from toolkit.report import latency, tables
from toolkit.report.tables import Table, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from toolkit.bench.result import BenchResult
    from toolkit.debug.result import DebugResult, HazardsResult
    from toolkit.doctor import Diagnosis
    from toolkit.export.export import ExportResult
    from toolkit.faults.selftest import SelfTestResult
    from toolkit.inspection import Facts
    from toolkit.predict import PredictResult
    from toolkit.report.report import ReportResult
    from toolkit.training.fit import TrainResult
    from toolkit.training.readiness import Readiness
    from toolkit.training.seeds import SeedsResult
    from toolkit.validation.result import ValidationResult
    from toolkit.validation.verification import VerifyResult

LOG_WIDTH = 100_000  # a log has no right edge: no cell is folded there, and nothing is ever cut
STYLES = {
    "pass": "green", "FAIL": "bold red", "FAILED": "bold red", "PASSED": "bold green", "WARNING": "yellow", "QUICK": "yellow",
    "VALID": "green", "INVALID": "yellow", "INTERRUPTED": "yellow", "slower": "red", "faster": "green",
}  # fmt: skip
Part = Table | str


def show(result: Any, as_json: bool) -> None:
    """Print a result to standard output. Raises ToolkitError where it cannot be written, BrokenPipeError where nobody reads it."""
    with showing():
        if as_json:
            print(json_module.dumps(plain(result), indent=1, allow_nan=False))
            return
        console = _console()
        for part in parts(result):
            _print(console, part)


def lines(*texts: str) -> None:
    """Print lines to standard output, after what `show` printed."""
    console = _console()
    for text in texts:
        _print(console, text)


def plain(value: Any) -> Any:
    """The value as JSON has it: dataclasses and models as objects, paths as text, NaN and infinity as text."""
    if isinstance(value, BaseModel):
        fields = value.model_dump(mode="json")
        return {**fields, "passed": value.passed} if hasattr(value, "passed") else fields
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def parts(result: Any) -> Iterable[Part]:
    """Tables and lines, in the order in which they are printed. A list is of one type of result."""
    kind = type(result[0] if isinstance(result, list) and result else result).__name__
    return RENDERERS[kind](result)


def _trained(result: "TrainResult") -> Iterable[Part]:
    yield table("Trained" if result.finished else "Training interrupted", ("figure", "value*"), tables.trained_rows(result.metrics))
    if result.seconds:
        yield "time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items() if seconds >= 0.5)
    yield f"checkpoint: {result.checkpoint}"
    if not result.finished:
        yield "not finished: no test accuracy yet; go on with --resume"
    if result.missed:
        yield "FAILED: the accuracy that was asked for was not reached"


def _several(result: "SeedsResult") -> Iterable[Part]:
    rows = [(seed, *tables.accuracy_cells(metrics), f"{metrics['train_loss']:.4f}") for seed, metrics in result.runs.items()]
    yield table("Seeds", ("seed*", "test accuracy (%)*", "exact 95 % interval*", "wrong*", "train loss*"), rows)
    if result.mean is not None:
        spread = f" ± {100 * result.sd:.3f} (standard deviation between runs)" if result.sd is not None else ""
        yield f"mean of {len(result.runs)}: {100 * result.mean:.3f} %{spread}"
    if result.held_out_mean is not None:
        spread = f" ± {100 * result.held_out_sd:.3f}" if result.held_out_sd is not None else ""
        yield f"on held-out images, to choose by: {100 * result.held_out_mean:.3f} %{spread}"
    if result.missed:
        yield "FAILED: the accuracy that was asked for was not reached by every seed"
    yield f"checkpoint: {result.checkpoint} (of the first seed)" if result.finished else "not finished; go on with --resume"


def _ready(result: "Readiness") -> Iterable[Part]:
    rows = [(use.step, use.operator, str(use.calls), ", ".join(use.dtypes), str(use.fault)) for use in result.faults]
    if rows:
        yield table(f"What MPS cannot take of {result.model}", ("step", "operator", "calls*", "dtypes", "why"), rows)
    for step in ("training", "inference"):
        uses = [use for use in result.operators if use.step == step]
        good, made = sum(use.fault is None and not use.composite for use in uses), sum(use.composite for use in uses)
        yield (
            f"{step} step: {good} of {len(uses)} operators have an MPS kernel in torch {result.torch} for the dtypes they meet; "
            f"for {made}, torch has one for all backends, which calls others that only a Mac can show"
        )
    yield "what these kernels compute was not seen: that takes a Mac, where training begins with a check of the gradients"


def _exported(results: "list[ExportResult]") -> Iterable[Part]:
    columns = ("artifact", "format", "precision", "size (MB)*", "max |Δ logit| on golden*", "time (s)*")
    rows = [
        (each.folder.name, each.format, each.precision, f"{each.size_bytes / 1e6:.2f}",
         "not run here" if each.golden_max_abs_logit is None else f"{each.golden_max_abs_logit:.3g}", f"{each.seconds:.1f}")
        for each in results
    ]  # fmt: skip
    yield table("Exported", columns, rows)
    yield from (f"note on {each.folder.name}: {note}" for each in results for note in each.notes)
    yield from (f"written to {each.folder}" for each in results)


def _validated(result: "ValidationResult") -> Iterable[Part]:
    yield from tables.validation_tables(result)
    yield from tables.breach_lines(result)
    yield from _listed(tables.NOT_RUN, tables.unavailable_lines(result.unavailable))
    yield tables.verdict_line(result)


def _verified(result: "VerifyResult") -> Iterable[Part]:
    from toolkit.validation import EVIDENCE, TRUST

    rows = [(each.artifact, each.name, each.figure, each.gate, "pass" if each.passed else "FAIL") for each in result.checks]
    yield table(f"Evidence of {result.folder}", ("what", "check", "found", "expected", "verdict"), rows)
    yield from (f"FAILED: {each.artifact}: {each.name}: {each.detail}" for each in result.checks if each.detail)
    yield from _listed("not checked here (not counted as passed)", result.not_checked)
    names = sorted(result.versions_then.keys() | result.versions_now.keys())
    differ = [f"{name}: {result.versions_then.get(name, 'none')} then, {result.versions_now.get(name, 'none')} here" for name in names
              if result.versions_then.get(name) != result.versions_now.get(name)]  # fmt: skip
    yield from _listed("another environment than the one it was validated in", differ)
    yield from _listed("to be known", result.notes)
    yield f"digest: {result.digest} (sha256 of reports/{EVIDENCE})"
    if not result.vouched:
        yield TRUST
    yield f"PASSED: {tables.plural(len(result.checks), 'check')}" if result.passed else "FAILED: this is not what was validated"


def _self_tested(result: "SelfTestResult") -> Iterable[Part]:
    rows = []
    for artifact, stage in dict.fromkeys((row.artifact, row.stage) for row in result.rows):
        members = [row for row in result.rows if (row.artifact, row.stage) == (artifact, stage)]
        rows.append(
            (artifact, stage, str(len(members)), *(str(sum(getattr(row, name) for row in members)) for name in ("caught", "named")))
        )
    yield table(f"Faults planted in copies of {result.model}", ("artifact", "stage", "planted*", "caught*", "named by the check*"), rows)
    yield from (f"FAILED: {row.fault} in {row.artifact} was not caught{f' ({row.by})' if row.by else ''}"
                for row in result.rows if not row.caught)  # fmt: skip
    caught = sum(row.caught for row in result.rows)
    verdict = "PASSED" if result.kill_rate == 1 else "FAILED"
    yield f"{verdict}: {caught} of {len(result.rows)} faults caught ({tables.percent(result.kill_rate)} %)"


def _debugged(result: "DebugResult") -> Iterable[Part]:
    columns = ("op*", "type", "value", "PyTorch's", "where", "own error*", "band*", "total error*", "SNR (dB)*", "largest*", "verdict")
    rows = [
        (
            str(each.position), each.op, each.name, each.reference or tables.NONE, f"{each.module} {each.source}".strip(),
            _short(each.own), _short(each.band), _short(each.total), tables.NONE if each.snr_db != each.snr_db else f"{each.snr_db:.0f}",
            _short(each.largest), each.verdict,
        )
        for each in result.layers
    ]  # fmt: skip
    yield table(f"{result.artifact} of {result.model}, op by op, on {tables.plural(result.images, 'image')}", columns, rows)
    gate = "not judged" if result.allowed is None else f"allowed {result.allowed:.3g}"
    yield f"max |Δ logit| {result.max_abs_logit:.3g}, {gate}"
    if result.agrees:
        yield f"PASSED: {result.explanation}"
        return
    if (each := result.culprit) is not None:
        yield f"FAILED: op {each.position} ({each.op} -> {each.name}){f', {each.module}' if each.module else ''}: {result.kind}"
    else:
        yield f"FAILED: {result.kind}"
    yield f"  {result.explanation}"
    if result.keep_fp32_works:
        names = " ".join(f"--keep-fp32 {name}" for name in result.keep_fp32)
        yield f"  within its gate again with: toolkit export --format coreml {names}"
    elif result.keep_fp32_works is False:
        yield "  no set of ops kept in fp32 brings it within its gate"


def _short(value: float) -> str:
    return tables.NONE if value != value else f"{value:.2g}"


def _hazarded(result: "HazardsResult") -> Iterable[Part]:
    columns = ("op*", "type", "value", "largest*", "smallest*", "headroom (bits)*", "subnormal (%)*", "lost (%)*", "verdict", "why")
    rows = [
        (
            str(each.position), each.op, each.name, _short(each.largest), _short(each.smallest), f"{each.headroom_bits:.1f}",
            tables.percent(each.subnormal), tables.percent(each.lost), each.verdict, each.why,
        )
        for each in result.hazards
    ]  # fmt: skip
    yield table(f"Values of {result.artifact} in float32, {tables.plural(result.images, 'test image')}", columns, rows)
    count = sum(each.verdict in ("overflow", "cliff") for each in result.hazards)
    yield f"FAILED: {tables.plural(count, 'op')} will go wrong in fp16" if count else "PASSED: no op leaves fp16 or reaches a known cliff"


def _benched(result: "BenchResult") -> Iterable[Part]:
    yield from latency.latency_tables(result)
    yield from latency.latency_notes(result)
    yield from _listed("not measured here", latency.skipped_lines(result))


def _reported(result: "ReportResult") -> Iterable[Part]:
    yield f"HTML:     {result.html}"
    yield f"Markdown: {result.markdown}"


def _predicted(result: "PredictResult") -> Iterable[Part]:
    columns = ("image", "class", "probability (%)*", "then", "strokes")
    rows = []
    for each in result.predictions:
        (label, share), *others = each.top
        then = ", ".join(f"{name} {tables.percent(value)} %" for name, value in others)
        rows.append((str(each.image), label, tables.percent(share), then, "dark on light, inverted" if each.inverted else "light on dark"))
    yield table(f"{result.model}: {result.artifact} on {result.runtime}", columns, rows)


def _inspected(result: "Facts") -> Iterable[Part]:
    yield table(result.title, ("fact", "value"), list(result.rows.items()))


def _examined(result: "Diagnosis") -> Iterable[Part]:
    rows = [
        (each.id, "no" if each.reason else "yes", each.version or tables.NONE, "latency and results" if each.is_device else "results only",
         each.reason or "")
        for each in result.runtimes
    ]  # fmt: skip
    yield table("Runtimes on this machine", ("runtime", "runs here", "version", "gives", "why not"), rows)
    yield table("Environment", ("name", "value"), list(result.environment.items()))
    if not result.problems:
        yield "no known problems with the installed versions"
    for problem in result.problems:
        yield f"FAILED: {problem.what}"
        yield f"  mend it with: {problem.mend}"


def _listed(heading: str, lines: Sequence[str]) -> Iterable[str]:
    if lines:
        yield f"{heading}:"
        yield from (f"  {line}" for line in lines)


# By name, not by type: a command then imports only its own room. tests/report/ checks that each name is a type.
RENDERERS: dict[str, Callable[[Any], Iterable[Part]]] = {
    "TrainResult": _trained,
    "SeedsResult": _several,
    "Readiness": _ready,
    "ExportResult": _exported,  # a list of them
    "ValidationResult": _validated,
    "VerifyResult": _verified,
    "SelfTestResult": _self_tested,
    "DebugResult": _debugged,
    "HazardsResult": _hazarded,
    "BenchResult": _benched,
    "ReportResult": _reported,
    "PredictResult": _predicted,
    "Facts": _inspected,
    "Diagnosis": _examined,
}


def _console() -> "Console":
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Let the command line see to it; rich would end with 1, which says that a check failed."""
            raise  # the BrokenPipeError that rich is handling

    width = None if sys.stdout.isatty() else LOG_WIDTH
    return Plain(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def _print(console: "Console", part: Part) -> None:
    """One line stays one line, whatever is in it: nothing but the last line of a command can look like its verdict."""
    from rich.text import Text

    if isinstance(part, str):
        console.print(Text(line(part), style=STYLES.get(part.partition(":")[0], "")), soft_wrap=True)
        return
    console.print(Text(line(part.caption), style="bold"), soft_wrap=True)
    console.print(rendered(part))


def rendered(part: Table) -> "RichTable":
    """On a narrow terminal cells are folded and lines wrapped by the terminal: whatever the width, every character is there."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(part.columns):
        shown.add_column(Text(line(column)), justify="right" if place in part.numeric else "left", overflow="fold")
    for row in part.rows:
        styles = [STYLES.get(cell, "") if place in part.verdicts else "" for place, cell in enumerate(row)]
        shown.add_row(*(Text(line(cell), style=style) for cell, style in zip(row, styles, strict=True)))
    return shown
