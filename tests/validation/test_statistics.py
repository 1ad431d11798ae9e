"""Exact intervals: against the literature, against closed forms, and by counting every outcome."""

from itertools import product
from math import comb

import pytest

from toolkit.validation.statistics import Paired, exact_interval


def test_clopper_pearson_of_nothing_in_n_is_the_closed_form():
    low, high = exact_interval(0, 10_000)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10_000))


def test_clopper_pearson_as_published():
    """Clopper and Pearson's own kind of table: 8 of 20 (Agresti, Categorical Data Analysis: 0.191, 0.639)."""
    assert exact_interval(8, 20) == pytest.approx((0.1912, 0.6395), abs=1e-4)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 1), (10, 10), (0, 7)])
def test_mcnemar_is_a_coin_tossed_for_each_disagreement(lost, gained):
    n = lost + gained
    tail = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, lost)) / 2**n
    assert Paired(1000, lost, gained).p_value == pytest.approx(tail if n else 1.0)


def test_the_difference_lies_in_its_interval_and_no_disagreement_does_not_mean_no_doubt():
    for lost, gained in product((0, 1, 7), repeat=2):
        paired = Paired(200, lost, gained)
        low, high = paired.interval()
        assert low < paired.difference < high
    low, high = Paired(10_000, 0, 0).interval()
    assert high == -low == pytest.approx(1 - 0.0125 ** (1 / 10_000))


def test_the_interval_covers_at_least_95_percent_of_all_outcomes():
    """Every outcome of 30 images, weighted by its probability: 10 % lost, 20 % gained."""
    images, lose, gain = 30, 0.1, 0.2
    covered = 0.0
    for lost in range(images + 1):
        for gained in range(images + 1 - lost):
            low, high = Paired(images, lost, gained).interval()
            if low <= gain - lose <= high:
                ways = comb(images, lost) * comb(images - lost, gained)
                covered += ways * lose**lost * gain**gained * (1 - lose - gain) ** (images - lost - gained)
    assert 0.95 <= covered < 1


def test_swapping_the_two_mirrors_everything():
    one, other = Paired(50, 4, 1), Paired(50, 1, 4)
    assert one.interval() == pytest.approx(tuple(-each for each in reversed(other.interval())))
    assert (one.p_value, one.difference) == (pytest.approx(other.p_value), -other.difference)
