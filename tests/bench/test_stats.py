"""Figures from samples: intervals over rounds, quantiles only where there are calls enough for them."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.bench.conftest import round_of
from toolkit.bench.stats import (
    CALLS_FOR_P90,
    CALLS_FOR_P99,
    drift,
    early_stopping,
    effective,
    median_interval,
    modes,
    outliers,
    summarise,
)


def test_the_interval_is_students_over_the_logs_of_the_rounds():
    medians = [1.0, 1.1, 0.95, 1.3]
    expected = scipy_stats.ttest_1samp(np.log(medians), 0).confidence_interval(0.95)
    centre, low, high = median_interval(medians)
    assert centre == pytest.approx(scipy_stats.gmean(medians))
    assert (low, high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_below_three_rounds_there_is_no_interval():
    centre, low, high = median_interval([2.0, 8.0])
    assert centre == pytest.approx(4.0)
    assert math.isnan(low)
    assert math.isnan(high)


def correlated(random, calls: int, correlation: float) -> np.ndarray:
    """Calls of an AR(1) process of mean 0 and standard deviation 0.05."""
    shocks, values = random.normal(0, 0.05 * math.sqrt(1 - correlation**2), calls), np.empty(calls)
    values[0] = random.normal(0, 0.05)
    for place in range(1, calls):
        values[place] = correlation * values[place - 1] + shocks[place]
    return values


@pytest.mark.parametrize(("spread", "correlation"), [(0.01, 0.0), (0.02, 0.9), (0.0, 0.9)])
def test_the_interval_covers_the_truth_as_often_as_it_says(spread, correlation):
    """400 experiments of five processes; an interval over pooled calls covers as little as a tenth of the time."""
    random, covered = np.random.default_rng(1), 0
    for _ in range(400):
        medians = [float(np.median(np.exp(shift + correlated(random, 200, correlation)))) for shift in spread * random.standard_normal(5)]
        _, low, high = median_interval(medians)
        covered += low <= 1.0 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_the_calls_a_quantile_needs_follow_from_the_distribution_free_bound():
    for quantile, calls in ((0.90, CALLS_FOR_P90), (0.99, CALLS_FOR_P99)):
        assert 1 - quantile**calls >= 0.99 > 1 - quantile ** (calls - 1)


@pytest.mark.parametrize(("calls", "quantile", "place"), [
    (63, 0.90, None), (64, 0.90, 64), (700, 0.90, 650), (1000, 0.90, 923), (661, 0.99, None), (662, 0.99, 662),
])  # fmt: skip
def test_early_stopping_is_loadgens(calls, quantile, place):
    """Places of the order statistic: of LoadGen 6.0.17's own runs (of 700 calls it discards the 50 slowest), and from its definition."""
    samples = np.random.default_rng(0).permutation(np.arange(1.0, calls + 1))
    assert early_stopping(samples, quantile) == place


def test_figures_equal_numpy_on_known_samples():
    shuffled = np.random.default_rng(0).permutation(300) * 1000  # not in order: calls that follow one another are worth fewer
    first, second = (1_000_000 + shuffled).tolist(), (2_000_000 + shuffled).tolist()
    found = summarise([round_of(first), round_of(second, load_ns=8_000_000, peak_memory_bytes=300)], batch=4)
    both = np.array(first + second) / 1e6
    assert found.p50_ms.value == pytest.approx(math.sqrt(np.median(first) * np.median(second)) / 1e6)
    assert found.p90_ms == pytest.approx(np.quantile(both, 0.9))
    assert found.p99_ms == pytest.approx(np.quantile(both, 0.99))
    assert found.images_per_s == pytest.approx(4 * 600 / (both.sum() / 1e3))
    assert (found.load_ms.value, found.first_call_ms.value, found.peak_memory_bytes) == (pytest.approx(4.0), pytest.approx(3.0), 300)
    assert found.between_rounds == pytest.approx(np.log([np.median(first), np.median(second)]).std(ddof=1))
    assert found.calls == 600


def test_throughput_is_images_over_wall_time_and_not_over_the_sum_of_calls():
    rounds = [round_of([10**6] * 10, wall_ns=2 * 10**9), round_of([10**6] * 30, wall_ns=6 * 10**9)]
    assert summarise(rounds, batch=16).images_per_s == pytest.approx(16 * 40 / 8)


@pytest.mark.parametrize(("calls", "p90", "p99"), [(43, False, False), (44, True, False), (458, True, False), (459, True, True)])
def test_a_quantile_is_withheld_below_its_calls(calls, p90, p99):
    found = summarise([round_of([1000] * calls)], batch=1)
    assert (found.p90_ms is not None, found.p99_ms is not None) == (p90, p99)


def test_without_rounds_there_are_no_figures_and_cold_ones_have_only_their_starts():
    assert summarise([], batch=1) is None
    cold = summarise([round_of([], compile_ns=7_000_000)] * 3, batch=1, scenario="cold")
    assert (cold.calls, cold.p50_ms, cold.images_per_s) == (0, None, None)
    assert (cold.compile_ms.value, cold.load_ms.value) == (pytest.approx(7.0), pytest.approx(2.0))


def test_two_modes_are_found_with_their_centres_and_shares_and_one_is_none():
    random = np.random.default_rng(0)
    fast, slow = 0.52 * random.lognormal(0, 0.01, 310), 1.18 * random.lognormal(0, 0.01, 690)
    (low, few), (high, many) = modes(random.permutation(np.concatenate([fast, slow])))
    assert (low, few) == (pytest.approx(0.52, rel=0.01), 0.31)
    assert (high, many) == (pytest.approx(1.18, rel=0.01), 0.69)
    assert modes(random.lognormal(0, 0.05, 1000)) == []
    assert modes(np.array([1.0] * 98 + [2.0, 3.0])) == []  # two calls of a hundred are outliers


def test_stragglers_do_not_hide_two_modes_and_few_calls_of_one_are_not_split():
    random = np.random.default_rng(1)
    for calls in (250, 2_000, 20_000):
        fast, slow = 0.52 * random.lognormal(0, 0.05, int(0.31 * calls)), 1.18 * random.lognormal(0, 0.05, int(0.69 * calls))
        (low, few), (high, many) = modes(np.concatenate([fast, slow, random.uniform(0.55, 1.1, int(0.002 * calls))]))
        assert (low, high) == (pytest.approx(0.52, rel=0.02), pytest.approx(1.18, rel=0.02))
        assert (few, many) == (pytest.approx(0.31, abs=0.01), pytest.approx(0.69, abs=0.01))
    for calls in (40, 60, 1000):
        assert not any(modes(random.lognormal(0, 0.3, calls)) for _ in range(100))


def test_a_quantile_needs_calls_that_are_independent():
    samples = (1e6 * np.exp(correlated(np.random.default_rng(0), 2000, 0.9))).astype(int).tolist()  # worth about 105
    found = summarise([round_of(samples)], batch=1)
    assert (found.p90_ms is not None, found.p99_ms) == (True, None)


def test_without_a_batch_axis_there_are_calls_and_no_images():
    found = summarise([round_of([10**6] * 10, wall_ns=2 * 10**9)], batch=None)
    assert (found.images_per_s, found.calls_per_s) == (None, pytest.approx(5))


def test_outliers_are_tukeys_severe_ones():
    assert outliers(np.array([*np.arange(100.0), 1000.0, -500.0])) == 2
    assert outliers(np.arange(100.0)) == 0


def test_drift_is_the_last_third_over_the_first():
    assert drift(np.array([1.0, 1.0, 5.0, 5.0, 1.1, 1.1])) == pytest.approx(math.log(1.1))
    rounds = [round_of([100, 100, 100, 100, 110, 110], number) for number in range(3)]
    assert summarise(rounds, 1).drift.value == pytest.approx(0.1)


def test_calls_that_follow_one_another_are_worth_fewer():
    """n (1 - r) / (1 + r) for an AR(1) process: 1000 calls of correlation 0.9 are worth 53."""
    random = np.random.default_rng(0)
    assert effective(np.exp(correlated(random, 20_000, 0.9))) == pytest.approx(20_000 / 19, rel=0.1)
    assert effective(np.exp(correlated(random, 20_000, 0.0))) > 18_000
    assert effective(np.array([5.0] * 10)) == 10


def test_a_long_round_is_cut_into_windows_of_ten_seconds():
    found = summarise([round_of([10**9] * 10 + [2 * 10**9] * 10)], batch=1, scenario="sustained")
    assert found.windows_ms == pytest.approx([1000, 2000, 2000], rel=0.01)


def test_the_runtimes_own_clock_and_the_time_once_begun_are_figures_of_their_own():
    found = summarise([round_of([100, 200, 300], framework_ns=[50_000_000] * 3, service_ns=[40_000_000] * 3)], batch=1)
    assert (found.framework_p50_ms, found.service_p50_ms) == (pytest.approx(50.0), pytest.approx(40.0))
    assert found.p50_ms.value == pytest.approx(200e-6)
