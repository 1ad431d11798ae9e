"""How far two sets of logits lie apart, and how good each is: figures only, no judgement."""

from typing import Any

import numpy as np

from toolkit.validation.result import Figures
from toolkit.validation.statistics import Paired, exact_interval

Array = np.ndarray[Any, Any]
BINS = 15  # of the calibration error, as in Guo et al. (2017)
FP16_MAX = 65504.0
TOP = 5


def figures(logits: Array, reference: Array, labels: Array, probabilities: Array | None = None) -> Figures:
    """Of logits (N, classes) against PyTorch's on the same images. `labels` (N,) are the true classes.

    `probabilities` (N, classes): as the file itself gives them, where it does.
    """
    difference = np.abs(logits.astype(np.float64) - reference)  # inf - inf is NaN, which no gate lets through
    predicted, expected = logits.argmax(1), reference.argmax(1)
    right, reference_right = predicted == labels, expected == labels
    paired = Paired(len(labels), int((reference_right & ~right).sum()), int((right & ~reference_right).sum()))
    with np.errstate(all="ignore"):
        mine, theirs = log_softmax(logits), log_softmax(reference)
        given = np.exp(mine) if probabilities is None else probabilities.astype(np.float64)
        return Figures(
            accuracy=float(right.mean()), accuracy_interval=exact_interval(int(right.sum()), len(labels)),
            reference_accuracy=float(reference_right.mean()),
            top5=top(logits, labels), reference_top5=top(reference, labels),
            lost=paired.lost, gained=paired.gained, difference_interval=paired.interval(), mcnemar_p=paired.p_value,
            max_abs_logit=float(difference.max()), mean_abs_logit=float(difference.mean()),
            p999_abs_logit=float(np.percentile(difference, 99.9)),
            max_abs_probability=float(np.abs(given - np.exp(theirs)).max()),
            snr_db=snr_db(reference, logits), kl=float((np.exp(theirs) * (theirs - mine)).sum(1).mean()),
            ece=calibration_error(mine, labels), reference_ece=calibration_error(theirs, labels),
            nan=int(np.isnan(logits).sum()), inf=int(np.isinf(logits).sum()),
            saturated=int((np.abs(logits[np.isfinite(logits)]) >= FP16_MAX).sum()),
        )  # fmt: skip


def log_softmax(logits: Array) -> Array:
    """(N, classes) float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def top(logits: Array, labels: Array, count: int = TOP) -> float | None:
    """Share of images whose true class is among the `count` best; None where there are not more classes than that."""
    if logits.shape[1] <= count:
        return None
    best = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return float((best == labels[:, None]).any(1).mean())


def snr_db(reference: Array, found: Array) -> float:
    """10 log10(Σ reference² / Σ difference²): signal to noise; inf where nothing differs."""
    signal, noise = (float((each.astype(np.float64) ** 2).sum()) for each in (reference, found.astype(np.float64) - reference))
    with np.errstate(all="ignore"):
        return float(10 * np.log10(np.float64(signal) / np.float64(noise)))


def calibration_error(log_probabilities: Array, labels: Array) -> float:
    """Expected calibration error: |confidence - accuracy| over BINS bins of confidence, weighted by their images."""
    confidence = np.exp(log_probabilities.max(1))
    right = log_probabilities.argmax(1) == labels
    places = np.clip(np.nan_to_num(confidence * BINS).astype(int), 0, BINS - 1)
    error = 0.0
    for place in np.unique(places):
        members = places == place
        error += members.mean() * abs(confidence[members].mean() - right[members].mean())
    return float(error)
