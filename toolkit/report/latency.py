"""A measurement as tables and sentences: figures, cold costs, verdicts, and why an arm does not count."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolkit.report.tables import NONE, Table, machine, plural, table

if TYPE_CHECKING:
    from toolkit.bench.result import Arm, BenchResult, Figures, Interval

QUICK = "QUICK: for a look, not for a claim"
INTERRUPTED = "INTERRUPTED: these are the rounds until then"
LATER = "measured at another time: the interval does not know what the machine did in between; measure side by side to be surer"
WARM = "cold is a fresh process: the files were still in the memory of the system, where a first start of the day would read them from disk"
UNVERIFIED = "NOT VERIFIED: there is no reference for the outputs of this file"


def digits(value: float | None, scale: float = 1.0) -> str:
    """Three significant ones at most: 0.123, 12.3, 1230."""
    return NONE if value is None else f"{float(f'{value * scale:.3g}'):.10g}"


def span(found: "Interval | None") -> str:
    if found is None:
        return NONE
    return digits(found.value) if found.low is None else f"{digits(found.value)} [{digits(found.low)}, {digits(found.high)}]"


Column = tuple[str, Callable[["Arm", "Figures"], str]]


def latency_tables(result: "BenchResult") -> list[Table]:
    """The figures, what a start costs, the verdicts, and LoadGen's own section where it was run."""
    title = f"Host-to-host latency of {result.model}, {_title(result)}, {result.preset}, {result.started_utc}"
    found = [] if result.scenario == "cold" else [table(title, *_figures(result))]
    found.append(table(title if result.scenario == "cold" else "What a start costs", *_cold(result)))
    if result.scenario == "sustained":
        found.append(table("p50 of each ten seconds", *_windows(result)))
    if result.verdicts:
        found.append(table(f"Verdicts: the ratio of latencies with its 95 % interval, {_how(result)}", *_verdicts(result)))
    if result.loadgen:
        found.append(table("MLPerf LoadGen SingleStream: an outside check, on its own clock", *_loadgen(result)))
    return found


def _how(result: "BenchResult") -> str:
    if result.against is None:
        return "paired by rounds"
    return f"Welch's against {result.against.file} of {result.against.started_utc}; the control paired by rounds"


def _title(result: "BenchResult") -> str:
    words = {"paced": f"paced at {result.hz or 0:g} Hz", "cold": "cold starts", "sustained": f"sustained for {result.sustained_s or 0:g} s"}
    sizes = sorted({arm.batch for arm in result.arms})
    return f"{words.get(result.scenario, result.scenario)}, batch {' and '.join(map(str, sizes))}"


def _names(result: "BenchResult") -> list[tuple[str, Callable[["Arm"], str]]]:
    """Columns that tell arms apart; threads and batch only where they differ."""
    columns: list[tuple[str, Callable[[Arm], str]]] = [
        ("artifact", lambda arm: arm.artifact + (" (A/A)" if arm.control else "")), ("runtime", lambda arm: arm.runtime),
    ]  # fmt: skip
    if any(arm.threads is not None for arm in result.arms):
        columns.append(("threads*", lambda arm: "its own" if arm.threads is None else str(arm.threads)))
    if len({arm.batch for arm in result.arms}) > 1:
        columns.append(("batch*", lambda arm: str(arm.batch)))
    return columns


def _rows(result: "BenchResult", columns: list[Column]) -> tuple[list[str], list[list[str]]]:
    names = _names(result)
    rows = [
        [read(arm) for _, read in names] + [NONE if arm.figures is None else show(arm, arm.figures) for _, show in columns]
        for arm in result.arms
    ]
    return [*(title for title, _ in names), *(title for title, _ in columns)], rows


def _figures(result: "BenchResult") -> tuple[list[str], list[list[str]]]:
    columns: list[Column] = [("p50 (ms) [95 %]*", lambda _, found: span(found.p50_ms))]
    if result.scenario == "paced":
        columns.append(("once begun (ms)*", lambda _, found: digits(found.service_p50_ms)))
    columns += [
        ("p90 (ms)*", lambda _, found: digits(found.p90_ms)), ("p99 (ms)*", lambda _, found: digits(found.p99_ms)),
        ("images/s*", lambda _, found: digits(found.images_per_s)),
    ]  # fmt: skip
    if any(arm.figures and arm.figures.calls and arm.figures.images_per_s is None for arm in result.arms):
        columns.append(("calls/s*", lambda _, found: digits(found.calls_per_s)))
    if any(arm.figures and arm.figures.framework_p50_ms is not None for arm in result.arms):
        columns.append(("framework's own p50 (ms)*", lambda _, found: digits(found.framework_p50_ms)))
    titles, rows = _rows(result, columns)
    for arm, row in zip(result.arms, rows, strict=True):
        row += [_planned(arm), _state(arm)]
    return [*titles, "planned on", "valid"], rows


def _cold(result: "BenchResult") -> tuple[list[str], list[list[str]]]:
    columns: list[Column] = []
    if any(arm.figures and arm.figures.compile_ms for arm in result.arms):
        columns.append(("compile (ms)*", lambda _, found: span(found.compile_ms)))
    columns += [
        ("load (ms)*", lambda _, found: span(found.load_ms)), ("first call (ms)*", lambda _, found: span(found.first_call_ms)),
        ("peak memory of the process (MB)*", lambda _, found: digits(found.peak_memory_bytes, 1e-6)),
    ]  # fmt: skip
    titles, rows = _rows(result, columns)
    if result.scenario == "cold":
        return [*titles, "valid"], [[*row, _state(arm)] for arm, row in zip(result.arms, rows, strict=True)]
    return titles, rows


def _windows(result: "BenchResult") -> tuple[list[str], list[list[str]]]:
    columns: list[Column] = [
        ("first (ms)*", lambda _, found: digits(found.windows_ms[0])), ("last (ms)*", lambda _, found: digits(found.windows_ms[-1])),
        ("fastest (ms)*", lambda _, found: digits(min(found.windows_ms))),
        ("slowest (ms)*", lambda _, found: digits(max(found.windows_ms))),
        ("windows*", lambda _, found: str(len(found.windows_ms))),
    ]  # fmt: skip
    return _rows(result, columns)


def _verdicts(result: "BenchResult") -> tuple[list[str], list[list[str]]]:
    rows = [
        [each.arm, each.against, f"{digits(each.ratio)} [{digits(each.low)}, {digits(each.high)}]", each.verdict]
        for each in result.verdicts
    ]
    return ["arm", "against", "ratio [95 %]*", "verdict"], rows


def _loadgen(result: "BenchResult") -> tuple[list[str], list[list[str]]]:
    rows = [
        [each.arm, str(each.queries), digits(each.seconds), digits(each.p50_ms), digits(each.p90_ms), digits(each.p99_ms),
         "FAILED" if each.error else "VALID" if each.valid else "INVALID"]
        for each in result.loadgen
    ]  # fmt: skip
    return ["arm", "queries*", "seconds*", "p50 (ms)*", "p90 (ms)*", "p99 (ms)*", "by its own rules"], rows


def _planned(arm: "Arm") -> str:
    if not arm.rounds:
        return NONE
    places = [each.placement for each in arm.rounds]
    shown = [", ".join(f"{name} {count}" for name, count in each.planned.items()) or f"{each.requested} (requested)" for each in places]
    return " or ".join(dict.fromkeys(shown))


def _state(arm: "Arm") -> str:
    return "FAILED" if arm.error else NONE if not arm.rounds else "VALID" if arm.valid else "INVALID"


def latency_notes(result: "BenchResult") -> list[str]:
    """What a reader must know before quoting a figure, each a sentence of its own."""
    from toolkit.bench.judge import uncontrolled, undecided, unmatched
    from toolkit.bench.stats import LEAST_ROUNDS

    sound = [arm for arm in result.arms if arm.figures is not None]
    notes = [INTERRUPTED] if result.interrupted else []
    notes += [QUICK] if result.preset == "quick" else []
    notes += [WARM] if result.scenario == "cold" else []
    notes += [UNVERIFIED] if result.checkpoint_sha256 is None else []
    notes += [f"failed: {arm.id}: {arm.error}" for arm in result.arms if arm.error]
    notes += [f"LoadGen failed: {each.arm}: {each.error}" for each in result.loadgen if each.error]
    notes += [f"INVALID {arm.id}: {each.name}: {each.figure}; needed: {each.need}"
              for arm in result.arms if not arm.error for each in arm.findings if each.ok is False]  # fmt: skip
    notes += [f"whether {arm.id} drifts cannot be told: {each.figure}"
              for arm in sound if len(arm.rounds) >= LEAST_ROUNDS for each in arm.findings
              if each.name == "does not drift" and each.ok is None]  # fmt: skip
    notes += [f"not compared: {arm}: {why}" for arm, why in unmatched(result)]
    if result.against is not None:
        notes.append(LATER)
        notes += [f"no verdict: {arm}: {why}" for arm, why in undecided(result)]
    controls = {arm.id for arm in result.arms if arm.control}
    notes += [f"inconclusive: {each.arm}: its interval shows neither that it is slower nor that it is not; --fail-if-slower lets it pass"
              for each in result.verdicts if each.verdict == "inconclusive" and each.arm not in controls]  # fmt: skip
    if busy := load_warning(result):
        notes.append(busy)
    for arm in sound:
        notes += _of_arm(arm, result.scenario)
    if result.noise is not None:
        own = next(each for each in result.verdicts if each.arm == next(arm.id for arm in result.arms if arm.control))
        text = f"noise floor ±{digits(result.noise, 100)} %: half the interval of {own.against} against itself"
        wrong = f"WARNING: {text}, which does not even cover 1; others must be farther from 1 than that, and nothing is called the same"
        notes.append(text if own.low <= 1 <= own.high else wrong)
    elif result.scenario != "sustained" and sound and not result.verdicts:
        notes.append(f"no verdicts: {uncontrolled(result.arms) or 'they need three rounds, the default preset, and arms that are valid'}")
    return [*notes, *_missing(result), f"machine: {machine(result.environment)}"]


def _of_arm(arm: "Arm", scenario: str) -> list[str]:
    found, notes = arm.figures, []
    if found is None or found.calls == 0:
        return []
    if found.modes and scenario != "paced":
        notes.append(
            f"{len(found.modes)} modes of {arm.id}: " + " · ".join(f"{digits(ms)} ms {100 * share:.0f} %" for ms, share in found.modes)
        )
    if found.outliers:
        notes.append(f"{plural(found.outliers, 'outlier')} of {found.calls:,} calls of {arm.id}, kept")
    if found.between_rounds is not None and found.within_rounds is not None:
        worth = "" if found.effective_calls is None else f"; {found.calls:,} calls are worth {found.effective_calls:,.0f} independent ones"
        between, within = digits(found.between_rounds, 100), digits(found.within_rounds, 100)
        notes.append(f"spread of {arm.id}: {between} % between rounds, {within} % within one{worth}")
    return notes


def _missing(result: "BenchResult") -> list[str]:
    from toolkit.bench.stats import CALLS_FOR_P90, CALLS_FOR_P99, LEAST_ROUNDS

    if result.scenario == "cold":
        return []
    notes, calls = [], [int(arm.figures.effective_calls) for arm in result.arms if arm.figures is not None and arm.figures.effective_calls]
    for name, needed in (("p99", CALLS_FOR_P99), ("p90", CALLS_FOR_P90)):
        if calls and min(calls) < needed:
            notes.append(f"{NONE} under {name}: needs {needed} calls, here are {min(calls)} independent ones")
    if any(arm.figures is not None and len(arm.rounds) < LEAST_ROUNDS for arm in result.arms) and result.scenario != "sustained":
        notes.append(f"p50 without an interval: needs {LEAST_ROUNDS} rounds")
    return notes


def load_warning(result: "BenchResult") -> str | None:
    """On a busy machine the figures are of the machine's other work as well."""
    cores = result.environment.get("cores", "")
    if not cores.isdigit() or not result.load_average_before or result.load_average_before[0] <= int(cores) / 2:
        return None
    return (
        f"WARNING: the machine was busy before the first round (load average {result.load_average_before[0]:.2f} on {cores} cores); "
        "end other programs and measure again"
    )


def skipped_lines(result: "BenchResult") -> list[str]:
    return [f"{each.runtime}, {each.artifact or 'no artifact'}: {each.reason}" for each in result.skipped]
