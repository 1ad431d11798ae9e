"""From raw rounds to figures, findings and verdicts. Pure: whoever has the samples can make the table again."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from toolkit.bench.plan import Options
from toolkit.bench.result import Arm, BenchResult, Finding, Round, Sensors, Verdict
from toolkit.bench.stats import CONFIDENCE, LEAST_ROUNDS, drift, summarise, t_interval
from toolkit.errors import ToolkitError

SAME = 0.01  # a difference below one percent is none that anybody needs
MOST_DRIFT = 0.02
MOST_OTHERS = 0.10  # of all cores, by other processes
MOST_STEAL = 0.02
MOST_JUMP_NS = 50_000_000
MACHINE = ("processor", "cores", "memory", "system")


def judged(raw: BenchResult, stored: BenchResult | None = None) -> BenchResult:
    """With everything that follows from its rounds. `stored`: an earlier measurement to compare with, instead of the first arm."""
    options = Options(preset=raw.preset, scenario=raw.scenario, hz=raw.hz, seconds=raw.sustained_s, seed=raw.seed)
    cores = int(raw.environment.get("cores", "1"))
    arms = []
    for arm in raw.arms:
        figures = None if arm.error else summarise(arm.rounds, arm.batch, raw.scenario)
        arms.append(arm.model_copy(update={"figures": figures, "findings": list(findings(arm, options, cores))}))
    noise, verdicts = None, list[Verdict]()
    if options.decides:
        control = next((arm for arm in arms if arm.control), None)
        if control is not None and control.valid and arms[0].valid and (own := compare(control, arms[0], 1, raw.scenario)) is not None:
            noise = math.sqrt(own.high / own.low) - 1
            verdicts.append(own)
        pairs = _pairs(arms, stored)
        verdicts += [
            found
            for arm, other in pairs
            if arm.valid and other.valid  # what is invalid is shown, and never ranked
            and (found := compare(arm, other, len(pairs), raw.scenario, paired=stored is None)) is not None
        ]  # fmt: skip
    return raw.model_copy(update={"arms": arms, "noise": noise, "verdicts": verdicts})


def _pairs(arms: list[Arm], stored: BenchResult | None) -> list[tuple[Arm, Arm]]:
    """Arms and what each is compared with: the first of its own batch size, or the same one in a stored measurement."""
    own = [arm for arm in arms if not arm.control]
    if stored is not None:
        before = {arm.id: arm for arm in stored.arms if not arm.control}
        return [(arm, before[arm.id]) for arm in own if arm.id in before]
    first: dict[int, Arm] = {}
    for arm in own:
        first.setdefault(arm.batch, arm)
    return [(arm, first[arm.batch]) for arm in own if arm is not first[arm.batch]]


def comparable(now: BenchResult, stored: BenchResult) -> None:
    """Raises ToolkitError where a comparison with a stored measurement would mean nothing."""
    for name in MACHINE:
        mine, theirs = now.environment.get(name), stored.environment.get(name)
        if mine != theirs:
            raise ToolkitError(f"not comparable: {name} is {mine!r} here and {theirs!r} there. Measure both on one machine")
    if (now.scenario, now.hz) != (stored.scenario, stored.hz):
        raise ToolkitError(f"not comparable: scenario {now.scenario} here, {stored.scenario} there")


def compare(arm: Arm, other: Arm, number: int, scenario: str, paired: bool = True) -> Verdict | None:
    """Latency of `arm` over that of `other`; None where one of them was not measured often enough.

    Paired by rounds, which lie side by side in time; else Welch's interval. `number` of comparisons: Bonferroni.
    """
    mine, theirs = medians(arm, scenario), medians(other, scenario)
    confidence = 1 - (1 - CONFIDENCE) / max(1, number)
    if paired:
        both = sorted(mine.keys() & theirs.keys())
        if arm.error or other.error or len(both) < LEAST_ROUNDS:
            return None
        mean, low, high = t_interval([mine[each] - theirs[each] for each in both], confidence)
    else:
        if arm.error or other.error or min(len(mine), len(theirs)) < LEAST_ROUNDS:
            return None
        mean, low, high = welch(list(mine.values()), list(theirs.values()), confidence)
    return Verdict(
        arm=arm.id, against=other.id if paired else f"{other.id}, stored", ratio=math.exp(mean), low=math.exp(low), high=math.exp(high),
        verdict=_word(low, high),
    )  # fmt: skip


def medians(arm: Arm, scenario: str) -> dict[int, float]:
    """Round → log of its median; of cold rounds of the time to the first result."""
    if scenario == "cold":
        return {each.number: math.log((each.compile_ns or 0) + each.load_ns + each.first_call_ns) for each in arm.rounds}
    return {each.number: float(np.log(np.median(each.samples_ns))) for each in arm.rounds if each.samples_ns}


def welch(mine: Sequence[float], theirs: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """(difference of the means, low, high) of two independent samples of unequal variance."""
    from scipy.stats import ttest_ind

    found = ttest_ind(mine, theirs, equal_var=False)
    low, high = found.confidence_interval(confidence)
    return float(np.mean(mine) - np.mean(theirs)), float(low), float(high)


def _word(low: float, high: float) -> Literal["faster", "slower", "same", "inconclusive"]:
    same = math.log1p(SAME)
    if high < -same:
        return "faster"
    if low > same:
        return "slower"
    return "same" if -same <= low and high <= same else "inconclusive"


def findings(arm: Arm, options: Options, cores: int) -> Iterator[Finding]:
    """The conditions of a valid measurement, one by one."""
    yield Finding(name="every round ended well", ok=arm.error is None, figure=arm.error or f"{len(arm.rounds)} rounds", need="all")
    rounds = arm.rounds
    if not rounds:
        return
    yield _verified(rounds)
    yield _placed(rounds)
    yield _clocks(rounds)
    if options.scenario == "cold":
        return
    needed = 0.0 if options.hz is not None else options.timed_seconds  # the last of the paced calls is begun before the end
    calls, seconds = min(len(each.samples_ns) for each in rounds), min(each.wall_ns for each in rounds) / 1e9
    yield Finding(
        name="calls and time", ok=calls >= options.timed_calls and seconds >= needed,
        figure=f"{calls} calls, {seconds:.2f} s in the shortest round", need=f"{options.timed_calls} calls, {needed:g} s",
    )  # fmt: skip
    if options.scenario != "sustained":
        yield _steady(rounds)
    yield from _quiet(rounds, cores)
    yield from _power(rounds)


def _verified(rounds: list[Round]) -> Finding:
    need = "before, during and after timing, within the gate"
    if not any(each.verified for each in rounds):
        return Finding(name="outputs are the golden ones", ok=None, figure="not verified: there is no reference for this file", need=need)
    counts = {when: sum(each.verified.get(when, 0) for each in rounds) for when in ("before", "during", "after")}
    largest, gate = max(each.max_abs_logit or 0.0 for each in rounds), rounds[0].allowed_abs_logit
    figure = f"{sum(counts.values())} outputs, max |Δ logit| {largest:.2g}"
    if gate is None:
        return Finding(name="outputs are the golden ones", ok=None, figure=f"{figure}, not judged by its logits", need=need)
    return Finding(name="outputs are the golden ones", ok=largest <= gate, figure=figure, need=f"≤ {gate:.2g}, {need}")


def _placed(rounds: list[Round]) -> Finding:
    """Requested and planned: a provider that hands a part of the graph to another one is another measurement."""
    place = rounds[0].placement
    total = sum(place.planned.values())
    figure = ", ".join(f"{count} of {total} ops on {name}" for name, count in place.planned.items()) or "not said"
    ok = None if total == 0 or place.requested.startswith("requested") else set(place.planned) == {place.requested}
    return Finding(name="runs where it was asked to", ok=ok, figure=figure, need=place.requested)


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
    proven = low > MOST_DRIFT or high < -MOST_DRIFT
    figure += f" [{100 * math.expm1(low):+.1f}, {100 * math.expm1(high):+.1f}] from first to last third"
    return Finding(name="does not drift", ok=not proven, figure=figure, need=f"not proven beyond {100 * MOST_DRIFT:g} %")


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
