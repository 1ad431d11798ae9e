"""Figures against scikit-learn, SciPy and arithmetic on paper."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import rel_entr, softmax
from sklearn.metrics import top_k_accuracy_score

from toolkit.validation.metrics import calibration_error, figures, log_softmax, snr_db, top

RANDOM = np.random.default_rng(0)
LOGITS, REFERENCE = RANDOM.normal(size=(500, 12)).astype(np.float32) * 3, RANDOM.normal(size=(500, 12)).astype(np.float32) * 3
LABELS = RANDOM.integers(0, 12, 500)
EXACT = REFERENCE.astype(np.float64)


def test_figures_are_those_of_other_libraries():
    found = figures(LOGITS, REFERENCE, LABELS)
    p, q = softmax(REFERENCE.astype(np.float64), 1), softmax(LOGITS.astype(np.float64), 1)
    assert found.accuracy == top_k_accuracy_score(LABELS, LOGITS, k=1)
    assert found.top5 == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=5))
    assert found.reference_top5 == pytest.approx(top_k_accuracy_score(LABELS, REFERENCE, k=5))
    assert found.kl == pytest.approx(rel_entr(p, q).sum(1).mean())
    assert found.max_abs_probability == pytest.approx(np.abs(p - q).max())
    difference = np.abs(LOGITS.astype(np.float64) - REFERENCE)
    assert (found.max_abs_logit, found.mean_abs_logit) == pytest.approx((difference.max(), difference.mean()))
    assert np.mean(difference <= found.p999_abs_logit) == pytest.approx(0.999, abs=2e-4)
    right, before = LOGITS.argmax(1) == LABELS, REFERENCE.argmax(1) == LABELS
    assert (found.lost, found.gained) == ((before & ~right).sum(), (right & ~before).sum())


def test_log_softmax_of_large_numbers_is_exact():
    large = np.array([[1e4, 0.0, -1e4]])
    np.testing.assert_allclose(log_softmax(large), scipy_log_softmax(large, 1))


def test_five_classes_have_no_top_5():
    assert top(LOGITS[:, :5], LABELS % 5) is None
    assert top(LOGITS[:, :6], LABELS % 6) is not None


@pytest.mark.parametrize(("scale", "decibel"), [(0.1, 20), (1e-3, 60), (1, 0)])
def test_noise_of_a_known_share_has_a_known_ratio(scale, decibel):
    assert snr_db(EXACT, EXACT * (1 + scale)) == pytest.approx(decibel, abs=1e-4)


def test_the_same_is_infinitely_far_above_the_noise():
    assert snr_db(REFERENCE, REFERENCE) == math.inf


def test_calibration_on_paper():
    """Ten images at 0.95, all right but two: |0.95 - 0.8|. With ten more at 0.55, five right: half of it and half of 0.05."""
    sure, unsure = np.log([[0.95, 0.05]] * 10), np.log([[0.55, 0.45]] * 10)
    labels = np.array([0] * 8 + [1] * 2)
    assert calibration_error(sure, labels) == pytest.approx(0.15)
    both = np.concatenate([labels, [0] * 5 + [1] * 5])
    assert calibration_error(np.concatenate([sure, unsure]), both) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)


@pytest.mark.parametrize(("bad", "field"), [(np.nan, "nan"), (np.inf, "inf"), (65504.0, "saturated")])
def test_what_is_no_number_is_counted_and_breaks_nothing(bad, field):
    logits = REFERENCE.copy()
    logits[3, 4] = bad
    found = figures(logits, REFERENCE, LABELS)
    assert {name: getattr(found, name) for name in ("nan", "inf", "saturated")} == {"nan": 0, "inf": 0, "saturated": 0} | {field: 1}
    assert not found.max_abs_logit < 1000
