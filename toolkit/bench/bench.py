"""The verb: plan the arms, run their rounds, each arm in a process of its own, and judge what came out."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolkit.bench import loadgen
from toolkit.bench.arms import Plan, of_file, of_model
from toolkit.bench.judge import comparable, judged
from toolkit.bench.plan import Options, round_seconds
from toolkit.bench.result import BenchResult, LoadGenRow, Round
from toolkit.bench.rounds import take
from toolkit.environment import describe
from toolkit.errors import ToolkitError
from toolkit.progress import progress, say
from toolkit.runtimes.files import sha256_of_model
from toolkit.workspace import Workspace, write_text

REPORT = "bench.json"
MAX_REPORT_BYTES = 1 << 30
PILOT = -1
Show = Callable[[BenchResult, str], None]


def bench(
    workspace: Workspace, *, runtimes: Sequence[str] | None = None, artifacts: Sequence[str] | None = None,
    options: Options | None = None, against: Path | None = None, show: Show | None = None,
) -> BenchResult:  # fmt: skip
    """Measures and writes reports/bench.json. Raises RuntimeUnavailable when nothing can be measured here.

    `against`: an earlier bench.json. `show` is given the result so far after every round, and in words how long it will go on.
    """
    options, stored = options or Options(), None if against is None else read(against)
    with tempfile.TemporaryDirectory() as folder:
        plans, skipped, checkpoint = of_model(workspace, runtimes, artifacts, options, Path(folder))
        about = {
            "model": checkpoint.recipe.name,
            "checkpoint_sha256": checkpoint.card.weights_sha256,
            "file_sha256": None,
            "skipped": skipped,
        }
        return _measure(plans, options, about, stored, workspace.reports / REPORT, show)


def bench_file(
    path: Path, *, runtimes: Sequence[str] | None = None, options: Options | None = None, against: Path | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None, out: Path | None = None, show: Show | None = None,
) -> BenchResult:  # fmt: skip
    """A model file from elsewhere, with inputs made up as it declares them; nothing can verify its outputs, and the result says so.

    Writes `out`, or <name>-bench.json into the current folder.
    """
    options, stored = options or Options(), None if against is None else read(against)
    plans, skipped = of_file(path, runtimes, options, shapes or {})
    about = {"model": path.name, "checkpoint_sha256": None, "file_sha256": sha256_of_model(path), "skipped": skipped}
    return _measure(plans, options, about, stored, out or Path(f"{path.stem}-bench.json"), show)


def read(path: Path) -> BenchResult:
    """A stored measurement, its figures made again from its rounds. Raises ToolkitError."""
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ToolkitError(f"{path} has {path.stat().st_size} bytes, more than any measurement of ours")
        return judged(BenchResult.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read: {error.strerror}. Give a bench.json that `toolkit bench` wrote") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ToolkitError(f"{path} is no measurement of ours: {where}: {first['msg']}. Measure again: toolkit bench") from error


def _measure(
    plans: list[Plan], options: Options, about: dict[str, Any], stored: BenchResult | None, out: Path, show: Show | None
) -> BenchResult:  # fmt: skip
    if options.loadgen:
        loadgen.require()
    result = BenchResult(
        **about, scenario=options.scenario, preset=options.preset, hz=options.hz, sustained_s=options.seconds, seed=options.seed, order=[],
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"), estimated_s=None, seconds=0.0, interrupted=False,
        arms=[plan.arm() for plan in plans], environment=describe(), load_average_before=list(os.getloadavg()),
        load_average_after=[],
    )  # fmt: skip
    if stored is not None:
        comparable(result, stored)  # before anything is measured
    try:
        result = _rounds(result, plans, options, stored, show)
        if options.loadgen:
            result = result.model_copy(update={"loadgen": _loadgen(result, plans, options)})
    except _Interrupted as stopped:
        result = stopped.result.model_copy(update={"interrupted": True})
    result = judged(result.model_copy(update={"load_average_after": list(os.getloadavg())}), stored)
    write_text(out, result.model_dump_json(indent=1))
    return result


class _Interrupted(Exception):
    """Ctrl-C, with what there is until then."""

    def __init__(self, result: BenchResult) -> None:
        self.result = result


def _rounds(result: BenchResult, plans: list[Plan], options: Options, stored: BenchResult | None, show: Show | None) -> BenchResult:
    """Pilot rounds, which say how long it will take and find out what does not run at all; then all others."""
    rounds: list[list[Round]] = [[] for _ in plans]
    errors, ran, shuffle = list[str | None](None for _ in plans), list[str](), random.Random(options.seed)
    started = time.monotonic()

    def now() -> BenchResult:
        arms = [
            arm.model_copy(update={"rounds": own, "error": error})
            for arm, own, error in zip(result.arms, rounds, errors, strict=True)
        ]  # fmt: skip
        return result.model_copy(update={"arms": arms, "order": list(ran), "seconds": time.monotonic() - started})

    try:
        expected, errors = _pilot(plans, options)
        total = options.rounds * sum(expected)
        result = result.model_copy(update={"estimated_s": total})
        say(f"{len(plans)} arms × {options.rounds} rounds: about {_time(total)}")
        started = time.monotonic()
        with progress("bench", options.rounds, unit="rounds") as update:
            for number in range(options.rounds):
                sound = [arm for arm, error in enumerate(errors) if error is None]  # a failed arm is not tried again
                for group in [sound] if options.turns > 1 else [[arm] for arm in shuffle.sample(sound, len(sound))]:
                    outcomes, turns = take([plans[arm].job(number, options) for arm in group], shuffle)
                    ran += [f"{number}:{plans[group[place]].id}" for place in turns]
                    for arm, outcome in zip(group, outcomes, strict=True):
                        if isinstance(outcome, Round):
                            rounds[arm].append(outcome)
                        else:
                            errors[arm] = outcome
                if show is None:
                    update(number + 1)
                else:
                    left = (options.rounds - number - 1) * sum(expected[arm] for arm, error in enumerate(errors) if error is None)
                    show(judged(now(), stored), f"round {number + 1} of {options.rounds}, about {_time(left)} left")
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
