"""Which comparisons of coremltools' own tests count, and what a float16 case may be off."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.conformance.watch import WATCH, Case, Predicted, marked, spied


@pytest.fixture(autouse=True)
def case() -> Case:
    WATCH.case = Case()
    return WATCH.case


ONE = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "compare",
    [
        lambda p: np.testing.assert_allclose(p, ONE),
        lambda p: np.testing.assert_array_equal(p, ONE),
        lambda p: np.testing.assert_equal(p, ONE),
        lambda p: np.testing.assert_almost_equal(ONE, p),
        lambda p: np.testing.assert_array_less(p, y=2 * ONE),
        lambda p: np.testing.assert_allclose(p.reshape(1, 3)[:, ::-1].copy(), ONE[None]),
        lambda p: np.allclose(p, ONE),
        lambda p: np.array_equal(ONE, p),
        lambda p: (p == ONE).all(),
        lambda p: np.abs(p - ONE).max() < 1e-3,
        lambda p: np.mean((p - ONE) ** 2) <= 1e-3,
        lambda p: p[0] == 1,
        lambda p: 20 * np.log10(np.linalg.norm(p)) > 3,
        lambda p: np.testing.assert_allclose(np.concatenate([p, p]).sum(keepdims=True), [6]),
    ],
)
def test_whatever_is_computed_from_a_prediction_counts_once_when_compared(compare: Any, case: Case):
    with spied():
        assert compare(marked({"y": ONE})["y"]) in (None, True)
    assert case.comparisons == 1


@pytest.mark.parametrize(
    "compare",
    [
        lambda p: np.testing.assert_allclose(ONE, ONE),
        lambda p: np.testing.assert_equal(p.shape, (3,)),
        lambda p: p + ONE,
        lambda p: len(p) == 3,
    ],
)
def test_what_compares_no_prediction_does_not_count(compare: Any, case: Case):
    with spied():
        compare(marked(ONE))
    assert case.comparisons == 0


def test_a_marked_array_is_an_array_to_everybody():
    values = marked(np.arange(4, dtype=np.int32))
    assert isinstance(values, np.ndarray)
    assert torch.from_numpy(values).tolist() == [0, 1, 2, 3]
    assert np.asarray(values).__class__ is np.ndarray
    assert int(values[2]) == 2
    assert f"{values.max():.1f}" == "3.0"
    values[1] = 7
    values += 1
    assert values.tolist() == [1, 8, 3, 4]
    assert isinstance(values, Predicted)


def test_a_failed_comparison_still_fails():
    with spied(), pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(marked(ONE), 1.01 * ONE)


@pytest.mark.parametrize(("precision", "fails"), [("fp16", False), ("fp32", True)])
def test_a_float32_tolerance_on_a_float16_program_is_widened(case: Case, precision: str, fails: bool):
    case.precision = precision
    with spied(), pytest.raises(AssertionError) if fails else nullcontext():
        np.testing.assert_allclose(marked(1.004 * ONE), ONE, rtol=1e-5, atol=1e-4)
    case.precision = "fp16"
    with spied(), pytest.raises(AssertionError):
        np.testing.assert_allclose(marked(1.006 * ONE), ONE, rtol=1e-5, atol=1e-4)


def test_the_difference_of_a_failed_comparison_is_noted(case: Case):
    with spied(), pytest.raises(AssertionError):
        np.testing.assert_allclose(marked(1.25 * ONE), ONE)
    assert case.largest == pytest.approx(0.25)


def test_shapes_that_differ_are_left_to_numpy(case: Case):
    with spied(), pytest.raises(AssertionError, match="shapes"):
        np.testing.assert_allclose(marked(ONE), np.ones(4))
    assert case.largest is None


def test_a_single_predicted_number_can_be_a_key():
    assert {marked(ONE)[0]: "one"}[1.0] == "one"


def test_the_spies_are_removed():
    before = np.testing.assert_allclose, np.allclose, np.testing.assert_equal
    with spied():
        assert np.testing.assert_allclose is not before[0]
    assert (np.testing.assert_allclose, np.allclose, np.testing.assert_equal) == before


@pytest.mark.parametrize(
    ("precision", "atol", "factor", "violations"),
    [
        ("fp16", 0.5, 1.004, 0),
        ("fp16", 0.5, 1.006, 1),
        ("fp16", 1.0, 1.006, 0),  # the test itself asked for 0.01
        ("fp16", 1e-1, 1.006, 0),  # a tolerance nobody widened
        ("fp32", 0.5, 1.006, 0),
    ],
)
def test_a_widened_float16_tolerance_is_narrowed_again(case: Case, precision: str, atol: float, factor: float, violations: int):
    case.precision = precision
    with spied():
        np.testing.assert_allclose(marked(factor * ONE), ONE, rtol=0.05, atol=atol)
    assert len(case.violations) == violations
    assert case.largest == pytest.approx(factor - 1, rel=1e-3)


def test_differences_are_relative_to_the_largest_value_and_pass_over_infinities(case: Case):
    with spied():
        np.testing.assert_allclose(marked(np.array([10.1, 1.0, np.inf])), np.array([10.0, 1.0, np.inf]), atol=1)
    assert case.largest == pytest.approx(0.01)


def test_the_part_of_elements_that_a_test_lets_off_is_let_off_here(case: Case):
    case.precision, case.allowed = "fp16", 0.5
    with spied():
        np.testing.assert_allclose(marked(np.array([1.1, 1.0])), np.ones(2), atol=0.5)
    assert case.violations == []
