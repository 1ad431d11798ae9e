"""Charts as inline SVG, with matplotlib's objects and no pyplot: no window, no state left behind.

Colours are placeholders that become CSS variables of the page, so that a chart follows light and dark by itself.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from toolkit.printable import line
from toolkit.report.findings import Curves
from toolkit.report.latency import digits
from toolkit.report.tables import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toolkit.bench.result import Arm, BenchResult

LONGEST_NAME = 80  # characters beside a chart, which a longer one would push off the page
LOG_SPREAD = 20.0  # slowest over fastest, from which a linear axis hides the fast ones
INK, MUTED, LINE, ACCENT, SECOND = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)", SECOND: "var(--second)"}
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, small, found by a search, read by a screen reader
    "svg.hashsalt": "toolkit",  # the same figures give the same file
    "text.parse_math": False,  # a $ in an artifact's name is a $
    "font.size": 10, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.titlesize": 10,
    "xtick.color": MUTED, "ytick.color": MUTED, "grid.color": LINE, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "legend.frameon": False, "legend.labelcolor": INK,
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """`alt` says what the picture shows to those who do not see it, and stands in Markdown for it."""

    caption: str
    alt: str
    svg: str


def latency_chart(result: "BenchResult") -> Chart | None:
    """The median of every round, and p50 of each arm with its 95 % interval; fastest on top, invalid ones below. None without arms."""
    from matplotlib.ticker import LogLocator

    found = [(arm, arm.figures.p50_ms) for arm in result.arms if arm.figures is not None and arm.figures.p50_ms is not None]
    found.sort(key=lambda each: (each[0].valid, -each[1].value))
    if not found:
        return None
    medians = [p50.value for _, p50 in found]
    low = [p50.value - (p50.low or p50.value) for _, p50 in found]
    high = [(p50.high or p50.value) - p50.value for _, p50 in found]
    rounds = [(median(each.samples_ns) / 1e6, place) for place, (arm, _) in enumerate(found) for each in arm.rounds if each.samples_ns]
    logarithmic = max(medians) > LOG_SPREAD * min(medians)
    with _figure(height=0.9 + 0.36 * len(found)) as figure:
        axes = figure.add_subplot()
        axes.plot(*zip(*rounds, strict=True), "|", color=MUTED, markersize=9, markeredgewidth=1)
        axes.errorbar(medians, range(len(found)), xerr=[low, high], fmt="o", color=ACCENT, markersize=6, capsize=4, linewidth=1.5)
        for place, value in enumerate(medians):
            axes.annotate(digits(value), (value, place), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
        axes.set_yticks(range(len(found)), [_named(arm) for arm, _ in found])
        axes.set_ylim(-0.6, len(found) - 0.3)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="x", linewidth=0.6)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(_plain_number)
            axes.xaxis.set_minor_formatter("")
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(f"p50 (ms){', logarithmic' if logarithmic else ''}")
        svg = _svg(figure, "latency")
    listed = "; ".join(f"{_named(arm)} {digits(p50.value)} ms" for arm, p50 in reversed(found))
    return Chart("Latency: every round, and p50 with its 95 % interval over rounds", f"p50 latency, fastest first: {listed}.", svg)


def _named(arm: "Arm") -> str:
    words = [f"{arm.artifact} · {arm.runtime}", *([f"{arm.threads} threads"] if arm.threads else [])]
    words += [f"batch {arm.batch}"] if arm.batch > 1 else []
    words += ["A/A"] if arm.control else []
    return line(" · ".join([*words, *([] if arm.valid else ["INVALID"])]), LONGEST_NAME)


def training_charts(series: Curves) -> list[Chart]:
    """Loss, and accuracies, each over the steps since the start."""
    if not series.steps:
        return []
    with _figure(height=2.6) as figure:
        axes = _over_steps(figure, "train loss")
        axes.plot(series.steps, series.loss, ".-", color=ACCENT, linewidth=1.5, markersize=4)
        loss = _svg(figure, "loss")
    with _figure(height=2.6) as figure:
        axes = _over_steps(figure, "accuracy (%)")
        axes.plot(series.steps, [100 * share for share in series.accuracy], ".-", color=ACCENT, linewidth=1.5, markersize=4, label="train")
        if series.judged_steps:
            judged = [100 * share for share in series.judged_accuracy]
            axes.plot(series.judged_steps, judged, "D--", color=SECOND, markersize=5, label=series.judge)
        axes.legend(loc="lower right")
        accuracy = _svg(figure, "accuracy")
    span = f"over {plural(int(series.steps[-1]), 'step')}"
    name, judged = series.judge.capitalize(), series.judged_accuracy
    last = f" {name} accuracy ends at {100 * judged[-1]:.2f} %." if judged else ""
    return [
        Chart("Train loss", f"Train loss {span}, from {series.loss[0]:.3g} to {series.loss[-1]:.3g}.", loss),
        Chart(f"Train and {series.judge} accuracy", f"Train accuracy {span}, from {100 * series.accuracy[0]:.2f} % to "
              f"{100 * series.accuracy[-1]:.2f} %.{last}", accuracy),
    ]  # fmt: skip


def _over_steps(figure: "Figure", label: str) -> Any:
    axes = figure.add_subplot()
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(linewidth=0.6)
    return axes


def _plain_number(value: float, _position: float) -> str:
    return f"{value:g}"


@contextmanager
def _figure(height: float) -> Iterator["Figure"]:
    """Sizes in inches. The look holds only inside the block, and only for us: matplotlib's settings are global."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser draws the text, with fonts of its own
        yield Figure(figsize=(7.2, height), layout="constrained")


def _svg(figure: "Figure", name: str) -> str:
    """The <svg> element alone. Ids get the chart's name in front: two charts on a page would share theirs."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg, count=1)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
