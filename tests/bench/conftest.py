"""Rounds, arms and results as a worker and the verb make them, from samples that a test knows."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from toolkit.bench.result import Arm, BenchResult, Placement, Round, Sensors, Turn
from toolkit.workspace import Workspace

SENSORS: dict[str, Any] = {
    "perf_ns": 0, "wall_ns": 0, "busy_s": 0.0, "own_s": 0.0, "switches": 0, "load": 0.0, "thermal": None, "on_mains": None,
    "low_power": None, "steal_s": None, "throttled_s": None,
}  # fmt: skip


def sensors(**fields: Any) -> Sensors:
    return Sensors(**{**SENSORS, **fields})


def turn_of(calls: int, span_ns: int, before: Sensors | None = None, **after: Any) -> Turn:
    """On a quiet machine, unless `after` says otherwise: nobody else computes, and both clocks agree."""
    quiet = {"perf_ns": span_ns, "wall_ns": span_ns, "busy_s": span_ns / 1e9, "own_s": span_ns / 1e9}
    return Turn(calls=calls, before=before or sensors(), after=sensors(**{**quiet, **after}))


def round_of(samples_ns: Sequence[int], number: int = 0, **fields: Any) -> Round:
    """On a quiet machine: nobody else computes, and both clocks agree."""
    span = max(1, sum(samples_ns))
    values = {
        "number": number, "compile_ns": None, "load_ns": 2_000_000, "first_call_ns": 3_000_000, "warmup_calls": 5,
        "samples_ns": list(samples_ns), "service_ns": [], "wall_ns": sum(samples_ns), "framework_ns": [], "peak_memory_bytes": 100,
        "verified": {"before": 8, "during": 3, "after": 1}, "max_abs_logit": 1e-6, "allowed_abs_logit": 1e-3,
        "placement": Placement(requested="cpu", planned={}), "turns": [turn_of(len(samples_ns), span)],
    }  # fmt: skip
    return Round.model_validate({**values, **fields})


def arm_of(medians_ns: Sequence[float], runtime: str = "torch-cpu", calls: int = 250, **fields: Any) -> Arm:
    """A round for each median; each of so many calls, together the 3 s that the default preset asks for."""
    rounds = [round_of([round(median)] * calls, number, wall_ns=3 * 10**9) for number, median in enumerate(medians_ns)]
    values = {"id": f"m:{runtime}", "artifact": "m", "runtime": runtime, "precision": "fp32", "version": "1", "threads": None, "batch": 1,
              "control": False, "rounds": rounds, "error": None}  # fmt: skip
    return Arm(**{**values, **fields})


def result_of(arms: Sequence[Arm], **fields: Any) -> BenchResult:
    values: dict[str, Any] = {
        "model": "tiny", "checkpoint_sha256": "0" * 64, "file_sha256": None,
        "scenario": "stream", "preset": "default", "hz": None, "sustained_s": None,
        "seed": 0, "order": [], "started_utc": "2026-01-02T03:04:05+00:00", "estimated_s": 10.0, "seconds": 11.0, "interrupted": False,
        "arms": list(arms), "skipped": [], "environment": {"cores": "2", "processor": "P", "memory": "M", "system": "S"},
        "load_average_before": [0.1, 0.1, 0.1], "load_average_after": [1.0, 1.0, 1.0],
    }  # fmt: skip
    return BenchResult(**{**values, **fields})


@pytest.fixture
def exported_copy(exported_copy: Workspace) -> Workspace:
    """Without what other tests have measured of it: a lesser preset would not replace that."""
    shutil.rmtree(exported_copy.reports, ignore_errors=True)
    return exported_copy


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], list[Any]]:
    """Puts a function in the place of worker processes; the list fills with the jobs."""
    import sys

    def replace(answer: Callable[[Any], Any]) -> list[Any]:
        asked: list[Any] = []

        def take(jobs: Any, shuffle: Any, limit_s: float = 0) -> Any:
            asked.extend(jobs)
            return [answer(job) for job in jobs], [
                place for _ in range(jobs[0].turns) for place in shuffle.sample(range(len(jobs)), len(jobs))
            ]

        monkeypatch.setattr(sys.modules["toolkit.bench.bench"], "take", take)
        return asked

    return replace
