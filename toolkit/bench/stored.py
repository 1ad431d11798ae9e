"""The earlier measurement of `--against`: what is taken over from it, and when a comparison would mean nothing."""

import hashlib
from pathlib import Path

import numpy as np

from toolkit.bench.result import Arm, BenchResult, Round, Stored, StoredArm
from toolkit.errors import ToolkitError

MACHINE = ("processor", "cores", "memory", "system")


def stored(path: Path, found: BenchResult) -> Stored:
    """`found`: what is in the file."""
    arms = [
        StoredArm(id=arm.id, medians_ns=list(medians_ns(arm, found.scenario).values()), why_not=arm.why_not)
        for arm in found.arms if not arm.control
    ]  # fmt: skip
    return Stored(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), started_utc=found.started_utc, arms=arms)


def medians_ns(arm: Arm, scenario: str) -> dict[int, float]:
    """Round → its median; of a cold round the time to the first result."""
    return {each.number: float(_time_ns(each, scenario)) for each in arm.rounds if each.samples_ns or scenario == "cold"}


def _time_ns(one: Round, scenario: str) -> float:
    if scenario == "cold":
        return (one.compile_ns or 0) + one.load_ns + one.first_call_ns
    return float(np.median(one.samples_ns))


def comparable(now: BenchResult, found: BenchResult) -> None:
    """Raises ToolkitError where a comparison with a stored measurement would mean nothing."""
    for name in MACHINE:
        mine, theirs = now.environment.get(name), found.environment.get(name)
        if mine != theirs:
            raise ToolkitError(f"not comparable: {name} is {mine!r} here and {theirs!r} there. Measure both on one machine")
    if now.model != found.model:
        raise ToolkitError(f"not comparable: the model is {now.model} here and {found.model} there. Give a measurement of the same one")
    mine, theirs = (each.scenario + ("" if each.hz is None else f" at {each.hz:g} Hz") for each in (now, found))
    if mine != theirs:
        raise ToolkitError(f"not comparable: scenario {mine} here, {theirs} there")
    ours, before = [arm.id for arm in now.arms if not arm.control], [arm for arm in found.arms if not arm.control]
    common = [arm for arm in before if arm.id in ours]
    if not common:
        there = ", ".join(arm.id for arm in before) or "none"
        raise ToolkitError(f"not comparable: none of the arms is in both; here {', '.join(ours)}; there {there}")
    if not any(arm.valid for arm in common):
        reasons = "; ".join(f"{arm.id}: {arm.why_not}" for arm in common)
        raise ToolkitError(f"not comparable: the arms that are in both were not valid there: {reasons}. Measure the earlier one again")
