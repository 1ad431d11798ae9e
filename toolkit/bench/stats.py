"""From samples to figures. The interval is over rounds (processes): calls within a process are not independent."""

import math
from collections.abc import Sequence

import numpy as np

from toolkit.bench.result import Round

# A quantile p needs enough calls for a bound: the smallest n with 1 − p^n ≥ 0.99 (one-sided, distribution-free).
CALLS_FOR_P90, CALLS_FOR_P99 = 44, 459
FIGURES = ("p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "images_per_s", "load_ms", "first_call_ms", "peak_memory_bytes")


def median_interval(medians: Sequence[float]) -> tuple[float, float, float]:
    """(centre, low, high): geometric mean of the rounds' medians and its 95 % t interval. NaN bounds below three rounds."""
    from scipy.stats import t

    logs = np.log(np.asarray(medians, dtype=float))
    centre = float(np.exp(logs.mean()))
    if len(logs) < 3:
        return centre, math.nan, math.nan
    half = float(t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return centre, centre * math.exp(-half), centre * math.exp(half)


def summarise(rounds: Sequence[Round], batch: int) -> dict[str, float | int | None]:
    """The figures of an arm, in milliseconds, images a second and bytes."""
    if not rounds:
        return dict.fromkeys(FIGURES)
    samples = np.concatenate([each.samples_ns for each in rounds]) / 1e6
    centre, low, high = median_interval([float(np.median(each.samples_ns)) / 1e6 for each in rounds])
    calls = len(samples)
    return {
        "p50_ms": centre,
        "p50_low_ms": None if math.isnan(low) else low,
        "p50_high_ms": None if math.isnan(high) else high,
        "p90_ms": float(np.quantile(samples, 0.90)) if calls >= CALLS_FOR_P90 else None,
        "p99_ms": float(np.quantile(samples, 0.99)) if calls >= CALLS_FOR_P99 else None,
        "images_per_s": batch * calls / (sum(each.wall_ns for each in rounds) / 1e9),
        "load_ms": float(np.median([each.load_ns for each in rounds])) / 1e6,
        "first_call_ms": float(np.median([each.first_call_ns for each in rounds])) / 1e6,
        "peak_memory_bytes": max(each.peak_memory_bytes for each in rounds),
    }
