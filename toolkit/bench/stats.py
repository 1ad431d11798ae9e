"""From samples to figures. The interval is over rounds (processes): calls within a process are not independent."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.bench.plan import Scenario
from toolkit.bench.result import Figures, Interval, Round

Array = np.ndarray[Any, Any]
# A quantile p needs enough calls for a bound: the smallest n with 1 − p^n ≥ 0.99 (one-sided, distribution-free).
# Independent ones: neighbours that resemble each other bound nothing twice.
CALLS_FOR_P90, CALLS_FOR_P99 = 44, 459
LEAST_ROUNDS = 3
CONFIDENCE = 0.95
LEAST_SHARE = 0.05  # of the calls make a mode
BIN = math.log(1.15) / 2  # of the histogram of logs: modes closer than 15 % are one
VALLEY = 0.5  # of the lower of two peaks: what a valley between them must prove to lie below
SEVERE = 3.0  # interquartile ranges (Tukey's outer fence)
WINDOW_NS = 10**10


def t_interval(values: Sequence[float] | Array, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(mean, low, high) of independent values; NaN bounds below three."""
    from scipy.stats import t

    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < LEAST_ROUNDS:
        return mean, math.nan, math.nan
    half = float(t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def median_interval(medians: Sequence[float]) -> tuple[float, float, float]:
    """(centre, low, high): geometric mean of the rounds' medians and its 95 % t interval. NaN bounds below three rounds."""
    centre, low, high = (math.exp(each) for each in t_interval(np.log(np.asarray(medians, dtype=float))))
    return centre, low, high


def early_stopping(samples: Array, quantile: float, confidence: float = 0.99) -> float | None:
    """MLPerf LoadGen's estimate of a latency quantile (inference_policies, "early stopping").

    The order statistic that is above the true quantile with that confidence; None below 64 calls for p90, 662 for p99.
    """
    from scipy.stats import binom

    calls = len(samples)
    over = int(binom.ppf(1 - confidence, calls, 1 - quantile))  # the largest number still too unlikely lies at, or just below
    while over >= 0 and binom.cdf(over, calls, 1 - quantile) > 1 - confidence:
        over -= 1
    return float(np.partition(samples, calls - over)[calls - over]) if over >= 1 else None


def modes(samples: Array) -> list[tuple[float, float]]:
    """(centre, share) of groups of calls with a valley between them, each at least 5 % of all; empty where there is one.

    A valley is where the histogram of the logs is proven to be below half the lower of the peaks on both sides: the count that
    chance may hide there is three standard deviations above what was seen, so few calls prove nothing, and stragglers fill nothing.
    """
    logs = np.sort(np.log(samples))
    counts = np.bincount(((logs - logs[0]) / BIN).astype(int))
    if len(counts) < 3:
        return []
    rising, falling = np.maximum.accumulate(counts), np.maximum.accumulate(counts[::-1])[::-1]
    peaks = np.minimum(np.concatenate([[0], rising[:-1]]), np.concatenate([falling[1:], [0]]))
    low = counts + 3 * np.sqrt(counts + 1) + 3 < VALLEY * peaks
    runs = np.split(np.flatnonzero(low), np.flatnonzero(np.diff(np.flatnonzero(low)) > 1) + 1)
    borders = [logs[0] + BIN * (run[0] + run[-1] + 1) / 2 for run in runs if len(run)]
    groups = np.split(np.exp(logs), np.searchsorted(logs, borders))
    large = [(float(np.median(group)), len(group) / len(logs)) for group in groups if len(group) >= LEAST_SHARE * len(logs)]
    return large if len(large) > 1 else []


def outliers(samples: Array) -> int:
    low, high = np.quantile(samples, [0.25, 0.75])
    reach = SEVERE * (high - low)
    return int(((samples < low - reach) | (samples > high + reach)).sum())


def drift(samples: Array) -> float:
    """Log of the median of the last third over that of the first."""
    third = max(1, len(samples) // 3)
    return float(np.log(np.median(samples[-third:]) / np.median(samples[:third])))


def effective(samples: Array) -> float:
    """How many independent calls they are worth: n (1 − ρ) / (1 + ρ), with ρ the correlation of neighbours, as of an AR(1)."""
    if len(samples) < 3 or np.ptp(samples) == 0:
        return float(len(samples))
    logs = np.log(samples)
    centred = logs - logs.mean()
    correlation = float(np.clip((centred[1:] * centred[:-1]).sum() / (centred**2).sum(), 0.0, 0.999))
    return len(samples) * (1 - correlation) / (1 + correlation)


def summarise(rounds: Sequence[Round], batch: int | None, scenario: Scenario = "stream") -> Figures | None:
    """The figures of an arm; None without rounds. `batch` None: its inputs have no batch axis."""
    if not rounds:
        return None
    compiles = [each.compile_ns for each in rounds if each.compile_ns is not None]
    cold: dict[str, Any] = {
        "compile_ms": _interval(compiles) if compiles else None, "load_ms": _interval([each.load_ns for each in rounds]),
        "first_call_ms": _interval([each.first_call_ns for each in rounds]),
        "peak_memory_bytes": max(each.peak_memory_bytes for each in rounds),
    }  # fmt: skip
    each_round = [np.maximum(np.asarray(each.samples_ns, dtype=float), 1.0) for each in rounds if each.samples_ns]
    if not each_round:
        nothing = dict.fromkeys(Figures.model_fields)
        return Figures(**{**nothing, **cold, "calls": 0, "modes": [], "outliers": 0, "windows_ms": []})
    samples, medians = np.concatenate(each_round) / 1e6, [float(np.median(each)) for each in each_round]
    calls, wall_s = len(samples), sum(each.wall_ns for each in rounds) / 1e9
    paces = [np.median(each.service_ns) / 1e6 for each in rounds if each.service_ns]
    own = [np.median(each.framework_ns) / 1e6 for each in rounds if each.framework_ns]
    worth = sum(effective(each) for each in each_round)
    mean, low, high = t_interval([drift(each) for each in each_round])
    return Figures(
        calls=calls, p50_ms=_interval(medians),
        p90_ms=float(np.quantile(samples, 0.90)) if worth >= CALLS_FOR_P90 else None,
        p99_ms=float(np.quantile(samples, 0.99)) if worth >= CALLS_FOR_P99 else None,
        early_stopping_p90_ms=early_stopping(samples, 0.90), early_stopping_p99_ms=early_stopping(samples, 0.99),
        images_per_s=None if batch is None else batch * calls / wall_s, calls_per_s=calls / wall_s,
        service_p50_ms=_centre(paces), framework_p50_ms=_centre(own),
        between_rounds=float(np.log(medians).std(ddof=1)) if len(medians) > 1 else None,
        within_rounds=float(np.median([np.log(each).std() for each in each_round])),
        drift=Interval(value=math.expm1(mean), low=_known(math.expm1(low)), high=_known(math.expm1(high))),
        modes=modes(samples), outliers=outliers(samples), effective_calls=worth,
        windows_ms=_windows(rounds[0]) if scenario == "sustained" else [], **cold,
    )  # fmt: skip


def _interval(values_ns: Sequence[float]) -> Interval:
    """Milliseconds."""
    centre, low, high = median_interval([max(1.0, each) / 1e6 for each in values_ns])
    return Interval(value=centre, low=_known(low), high=_known(high))


def _known(bound: float) -> float | None:
    return None if math.isnan(bound) else bound


def _centre(values: Sequence[Any]) -> float | None:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6))))) if values else None


def _windows(one: Round) -> list[float]:
    """p50 in ms of each ten seconds of a round; calls are back to back, so their sum is the time."""
    samples = np.asarray(one.samples_ns, dtype=float)
    place = ((np.cumsum(samples) - samples) // WINDOW_NS).astype(int)  # by when a call was begun
    return [float(np.median(samples[place == each])) / 1e6 for each in np.unique(place)]
