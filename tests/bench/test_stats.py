"""Figures from samples: intervals over rounds, quantiles only where there are calls enough for them."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from toolkit.bench.plan import Options, order
from toolkit.bench.result import Round
from toolkit.bench.stats import CALLS_FOR_P90, CALLS_FOR_P99, median_interval, summarise
from toolkit.errors import ToolkitError


def round_of(samples_ns: list[int], **fields: object) -> Round:
    values = {
        "load_ns": 2_000_000, "first_call_ns": 3_000_000, "warmup_calls": 5, "samples_ns": samples_ns, "wall_ns": sum(samples_ns),
        "framework_ns": [], "peak_memory_bytes": 100, "max_abs_logit": None, "placement": [],
    }  # fmt: skip
    return Round.model_validate({**values, **fields})


def test_the_interval_is_students_over_the_logs_of_the_rounds() -> None:
    medians = [1.0, 1.1, 0.95, 1.3]
    expected = scipy_stats.ttest_1samp(np.log(medians), 0).confidence_interval(0.95)
    centre, low, high = median_interval(medians)
    assert centre == pytest.approx(scipy_stats.gmean(medians))
    assert (low, high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_below_three_rounds_there_is_no_interval() -> None:
    centre, low, high = median_interval([2.0, 8.0])
    assert centre == pytest.approx(4.0)
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_interval_covers_the_truth_as_often_as_it_says_when_processes_differ() -> None:
    """300 experiments of five processes that differ by 1 %: an interval over pooled calls would cover 13 %."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        medians = [float(np.median(math.exp(shift) * random.lognormal(0, 0.05, 200))) for shift in random.normal(0, 0.01, 5)]
        _, low, high = median_interval(medians)
        covered += low <= 1.0 <= high
    assert 270 <= covered <= 297


def test_the_calls_a_quantile_needs_follow_from_the_distribution_free_bound() -> None:
    for quantile, calls in ((0.90, CALLS_FOR_P90), (0.99, CALLS_FOR_P99)):
        assert 1 - quantile**calls >= 0.99 > 1 - quantile ** (calls - 1)


def test_figures_equal_numpy_on_known_samples() -> None:
    first, second = list(range(1_000_000, 1_300_000, 1000)), list(range(2_000_000, 2_300_000, 1000))
    found = summarise([round_of(first), round_of(second, load_ns=4_000_000, peak_memory_bytes=300)], batch=4)
    both = np.array(first + second) / 1e6
    assert found["p50_ms"] == pytest.approx(math.sqrt(np.median(first) * np.median(second)) / 1e6)
    assert found["p90_ms"] == pytest.approx(np.quantile(both, 0.9))
    assert found["p99_ms"] == pytest.approx(np.quantile(both, 0.99))
    assert found["images_per_s"] == pytest.approx(4 * 600 / (both.sum() / 1e3))
    assert (found["load_ms"], found["first_call_ms"], found["peak_memory_bytes"]) == (3.0, 3.0, 300)


def test_throughput_is_images_over_wall_time_and_not_over_the_sum_of_calls() -> None:
    rounds = [round_of([10**6] * 10, wall_ns=2 * 10**9), round_of([10**6] * 30, wall_ns=6 * 10**9)]
    assert summarise(rounds, batch=16)["images_per_s"] == pytest.approx(16 * 40 / 8)


@pytest.mark.parametrize(("calls", "p90", "p99"), [(43, False, False), (44, True, False), (458, True, False), (459, True, True)])
def test_a_quantile_is_withheld_below_its_calls(calls: int, p90: bool, p99: bool) -> None:
    found = summarise([round_of([1000] * calls)], batch=1)
    assert (found["p90_ms"] is not None, found["p99_ms"] is not None) == (p90, p99)


def test_without_rounds_there_are_no_figures() -> None:
    assert set(summarise([], batch=1).values()) == {None}
    assert summarise([], batch=1).keys() == summarise([round_of([1])], batch=1).keys()


def test_each_round_has_every_arm_once_in_a_seeded_order() -> None:
    turns = order(arms=5, rounds=8, seed=3)
    for number in range(8):
        assert sorted(arm for turn, arm in turns if turn == number) == [0, 1, 2, 3, 4]
    assert [turn for turn, _ in turns] == sorted(turn for turn, _ in turns)
    assert turns == order(5, 8, 3) != order(5, 8, 4)
    assert len({tuple(arm for turn, arm in turns if turn == number) for number in range(8)}) > 1


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ToolkitError, match=r"'fast'.*quick, default, publish"):
        Options(preset="fast")  # type: ignore[arg-type]
