"""Rounds, arms and results as a worker and the verb make them, from samples that a test knows."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from toolkit.bench.result import Arm, BenchResult, Placement, Round, Sensors

SENSORS: dict[str, Any] = {
    "perf_ns": 0, "wall_ns": 0, "busy_s": 0.0, "own_s": 0.0, "switches": 0, "load": 0.0, "thermal": None, "on_mains": None,
    "low_power": None, "steal_s": None, "throttled_s": None,
}  # fmt: skip


def sensors(**fields: Any) -> Sensors:
    return Sensors(**{**SENSORS, **fields})


def round_of(samples_ns: Sequence[int], number: int = 0, **fields: Any) -> Round:
    """On a quiet machine: nobody else computes, and both clocks agree."""
    span = max(1, sum(samples_ns))
    values = {
        "number": number, "compile_ns": None, "load_ns": 2_000_000, "first_call_ns": 3_000_000, "warmup_calls": 5,
        "samples_ns": list(samples_ns), "service_ns": [], "wall_ns": sum(samples_ns), "framework_ns": [], "peak_memory_bytes": 100,
        "verified": {"before": 8, "during": 3, "after": 1}, "max_abs_logit": 1e-6, "allowed_abs_logit": 1e-3,
        "placement": Placement(requested="cpu", planned={}), "before": sensors(),
        "after": sensors(perf_ns=span, wall_ns=span, busy_s=span / 1e9, own_s=span / 1e9),
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
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], list[Any]]:
    """Puts a function in the place of worker processes; the list fills with the jobs."""
    import sys

    def replace(answer: Callable[[Any], Any]) -> list[Any]:
        jobs: list[Any] = []

        def run(job: Any, limit_s: float = 0) -> Any:
            jobs.append(job)
            return answer(job)

        monkeypatch.setattr(sys.modules["toolkit.bench.bench"], "run_round", run)
        return jobs

    return replace
