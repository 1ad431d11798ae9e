"""The verb: plan the arms, run their rounds, each arm in a process of its own, and judge what came out."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.bench import loadgen
from toolkit.bench.arms import Plan, of_file, of_model
from toolkit.bench.clock import MOST_CALLS, too_many
from toolkit.bench.judge import compared, judged
from toolkit.bench.keep import MARK, REPORT, named, place_for, place_of, read, worth_keeping
from toolkit.bench.plan import Options, round_seconds
from toolkit.bench.result import BenchResult, LoadGenRow, Round
from toolkit.bench.rounds import take
from toolkit.bench.stored import comparable, stored
from toolkit.environment import describe
from toolkit.errors import ToolkitError
from toolkit.progress import say
from toolkit.runtimes.files import Shapes, sha256_of_model
from toolkit.runtimes.strangers import TRUSTED, admitted, needs_trust
from toolkit.workspace import Workspace
from toolkit.writing import check_files, check_named, write_text

PILOT = -1
Show = Callable[[BenchResult, str], None]
Earlier = tuple[Path, BenchResult]


def bench(
    workspace: Workspace, *, runtimes: Sequence[str] | None = None, artifacts: Sequence[str] | None = None,
    options: Options | None = None, against: Path | None = None, show: Show | None = None,
) -> BenchResult:  # fmt: skip
    """Measures and writes reports/bench.json. Raises RuntimeUnavailable when nothing can be measured here.

    `against`: an earlier bench.json. `show` is given the result so far before and after every round, and in words how long it
    will go on.
    """
    options = options or Options()
    earlier = _earlier(against, options)
    with tempfile.TemporaryDirectory() as folder:
        plans, skipped, checkpoint = of_model(workspace, runtimes, artifacts, options, Path(folder))
        sha256 = checkpoint.card.weights_sha256
        about = {"model": checkpoint.recipe.name, "checkpoint_sha256": sha256, "file_sha256": None, "skipped": skipped}
        return _measure(
            plans, options, about, earlier, place_for(workspace.reports, REPORT, options, sha256, against), show, workspace.folder
        )


def bench_file(
    path: Path, *, runtimes: Sequence[str] | None = None, options: Options | None = None, against: Path | None = None,
    shapes: Shapes | None = None, out: Path | None = None, show: Show | None = None,
) -> BenchResult:  # fmt: skip
    """A model file from elsewhere, with inputs made up as it declares them; nothing can verify its outputs, and the result says so.

    Writes `out`, or <name of the file>-bench.json into the current folder. Raises ArtifactError for a file that could run code,
    unless `options.trust`.
    """
    options = options or Options()
    if out is not None:
        check_named(out, "measurement", MARK, [path])
    earlier = _earlier(against, options)
    plans, skipped = of_file(path, runtimes, options, shapes or {})
    if options.trust and needs_trust(path):
        say(TRUSTED.format(name=path.name))
    with tempfile.TemporaryDirectory() as folder:
        place = admitted(path, Path(folder), options.trust)
        sha256 = sha256_of_model(path)
        about = {"model": path.name, "checkpoint_sha256": None, "file_sha256": sha256, "skipped": skipped}
        target = named(out, options, against) if out else place_for(Path(), f"{path.name}-{REPORT}", options, sha256, against)
        return _measure([replace(plan, path=place) for plan in plans], options, about, earlier, target, show)


def _measure(
    plans: list[Plan], options: Options, about: dict[str, Any], earlier: Earlier | None, out: Path, show: Show | None,
    root: Path | None = None,
) -> BenchResult:  # fmt: skip
    if options.loadgen:
        loadgen.require()
    result = BenchResult(
        **about, scenario=options.scenario, preset=options.preset, hz=options.hz, sustained_s=options.seconds, seed=options.seed, order=[],
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"), estimated_s=None, seconds=0.0, interrupted=False,
        arms=[plan.arm() for plan in plans], environment=describe(), load_average_before=list(os.getloadavg()),
        load_average_after=[],
    )  # fmt: skip
    result = _asked(result, options, earlier)
    check_files(root or out.parent, out)
    try:
        result = _rounds(result, plans, options, show)
        if options.loadgen:
            result = result.model_copy(update={"loadgen": _loadgen(result, plans, options)})
    except _Interrupted as stopped:
        result = stopped.result.model_copy(update={"interrupted": True})
    result = judged(result.model_copy(update={"load_average_after": list(os.getloadavg())}))
    if worth_keeping(result, out):
        out = place_of(result, out, earlier[0] if earlier else None)
        write_text(out, result.model_dump_json(indent=1), root)
        say(f"every sample is in {out}")
    else:
        say(f"no round was measured, so nothing was written to {out}")
    return result


def _earlier(against: Path | None, options: Options) -> Earlier | None:
    """Raises ToolkitError where it cannot be read, or would decide nothing."""
    if against is None:
        return None
    if not options.decides:
        raise ToolkitError("--against needs verdicts: leave out --quick, and --scenario sustained")
    return against, read(against)


def _asked(result: BenchResult, options: Options, earlier: Earlier | None) -> BenchResult:
    """With what it is to be compared with. Raises ToolkitError, before anything is measured, where nothing could be decided."""
    if earlier is not None:
        comparable(result, earlier[1])
        result = result.model_copy(update={"against": stored(*earlier)})
    if options.gate and not compared(result):
        raise ToolkitError("--fail-if-slower has nothing to compare: give a second --runtime or --artifact, or --against FILE")
    return result


class _Interrupted(Exception):
    """Ctrl-C, with what there is until then."""

    def __init__(self, result: BenchResult) -> None:
        self.result = result


def _rounds(result: BenchResult, plans: list[Plan], options: Options, show: Show | None) -> BenchResult:
    """Pilot rounds, which say how long it will take and find out what does not run at all; then all others."""
    rounds: list[list[Round]] = [[] for _ in plans]
    errors, ran, begun, shuffle = list[str | None](None for _ in plans), list[str](), list[str](), random.Random(options.seed)
    started = time.monotonic()

    def now() -> BenchResult:
        arms = [
            arm.model_copy(update={"rounds": own, "error": error})
            for arm, own, error in zip(result.arms, rounds, errors, strict=True)
        ]  # fmt: skip
        took = time.monotonic() - started
        return result.model_copy(update={"arms": arms, "order": list(ran), "started": list(begun), "seconds": took})

    def sound() -> list[int]:
        return [arm for arm, error in enumerate(errors) if error is None]  # a failed arm is not tried again

    def tell(done: int) -> None:
        """Between rounds: nothing of ours draws or prints while an arm has its turn."""
        words = f"{done} of {options.rounds} rounds, about {_time((options.rounds - done) * sum(expected[arm] for arm in sound()))} left"
        if show is None:
            say(f"bench: {words}")
        else:
            show(judged(now()), words)

    try:
        expected, errors = _pilot(plans, options)
        total = options.rounds * sum(expected)
        result = result.model_copy(update={"estimated_s": total})
        say(f"{len(sound())} of {len(plans)} arms run, {options.rounds} rounds each: about {_time(total)}")
        started = time.monotonic()
        for number in range(options.rounds):
            if not sound():
                break
            tell(number)
            order = shuffle.sample(sound(), len(sound()))
            for group in [order] if options.turns > 1 else [[arm] for arm in order]:
                begun += [f"{number}:{plans[arm].id}" for arm in group]
                outcomes, turns = take([plans[arm].job(number, options) for arm in group], shuffle)
                ran += [f"{number}:{plans[group[place]].id}" for place in turns]
                for arm, outcome in zip(group, outcomes, strict=True):
                    if isinstance(outcome, Round):
                        rounds[arm].append(outcome)
                    else:
                        errors[arm] = outcome
    except KeyboardInterrupt:
        raise _Interrupted(now()) from None
    return now()


def _pilot(plans: list[Plan], options: Options) -> tuple[list[float], list[str | None]]:
    """(seconds that a round of each arm will take, why an arm does not run at all). A control is as the arm that it repeats."""
    seconds, errors = list[float](), list[str | None]()
    for place, plan in enumerate(plans):
        if plan.control:
            seconds.append(seconds[0])
            errors.append(errors[0])
            continue
        say(f"trying {plan.id} ({place + 1} of {len(plans)})")
        began = time.monotonic()
        (outcome,), _ = take([plan.job(PILOT, options)], random.Random(0))
        took = time.monotonic() - began
        if isinstance(outcome, Round):
            call_s = float(sum(outcome.samples_ns)) / max(1, len(outcome.samples_ns)) / 1e9
            spent = outcome.wall_ns / 1e9 + outcome.warmup_calls * call_s
            seconds.append(round_seconds(options, max(0.0, took - spent), call_s))
            if options.scenario == "sustained" and options.timed_seconds > call_s * MOST_CALLS:
                outcome = too_many(call_s, options.timed_seconds)
        else:
            seconds.append(0.0)
        errors.append(outcome if isinstance(outcome, str) else None)
    return seconds, errors


def _loadgen(result: BenchResult, plans: list[Plan], options: Options) -> list[LoadGenRow]:
    """One run of LoadGen for each arm that was measured, one after the other: its own section, never mixed in."""
    sound = [plan for plan, arm in zip(plans, result.arms, strict=True) if arm.error is None and not plan.control]
    rows = []
    try:
        for place, plan in enumerate(sound):
            say(f"LoadGen: {plan.id} ({place + 1} of {len(sound)})")
            rows.append(loadgen.run(plan.id, plan.job(0, options), options))
    except KeyboardInterrupt:
        raise _Interrupted(result.model_copy(update={"loadgen": rows})) from None
    return rows


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
