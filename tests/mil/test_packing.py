"""The fast routine computes what the plain one does: asking for intermediate values takes the plain one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.mil import ReferenceEvaluator

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch is built without oneDNN here")
RNG = np.random.default_rng(3)
K = RNG.normal(size=(4, 4, 3, 3)).astype(np.float32)
K1 = RNG.normal(size=(4, 4, 1, 1)).astype(np.float32)


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


def conv(x: Any, weight: Any = K, **more: Any) -> Any:
    pad = {"pad_type": "same"} if weight.shape[-1] == 3 else {}
    return _mb().conv(x=x, weight=weight, **pad, **more)


def relu(x: Any) -> Any:
    return _mb().relu(x=x)


def add(x: Any, y: Any) -> Any:
    return _mb().add(x=x, y=y)


def shared(x: Any) -> Any:
    y = conv(x)
    return add(relu(y), y)


def diamond(x: Any) -> Any:
    """Two convolutions meet in one addition: only one of them may take it."""
    return relu(add(conv(x), conv(x, K1)))


def chain(x: Any) -> Any:
    y = relu(conv(x, bias=K[:, 0, 0, 0]))
    return relu(add(y, conv(relu(conv(y)))))


CASES: dict[str, tuple[Callable[[Any], Any], int]] = {  # program -> how many steps the fast routine has
    "conv": (conv, 1),
    "conv-relu": (lambda x: relu(conv(x)), 1),
    "conv-add-relu": (lambda x: relu(add(conv(x), x)), 1),
    "add-conv-relu": (lambda x: relu(add(x, conv(x))), 1),
    "conv-add": (lambda x: add(conv(x), x), 2),
    "conv-add of a constant": (lambda x: relu(add(conv(x), K[:1, :, :1, :1])), 3),
    "conv-add of itself": (lambda x: relu((lambda y: add(y, y))(conv(x))), 3),
    "conv read twice": (shared, 3),
    "diamond": (diamond, 2),
    "chain": (chain, 3),
    "grouped": (lambda x: relu(conv(x, K[:, :2], groups=2, dilations=[2, 2])), 1),
    "asymmetric padding": (lambda x: relu(_mb().conv(x=x, weight=K, pad_type="custom", pad=[0, 1, 1, 2])), 2),
}


@needs_onednn
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["fp32", "as-typed"])
def test_fused_equals_plain(case: str, mode: str, build: Callable[..., Path]) -> None:
    program, steps = CASES[case]
    evaluator = ReferenceEvaluator(build(program, (1, 4, 6, 6)), mode)
    x = RNG.normal(size=(5, 4, 6, 6)).astype(np.float32)
    fused = evaluator.predict_array(x)
    assert evaluator._plan.fast is not None
    assert len(evaluator._plan.fast.steps) == steps
    for row, image in enumerate(x):
        plain = evaluator.predict({"x": image[None]}, intermediates=True)
        for name, values in fused.items():
            np.testing.assert_allclose(values[row], plain[name][0], rtol=0, atol=1e-6 * np.abs(plain[name]).max())


@needs_onednn
def test_fp16_results_are_rounded_before_an_addition(build: Callable[..., Path]) -> None:
    """Fusing the addition would skip the rounding of the convolution's result, so as-typed does not."""
    ct_cast = _mb

    def program(x: Any) -> Any:
        half = ct_cast().cast(x=x, dtype="fp16")
        return ct_cast().cast(x=relu(add(conv(half, K.astype(np.float16)), half)), dtype="fp32")

    path = build(program, (1, 4, 6, 6))
    x = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32) * 10
    evaluator = ReferenceEvaluator(path)
    plain = evaluator.predict({"x": x}, intermediates=True)
    (name,) = evaluator.predict({"x": x})
    np.testing.assert_array_equal(evaluator.predict({"x": x})[name], plain[name])


@needs_onednn
@pytest.mark.parametrize("mode", ["fp32", "as-typed"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("case", ["conv-relu", "conv-add-relu", "chain"])
def test_what_is_no_number_is_not_hidden_by_fusing(case: str, bad: float, mode: str, build: Callable[..., Path]) -> None:
    """oneDNN's fused ReLU makes 0 of NaN."""
    evaluator = ReferenceEvaluator(build(CASES[case][0], (1, 4, 6, 6)), mode)
    x = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
    x[1, 2, 3, 3] = bad
    fused = evaluator.predict_array(x)
    (name,) = fused
    plain = evaluator.predict({"x": x[1:]}, intermediates=True)[name]
    assert evaluator._plan.fast is not None
    assert not np.isfinite(plain).all()
    np.testing.assert_array_equal(np.isnan(fused[name][1:]), np.isnan(plain))
    assert np.isfinite(fused[name][0]).all()


@needs_onednn
def test_weights_that_are_no_numbers_are_not_packed(build: Callable[..., Path]) -> None:
    weight = K.copy()
    weight[1, 1, 1, 1] = np.nan
    (found,) = (
        ReferenceEvaluator(build(lambda x: relu(conv(x, weight)), (1, 4, 6, 6)), "fp32").predict_array(np.ones((1, 4, 6, 6))).values()
    )
    assert np.isnan(found[0, 1]).any()


def _overflowing(x: Any) -> Any:
    """Products of finite numbers that are +inf and -inf, and so a sum that is no number."""
    weight = np.full((4, 4, 1, 1), 1e20, np.float32)
    weight[:, 1::2] *= -1
    return relu(conv(x, weight))


def _cancelling(x: Any) -> Any:
    """Two convolutions whose sums cancel to 0, bounded only by 1e39: the carried bound says nothing, a look at the values does."""
    weight = np.full((4, 4, 1, 1), 1e19, np.float32)
    weight[:, 1::2] *= -1
    return relu(conv(relu(conv(x, weight)), np.abs(weight)))


@needs_onednn
def test_a_sum_of_finite_products_that_overflows_is_not_hidden_either(build: Callable[..., Path]) -> None:
    evaluator = ReferenceEvaluator(build(_overflowing, (1, 4, 2, 2)), "fp32")
    (found,) = evaluator.predict_array(np.full((1, 4, 2, 2), 1e20, np.float32)).values()
    assert np.isnan(found).all()


@needs_onednn
def test_a_loose_bound_is_replaced_by_a_look_at_the_values(build: Callable[..., Path]) -> None:
    evaluator = ReferenceEvaluator(build(_cancelling, (1, 4, 2, 2)), "fp32")
    evaluator._plan.routine.steps.clear()  # the plain way would raise: it computes nothing
    (found,) = evaluator.predict_array(np.ones((1, 4, 2, 2), np.float32)).values()
    np.testing.assert_array_equal(found, 0)
