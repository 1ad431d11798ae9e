"""The ops that no case of coremltools judges: here each is right by a formula, and a wrong one is noticed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch

from benchmarks.conformance.mutate import mutated
from benchmarks.conformance.records import read_unseen
from toolkit.mil.ops.table import OPS

MUTATIONS = Path(__file__).parents[2] / "benchmarks" / "results" / "mutations.json"
X = np.array([-2.5, -1.0, -0.25, 0.0, 0.5, 3.0], np.float64)


def _call(op: str, **arguments: Any) -> Any:
    return OPS[op].function(**arguments)


def ceil() -> tuple[Any, Any]:
    return _call("ceil", x=torch.from_numpy(X)), [-2, -1, 0, 0, 1, 3]


def gelu() -> tuple[Any, Any]:
    return _call("gelu", x=torch.from_numpy(X)), X * scipy.special.ndtr(X)


def conv_quantized() -> tuple[Any, Any]:
    """One output of two inputs: 3 · (w0 · 0.5 - 1) + 5 · (w1 · 0.5 - 1)."""
    weight = torch.tensor([[[2], [8]]], dtype=torch.uint8)
    found = _call(
        "conv_quantized", x=torch.tensor([[[3.0], [5.0]]]), weight=weight, quantization_type="linear",
        quant_scale=torch.tensor([0.5]), quant_bias=torch.tensor([-1.0]),
    )  # fmt: skip
    return found.flatten(), [3 * (2 * 0.5 - 1) + 5 * (8 * 0.5 - 1)]


def non_maximum_suppression() -> tuple[Any, Any]:
    """Two boxes of one place, and one elsewhere: the better of the two, after the one elsewhere, which scores most."""
    boxes = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [0.1, 0.0, 2.0, 2.0], [9.0, 9.0, 1.0, 1.0]]])
    scores = torch.tensor([[[0.5], [0.6], [0.9]]])
    kept_boxes, kept_scores, kept, counts = _call(
        "non_maximum_suppression", boxes=boxes, scores=scores, iou_threshold=0.5, max_boxes=2, ios=15
    )
    np.testing.assert_array_equal(kept, [[2, 1]])
    np.testing.assert_array_equal(counts, [2])
    return torch.cat([kept_boxes.flatten(), kept_scores.flatten()]), [
        9,
        9,
        1,
        1,
        np.float32(0.1),
        0,
        2,
        2,
        np.float32(0.9),
        np.float32(0.6),
    ]


def classify() -> tuple[Any, Any]:
    labels, table = _call("classify", probabilities=torch.tensor([[0.25, 0.75]]), classes=("cat", "dog"))
    assert labels == ["dog"]
    return table.flatten(), [0.25, 0.75]


CASES: dict[str, Callable[[], tuple[Any, Any]]] = {
    each.__name__: each for each in (ceil, gelu, conv_quantized, non_maximum_suppression, classify)
}


def _holds(op: str) -> None:
    found, expected = CASES[op]()
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("op", CASES)
def test_right_by_a_formula_and_a_wrong_one_is_noticed(op: str) -> None:
    _holds(op)
    with mutated(op), pytest.raises(AssertionError):
        _holds(op)


def test_every_op_that_coremltools_does_not_judge_is_explained_and_judged_here() -> None:
    """Against the stored mutation run."""
    unseen = {row["op"] for row in json.loads(MUTATIONS.read_text()) if row["red"] is None}
    assert unseen == set(CASES) == set(read_unseen())
