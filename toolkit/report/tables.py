"""What a result says, as tables of text. Made once, shown on the terminal, in HTML and in Markdown: the same digits in all three."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.validation.result import RuntimeRow, Unavailable, ValidationResult

NONE = "–"
REFERENCE = "torch-cpu"
NOT_RUN = "not run here (not counted as passed)"
VERDICTS = frozenset({"verdict", "valid", "by its own rules"})  # titles of the columns that say whether something holds
MACHINE = ("processor", "cores", "memory", "system", "python")


@dataclass(frozen=True)
class Table:
    """Every row has one cell for each column; `numeric` columns are set to the right. `heat`, if any, shades cells, 0..1."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()  # by position: titles may be class labels, and those may be alike
    heat: tuple[tuple[float, ...], ...] = ()

    @property
    def verdicts(self) -> frozenset[int]:
        """Columns whose words are coloured; a label or a name that says "pass" is not."""
        return frozenset(place for place, title in enumerate(self.columns) if title in VERDICTS and not self.heat)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A column whose title ends in `*` is numeric."""
    if wrong := [row for row in rows if len(row) != len(columns)]:
        raise ValueError(f"{caption}: {len(columns)} columns, but a row of {len(wrong[0])}: {wrong[0]}")
    names = tuple(column.removesuffix("*") for column in columns)
    numeric = frozenset(place for place, column in enumerate(columns) if column.endswith("*"))
    return Table(caption, names, tuple(tuple(row) for row in rows), numeric)


def percent(share: float) -> str:
    """A share of 1 as percent: four decimals tell one image in a million, but two tell one in 10,000, which is the test set."""
    return f"{100 * share:.2f}"


def signed(points: float) -> str:
    text = f"{points:+.2f}"
    return "0.00" if float(text) == 0 else text


def number(value: float | None, scale: float = 1.0) -> str:
    """About four digits, without exponents: 0.1234, 12.34, 1234."""
    if value is None:
        return NONE
    value *= scale
    decimals = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:.{decimals}f}"


def accuracy_cells(metrics: dict[str, float]) -> tuple[str, str, str]:
    """Of a checkpoint's test images: accuracy (%), its exact 95 % interval (Clopper–Pearson), how many are wrong."""
    from toolkit.validation.statistics import exact_interval

    correct, images = int(metrics["test_correct"]), int(metrics["test_images"])
    low, high = exact_interval(correct, images)
    return percent(correct / images), f"{percent(low)}–{percent(high)}", f"{images - correct:,} of {images:,}"


def trained_rows(metrics: dict[str, float]) -> list[tuple[str, str]]:
    rows = [
        ("train loss, last epoch (as minimised)", f"{metrics['train_loss']:.6g}"),
        ("train accuracy, last epoch (%)", percent(metrics["train_accuracy"])),
    ]
    if "image_visits" in metrics:
        rows.append(("image visits", f"{metrics['image_visits']:,.0f}"))
    if "held_out_accuracy" in metrics:
        rows.append(("held-out accuracy (%)", percent(metrics["held_out_accuracy"])))
    if "test_accuracy" in metrics:
        names = ("test accuracy (%)", "its exact 95 % interval", "test images wrong")
        rows += zip(names, accuracy_cells(metrics), strict=True)
    return rows


def least_loss(label_smoothing: float, classes: int) -> float:
    """Below which no cross-entropy against smoothed labels can fall: their own entropy, in nats."""
    other = label_smoothing / classes
    shares = [1 - label_smoothing + other, *[other] * (classes - 1)]
    return -sum(share * math.log(share) for share in shares)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def verdict(result: "ValidationResult", row: "RuntimeRow") -> str:
    about = {(row.artifact, row.runtime), (row.artifact, None)}
    if any((check.artifact, check.runtime) in about for check in result.breaches):
        return "FAIL"
    if any((check.artifact, check.runtime) in about for check in result.unjudged):
        return "not judged"
    return "reference" if row.is_reference else "pass"


def validation_tables(result: "ValidationResult") -> list[Table]:
    """Decisions, numbers and checks; what could not run is in none of them (see unavailable_lines)."""
    return [_decisions(result), _numbers(result), _checks(result)]


def _decisions(result: "ValidationResult") -> Table:
    columns = ("artifact", "runtime", "images*", "accuracy (%)*", "top-5 (%)*", "Δ accuracy (points) [95 %]*", "McNemar p*", "changed*",
               "allowed*", "verdict")  # fmt: skip
    rows = []
    for row in result.rows:
        low, high = row.figures.difference_interval
        change = f"{signed(100 * (row.figures.accuracy - row.figures.reference_accuracy))} [{signed(100 * low)}, {signed(100 * high)}]"
        allowed = NONE if row.allowed_changed is None else f"{row.allowed_changed}"
        top5 = NONE if row.figures.top5 is None else percent(row.figures.top5)  # five classes or fewer
        paired = (NONE, NONE) if row.is_reference else (change, f"{row.figures.mcnemar_p:.2g}")
        rows.append((row.artifact, row.runtime, str(row.images), percent(row.figures.accuracy), top5, *paired, str(len(row.changed)),
                     allowed, verdict(result, row)))  # fmt: skip
    extent = f"{result.test_images}" if result.limit is None else f"{len(result.test_indices)} of {result.test_images} (--limit)"
    return table(f"Decisions of {result.model} on {result.dataset}, {extent} test images, against PyTorch fp32", columns, rows)


def _numbers(result: "ValidationResult") -> Table:
    columns = ("artifact", "runtime", "max |Δ logit|*", "allowed*", "p99.9*", "mean*", "SNR (dB)*", "max |Δ prob.|*", "KL*",
               "ECE before (%)*", "ECE after (%)*", "saturated*", "golden, against float64*")  # fmt: skip
    rows = [
        (
            row.artifact, row.runtime, _short(each.max_abs_logit), _short(row.allowed_abs_logit), _short(each.p999_abs_logit),
            _short(each.mean_abs_logit), f"{each.snr_db:.1f}", _short(each.max_abs_probability), _short(each.kl),
            percent(each.reference_ece), percent(each.ece), str(each.saturated), _short(row.golden_abs_logit),
        )
        for row in result.rows
        for each in [row.figures]
    ]  # fmt: skip
    return table("Logits against PyTorch fp32 on the test images, and on the golden ones against PyTorch float64", columns, rows)


def _short(value: float | None) -> str:
    return NONE if value is None else f"{value:.2g}"


def _checks(result: "ValidationResult") -> Table:
    """How many of each level passed."""
    from toolkit.validation.result import LEVELS

    pairs = dict.fromkeys((check.artifact, check.runtime) for check in result.checks)
    rows = []
    for artifact, runtime in pairs:
        cells = []
        for level in LEVELS:
            members = [each for each in result.checks if (each.artifact, each.runtime, each.level) == (artifact, runtime, level)]
            cells.append(f"{sum(each.passed is True for each in members)} of {len(members)}" if members else NONE)
        rows.append((artifact, runtime or "(the file itself)", *cells))
    return table("Checks passed, cheapest level first", ("artifact", "runtime", *(f"{level}*" for level in LEVELS)), rows)


def breach_lines(result: "ValidationResult") -> list[str]:
    """What failed, what was allowed and why, and what is known of the cause; then what could not be judged."""
    failed = [
        f"FAILED: {each.artifact}{f' on {each.runtime}' if each.runtime else ''}, {each.level}: {each.name}: {each.figure}; "
        f"allowed {each.gate} ({each.why}){f'. {each.detail}' if each.detail else ''}"
        for each in result.breaches
    ]
    return failed + unjudged_lines(result)


def unjudged_lines(result: "ValidationResult") -> list[str]:
    return [f"not judged: {each.artifact} on {each.runtime}: {each.name}: {each.figure}. {each.detail}" for each in result.unjudged]


def unavailable_lines(unavailable: "Sequence[Unavailable]") -> list[str]:
    return [f"{each.runtime}, {each.artifact or 'no artifact'}: {each.reason}" for each in unavailable]


def verdict_line(result: "ValidationResult") -> str:
    """PASSED or FAILED first, then why. Nothing but what was compared can pass."""
    compared = sum(row.artifact in result.proved for row in result.rows)
    left_out = f"; {len(result.unavailable)} not run here" if result.unavailable else ""
    left_out += (
        f"; nothing is claimed of {', '.join(result.unproved)}, which no runtime ran or could be judged on" if result.unproved else ""
    )
    if result.passed:
        return f"PASSED: {plural(len(result.checks), 'check')}, {plural(compared, 'comparison')} with PyTorch{left_out}"
    failed = (
        f"{plural(len(result.breaches), 'check')} of {len(result.checks)} failed"
        if result.breaches
        else "nothing was compared with PyTorch that may ship and could be judged"
    )
    return f"FAILED: {failed}{left_out}"


def machine(environment: dict[str, str]) -> str:
    return ", ".join(f"{name} {environment[name]}" for name in MACHINE if name in environment)
