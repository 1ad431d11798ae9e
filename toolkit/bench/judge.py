"""From raw rounds to figures, findings and verdicts. Pure: whoever has the samples can make the table again."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from toolkit.bench.plan import Options
from toolkit.bench.result import GOLDEN_OUTPUTS, Arm, BenchResult, Finding, Placement, Round, Sensors, StoredArm, Verdict
from toolkit.bench.stats import CONFIDENCE, LEAST_ROUNDS, drift, summarise, t_interval
from toolkit.bench.stored import medians_ns

SAME = 0.01  # a difference below one percent is none that anybody needs
MOST_DRIFT = 0.02
MOST_OTHERS = 0.10  # of all cores, by other processes
MOST_STEAL = 0.02
MOST_JUMP_NS = 50_000_000
CPU, GPU, NEURAL_ENGINE = "CPU", "GPU", "Neural Engine"
# What was requested → (where ops may be, where at least one must be). Core ML may use the CPU beside an accelerator. Of all others
# every op is to be where it was asked to be: a provider of ONNX Runtime that hands a part of the graph on is another measurement.
PLACES: dict[str, tuple[set[str], set[str]]] = {
    "requested CPU_ONLY": ({CPU}, set()),
    "requested CPU_AND_GPU": ({CPU, GPU}, {GPU}),
    "requested CPU_AND_NE": ({CPU, NEURAL_ENGINE}, {NEURAL_ENGINE}),
    "requested ALL": ({CPU, GPU, NEURAL_ENGINE}, set()),
}


def judged(raw: BenchResult) -> BenchResult:
    """With everything that follows from its rounds, and from what it keeps of an earlier measurement."""
    options = Options(preset=raw.preset, scenario=raw.scenario, hz=raw.hz, seconds=raw.sustained_s, seed=raw.seed)
    cores = int(raw.environment.get("cores", "1"))
    arms = []
    for arm in raw.arms:
        counted = arm.rounds[0].images if arm.rounds else None
        batch = arm.batch if counted is None else max(1, counted)
        figures = None if arm.error else summarise(arm.rounds, batch if counted != 0 else None, raw.scenario)
        arms.append(arm.model_copy(update={"batch": batch, "figures": figures, "findings": list(findings(arm, options, cores))}))
    own = _own(arms, raw.scenario) if options.decides else None
    band = SAME if own is None or own.low <= 1 <= own.high else max(SAME, own.high - 1, 1 / own.low - 1)
    verdicts = [] if own is None else [own]
    if options.decides and uncontrolled(arms) is None:
        pairs = compared(raw.model_copy(update={"arms": arms}))
        verdicts += [
            found
            for arm, other in pairs
            if arm.valid and other.why_not is None  # what is invalid is shown, and never ranked
            and (found := compare(arm, other, len(pairs), raw.scenario, band)) is not None
        ]  # fmt: skip
    noise = None if own is None else math.sqrt(own.high / own.low) - 1
    return raw.model_copy(update={"arms": arms, "noise": noise, "verdicts": verdicts})


def _own(arms: list[Arm], scenario: str) -> Verdict | None:
    """The first arm against itself. Where that is not 1, others must be farther from 1 than it is."""
    control = next((arm for arm in arms if arm.control), None)
    return compare(control, arms[0], 1, scenario) if control is not None and control.valid and arms[0].valid else None


def uncontrolled(arms: list[Arm]) -> str | None:
    """Why nothing can be judged although a control was measured: what no difference looks like is then not known."""
    control = next((arm for arm in arms if arm.control), None)
    if control is None or not control.rounds:
        return None
    if control.why_not is not None:
        return f"the control is {control.why_not}"
    return None if arms[0].valid else f"{arms[0].id}, which the control repeats, is {arms[0].why_not}"


def compared(result: BenchResult) -> list[tuple[Arm, Arm | StoredArm]]:
    """Arms and what each is to be compared with: the first of its own batch size, or the same one in an earlier measurement."""
    own = [arm for arm in result.arms if not arm.control]
    if result.against is not None:
        before = {arm.id: arm for arm in result.against.arms}
        return [(arm, before[arm.id]) for arm in own if arm.id in before]
    first: dict[int, Arm] = {}
    for arm in own:
        first.setdefault(arm.batch, arm)
    return [(arm, first[arm.batch]) for arm in own if arm is not first[arm.batch]]


def undecided(result: BenchResult) -> list[tuple[str, str]]:
    """(arm, why) of each comparison that was to be made and has no verdict."""
    decided, found = {each.arm for each in result.verdicts}, list[tuple[str, str]]()
    control = uncontrolled(result.arms)
    for arm, other in compared(result):
        if arm.id in decided:
            continue
        theirs = f"{other.id}, {'stored' if isinstance(other, StoredArm) else 'which it is compared with'}, is {other.why_not}"
        few = f"there are {len(arm.rounds)} rounds, needed: {LEAST_ROUNDS} of both"
        found.append((arm.id, f"it is {arm.why_not}" if arm.why_not else theirs if other.why_not else control or few))
    return found


def unmatched(result: BenchResult) -> list[tuple[str, str]]:
    """(arm, why) of those that only one of two measurements has."""
    if result.against is None:
        return []
    mine, theirs = [arm.id for arm in result.arms if not arm.control], [arm.id for arm in result.against.arms]
    missing = [(each, f"it is not in {result.against.file}") for each in mine if each not in theirs]
    return missing + [(each, f"it is in {result.against.file} and not here") for each in theirs if each not in mine]


def compare(arm: Arm, other: Arm | StoredArm, number: int, scenario: str, band: float = SAME) -> Verdict | None:
    """Latency of `arm` over that of `other`; None where one of them was not measured often enough.

    Paired by rounds, which lie side by side in time; of a stored one Welch's interval. `number` of comparisons: Bonferroni.
    """
    mine, confidence = {place: math.log(each) for place, each in medians_ns(arm, scenario).items()}, 1 - (1 - CONFIDENCE) / max(1, number)
    if arm.error:
        return None
    if isinstance(other, StoredArm):
        before = [math.log(each) for each in other.medians_ns]
        if min(len(mine), len(before)) < LEAST_ROUNDS:
            return None
        mean, low, high = welch(list(mine.values()), before, confidence)
    else:
        theirs = {place: math.log(each) for place, each in medians_ns(other, scenario).items()}
        both = sorted(mine.keys() & theirs.keys())
        if other.error or len(both) < LEAST_ROUNDS:
            return None
        mean, low, high = t_interval([mine[each] - theirs[each] for each in both], confidence)
    return Verdict(
        arm=arm.id, against=f"{other.id}, stored" if isinstance(other, StoredArm) else other.id, ratio=math.exp(mean), low=math.exp(low),
        high=math.exp(high), verdict=_word(low, high, band),
    )  # fmt: skip


def welch(mine: Sequence[float], theirs: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """(difference of the means, low, high) of two independent samples of unequal variance."""
    from scipy.stats import t

    difference = float(np.mean(mine) - np.mean(theirs))
    errors = [float(np.var(each, ddof=1)) / len(each) for each in (mine, theirs)]
    if sum(errors) < 1e-24:  # rounds that are all the same, as of a clock that is coarse
        return difference, difference, difference
    freedom = sum(errors) ** 2 / sum(error**2 / (len(each) - 1) for error, each in zip(errors, (mine, theirs), strict=True))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(errors))
    return difference, difference - half, difference + half


def _word(low: float, high: float, band: float = SAME) -> Literal["faster", "slower", "same", "inconclusive"]:
    """`band`: wider where the control shows that no difference reaches that far; then nothing is called the same."""
    far = math.log1p(band)
    if high < -far:
        return "faster"
    if low > far:
        return "slower"
    return "same" if band == SAME and -far <= low and high <= far else "inconclusive"


def findings(arm: Arm, options: Options, cores: int) -> Iterator[Finding]:
    """The conditions of a valid measurement, one by one."""
    yield Finding(name="every round ended well", ok=arm.error is None, figure=arm.error or f"{len(arm.rounds)} rounds", need="all")
    rounds = arm.rounds
    if not rounds:
        return
    yield _verified(rounds)
    yield _placed(rounds)
    yield _clocks(rounds)
    if options.scenario != "cold":
        yield from _timing(rounds, options)
    yield from _quiet(rounds, cores)
    yield from _power(rounds)


def _timing(rounds: list[Round], options: Options) -> Iterator[Finding]:
    needed = 0.0 if options.hz is not None else options.timed_seconds  # the last of the paced calls is begun before the end
    calls, seconds = min(len(each.samples_ns) for each in rounds), min(each.wall_ns for each in rounds) / 1e9
    yield Finding(
        name="calls and time", ok=calls >= options.timed_calls and seconds >= needed,
        figure=f"{calls} calls, {seconds:.2f} s in the shortest round", need=f"{options.timed_calls} calls, {needed:g} s",
    )  # fmt: skip
    if options.scenario != "sustained":
        yield _steady(rounds)


def _verified(rounds: list[Round]) -> Finding:
    need = "before, during and after timing, within the gate"
    if not any(each.verified for each in rounds):
        return Finding(name=GOLDEN_OUTPUTS, ok=None, figure="not verified: there is no reference for this file", need=need)
    counts = {when: sum(each.verified.get(when, 0) for each in rounds) for when in ("before", "during", "after")}
    largest, gate = max(each.max_abs_logit or 0.0 for each in rounds), rounds[0].allowed_abs_logit
    figure = f"{sum(counts.values())} outputs, max |Δ logit| {largest:.2g}"
    if gate is None:
        return Finding(name=GOLDEN_OUTPUTS, ok=None, figure=f"{figure}, not judged by its logits", need=need)
    return Finding(name=GOLDEN_OUTPUTS, ok=largest <= gate, figure=figure, need=f"≤ {gate:.2g}, {need}")


def _placed(rounds: list[Round]) -> Finding:
    """Requested and planned, in every round."""
    places = [each.placement for each in rounds]
    states = [_where(each) for each in places]
    figures = dict.fromkeys(each.fallback or _counted(each.planned) or "not said" for each in places)
    ok = False if False in states else None if None in states else True
    return Finding(name="runs where it was asked to", ok=ok, figure="; in other rounds ".join(figures), need=places[0].requested)


def _counted(planned: dict[str, int]) -> str:
    return ", ".join(f"{count} of {sum(planned.values())} ops on {name}" for name, count in planned.items())


def _where(place: Placement) -> bool | None:
    if place.fallback:
        return False
    if not place.planned:
        return None
    allowed, needed = PLACES.get(place.requested, ({place.requested}, set()))
    there = {name for name, count in place.planned.items() if count}
    return there <= allowed and needed <= there


def _clocks(rounds: list[Round]) -> Finding:
    """A clock that was set, or a machine that slept, shows as two clocks that disagree."""
    spans = [(each.turns[0].before, each.turns[-1].after) for each in rounds]
    jump = max(abs((after.wall_ns - before.wall_ns) - (after.perf_ns - before.perf_ns)) for before, after in spans)
    return Finding(name="clocks agree", ok=jump <= MOST_JUMP_NS, figure=f"{jump / 1e6:.1f} ms apart", need=f"≤ {MOST_JUMP_NS / 1e6:g} ms")


def _steady(rounds: list[Round]) -> Finding:
    mean, low, high = t_interval([drift(np.maximum(np.asarray(each.samples_ns, dtype=float), 1.0)) for each in rounds])
    figure = f"{100 * math.expm1(mean):+.1f} %"
    if math.isnan(low):
        return Finding(name="does not drift", ok=None, figure=f"{figure} (too few rounds to tell)", need=f"≤ {100 * MOST_DRIFT:g} %")
    proven, none = low > MOST_DRIFT or high < -MOST_DRIFT, low >= -MOST_DRIFT and high <= MOST_DRIFT
    figure += f" [{100 * math.expm1(low):+.1f}, {100 * math.expm1(high):+.1f}] from first to last third"
    return Finding(name="does not drift", ok=False if proven else True if none else None, figure=figure, need=f"≤ {100 * MOST_DRIFT:g} %")


def _quiet(rounds: list[Round], cores: int) -> Iterator[Finding]:
    def share(value: Callable[[Sensors], float | None]) -> float | None:
        """Of all cores, while this arm had its turns, in the middle round."""
        shares = []
        for each in rounds:
            seconds = sum(turn.after.perf_ns - turn.before.perf_ns for turn in each.turns) / 1e9
            pairs = [(value(turn.before), value(turn.after)) for turn in each.turns]
            if any(before is None or after is None for before, after in pairs):
                return None
            spent = sum(after - before for before, after in pairs if before is not None and after is not None)
            shares.append(spent / (cores * max(1e-9, seconds)))
        return float(np.median(shares))

    yield _below("other processes are idle", share(lambda at: at.busy_s - at.own_s), MOST_OTHERS, "of all cores")
    yield _below("the hypervisor takes nothing", share(lambda at: at.steal_s), MOST_STEAL, "of all cores")
    yield _below("no quota holds it back", share(lambda at: at.throttled_s), 0.0, "of the time")


def _below(name: str, value: float | None, most: float, unit: str) -> Finding:
    if value is None:
        return Finding(name=name, ok=None, figure="not said here", need=f"≤ {100 * most:g} % {unit}")
    value = max(0.0, value)
    return Finding(name=name, ok=value <= most, figure=f"{100 * value:.1f} % {unit}", need=f"≤ {100 * most:g} % {unit}")


def _power(rounds: list[Round]) -> Iterator[Finding]:
    """Only what the machine says: a server has no battery, and Linux no thermal pressure."""
    starting, ending = [one.turns[0].before for one in rounds], [one.turns[-1].after for one in rounds]
    known = [each.thermal for each in (*starting, *ending) if each.thermal is not None]
    starts = [each.thermal for each in starting if each.thermal is not None]
    yield Finding(
        name="no thermal pressure", ok=(max(starts) == 0 and max(known) <= 1) if known and starts else None,
        figure=f"level {max(known)} at most" if known else "not said here", need="0 at the start, 1 at most",
    )  # fmt: skip
    mains, saving = [each.on_mains for each in starting], [each.low_power for each in starting]
    yield Finding(
        name="on mains, not saving power", ok=None if None in mains and None in saving else False not in mains and True not in saving,
        figure="not said here" if None in mains and None in saving else
        f"{'battery' if False in mains else 'mains'}{', low power mode' if True in saving else ''}", need="mains, low power mode off",
    )  # fmt: skip
