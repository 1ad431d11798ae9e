"""Activations against their formulas in NumPy and SciPy, in float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.errors import ArtifactError
from toolkit.mil.ops import activation as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
PARAMETER = st.integers(-16, 16).map(lambda value: value / 8)  # exact in every float type


def arrays(shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[Array]:
    """Values -9..9 in either float type, often the corners of the activations."""
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 6.0, 0.5]) | st.floats(-9, 9, width=32, allow_subnormal=False)
    return st.sampled_from(["float32", "float64"]).flatmap(lambda dtype: hnp.arrays(dtype, shapes, elements=values))


ANY_SHAPE = hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)


def agree(result: torch.Tensor, expected: Array, dtype: Any) -> None:
    assert result.numpy().dtype == dtype
    assert result.shape == np.shape(expected)
    rtol, atol = (3e-6, 3e-6) if dtype == np.float32 else (1e-12, 1e-12)
    np.testing.assert_allclose(result.numpy(), expected, rtol, atol)


def tanh_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# op: its function of x and so many parameters, and the expected value in float64
CASES: dict[str, tuple[Callable[..., torch.Tensor], int, Callable[..., Array]]] = {
    "clamped_relu": (ops.clamped_relu, 2, lambda x, a, b: np.minimum(b, np.maximum(x, 0) + a * np.minimum(x, 0))),
    "elu": (ops.elu, 1, lambda x, a: np.maximum(x, 0) + a * (np.exp(np.minimum(x, 0)) - 1)),
    "gelu": (ops.gelu, 0, lambda x: x * scipy.special.ndtr(x)),
    "gelu-exact": (lambda x: ops.gelu(x, "EXACT"), 0, lambda x: x * scipy.special.ndtr(x)),
    "gelu-tanh": (lambda x: ops.gelu(x, "TANH_APPROXIMATION"), 0, tanh_gelu),
    "gelu-sigmoid": (lambda x: ops.gelu(x, "SIGMOID_APPROXIMATION"), 0, lambda x: x / (1 + np.exp(-1.702 * x))),
    "leaky_relu": (ops.leaky_relu, 1, lambda x, a: np.maximum(x, 0) + a * np.minimum(x, 0)),
    "linear_activation": (ops.linear_activation, 2, lambda x, a, b: x * a + b),
    "relu": (ops.relu, 0, lambda x: (x + np.abs(x)) / 2),
    "relu6": (ops.relu6, 0, lambda x: np.median([x * 0, x, x * 0 + 6], axis=0)),
    "scaled_tanh": (ops.scaled_tanh, 2, lambda x, a, b: a * np.tanh(x * b)),
    "sigmoid": (ops.sigmoid, 0, lambda x: 1 / (1 + np.exp(-x))),
    "sigmoid_hard": (ops.sigmoid_hard, 2, lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1)),
    "silu": (ops.silu, 0, lambda x: x / (1 + np.exp(-x))),
    "softplus": (ops.softplus, 0, lambda x: np.log(1 + np.exp(x))),
    "softsign": (ops.softsign, 0, lambda x: np.sign(x) - np.sign(x) / (1 + np.abs(x))),
    "thresholded_relu": (ops.thresholded_relu, 1, lambda x, a: x * (x >= a)),
}


@pytest.mark.parametrize("name", CASES)
@PROPERTY
@given(x=arrays(ANY_SHAPE), parameters=st.tuples(PARAMETER, PARAMETER))
def test_equals_its_formula_in_float64(name: str, x: Array, parameters: tuple[float, float]) -> None:
    function, count, expected = CASES[name]
    agree(function(torch.from_numpy(x), *parameters[:count]), expected(x.astype(np.float64), *parameters[:count]), x.dtype)


@pytest.mark.parametrize("name", CASES)
def test_nan_stays_nan(name: str) -> None:
    function, count, _ = CASES[name]
    assert function(torch.tensor(math.nan), *(0.5, 1.0)[:count]).isnan()


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("softplus", [100.0, -80.0, 1000.0, -1000.0], [100.0, math.exp(-80), 1000.0, 0.0]),
        ("sigmoid", [100.0, -1000.0, -math.inf], [1.0, 0.0, 0.0]),
        ("softsign", [1e30, -1e30], [1.0, -1.0]),
        ("gelu", [-5.0, -9.0], [-5 * math.erfc(5 / math.sqrt(2)) / 2, -9 * math.erfc(9 / math.sqrt(2)) / 2]),
        ("gelu-tanh", [-4.0], [-4 / (1 + math.exp(2 * math.sqrt(2 / math.pi) * (4 + 0.044715 * 64)))]),
    ],
)
def test_large_values_neither_overflow_nor_cancel(name: str, x: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(CASES[name][0](torch.tensor(x)).numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize(("name", "x"), [("elu", 1000.0), ("leaky_relu", math.inf), ("clamped_relu", 3e38)])
def test_the_branch_not_taken_does_not_matter(name: str, x: float) -> None:
    function, count, _ = CASES[name]
    assert function(torch.tensor(x), *(0.0, math.inf)[:count]).item() == pytest.approx(x)


def test_clamped_relu_with_a_negative_ceiling_is_that_ceiling() -> None:
    assert ops.clamped_relu(torch.tensor([3.0, -1.0, -4.0]), 0.5, -1.0).tolist() == [-1.0, -1.0, -2.0]


@st.composite
def channels(draw: st.DrawFn, ranks: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """x [B, C, *D] and two parameters [C] of its type."""
    x = draw(arrays(st.sampled_from(ranks).flatmap(lambda rank: hnp.array_shapes(min_dims=rank, max_dims=rank, max_side=3))))
    alpha, beta = (draw(hnp.arrays(x.dtype, x.shape[1], elements=PARAMETER)) for _ in range(2))
    return x, alpha, beta


@PROPERTY
@given(case=channels((4,)))
def test_prelu_scales_negative_values_channel_by_channel(case: tuple[Array, Array, Array]) -> None:
    x, alpha, _ = case
    expected = x.astype(np.float64)
    for batch, channel in np.ndindex(x.shape[:2]):
        plane = expected[batch, channel]
        plane[plane < 0] *= alpha[channel]
    agree(ops.prelu(torch.from_numpy(x), torch.from_numpy(alpha)), expected, x.dtype)


@PROPERTY
@given(case=channels((3, 5)))
def test_prelu_of_rank_3_and_5_takes_equal_alphas_only(case: tuple[Array, Array, Array]) -> None:
    x, alpha, _ = case
    same = np.full_like(alpha, alpha[0])
    expected = np.maximum(x, 0) + float(alpha[0]) * np.minimum(x, 0)
    agree(ops.prelu(torch.from_numpy(x), torch.from_numpy(same)), expected, x.dtype)
    if len(set(alpha.tolist())) > 1:
        with pytest.raises(ArtifactError, match="must be equal"):
            ops.prelu(torch.from_numpy(x), torch.from_numpy(alpha))


@PROPERTY
@given(case=channels((3, 4, 5)))
def test_softplus_parametric_equals_its_formula_channel_by_channel(case: tuple[Array, Array, Array]) -> None:
    x, alpha, beta = case
    expected = np.empty(x.shape)
    for batch, channel in np.ndindex(x.shape[:2]):
        expected[batch, channel] = float(alpha[channel]) * np.log(1 + np.exp(float(beta[channel]) * x[batch, channel].astype(np.float64)))
    agree(ops.softplus_parametric(*(torch.from_numpy(each) for each in case)), expected, x.dtype)


@PROPERTY
@given(x=arrays(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)), data=st.data())
def test_softmax_equals_scipy_along_any_axis(x: Array, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    agree(ops.softmax(torch.from_numpy(x), axis), scipy.special.softmax(x.astype(np.float64), axis), x.dtype)
    agree(ops.softmax(torch.from_numpy(x)), scipy.special.softmax(x.astype(np.float64), -1), x.dtype)


def test_softmax_of_large_values_does_not_overflow() -> None:
    np.testing.assert_allclose(ops.softmax(torch.tensor([1000.0, 1000.0, -math.inf])).numpy(), [0.5, 0.5, 0])


IMAGE, ONES = torch.zeros(1, 3, 2, 2), torch.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.gelu(IMAGE, "TANH"), "mode 'TANH' is not one of"),
        (lambda: ops.prelu(IMAGE[0, 0], ONES[:2]), "rank 2, not 3, 4 or 5"),
        (lambda: ops.prelu(IMAGE[None, None], ONES), "rank 6, not 3, 4 or 5"),
        (lambda: ops.prelu(IMAGE, ONES[:2]), r"alpha has shape \[2\], not \[3\]"),
        (lambda: ops.prelu(IMAGE, ONES[None]), r"alpha has shape \[1, 3\], not \[3\]"),
        (lambda: ops.softplus_parametric(IMAGE[0, 0], ONES[:2], ONES[:2]), "rank 2, not 3 or more"),
        (lambda: ops.softplus_parametric(IMAGE, ONES, ONES[:2]), r"beta has shape \[2\], not \[3\]"),
        (lambda: ops.softplus_parametric(IMAGE, ONES[:1], ONES), r"alpha has shape \[1\], not \[3\]"),
        (lambda: ops.softmax(IMAGE, 4), r"axes \[4\] do not all lie in x"),
    ],
)
def test_what_the_definition_excludes_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


META = [
    *((name, case[0], (IMAGE, *(0.5, 1.0)[: case[1]])) for name, case in CASES.items()),
    ("prelu", ops.prelu, (IMAGE, ONES)),
    ("prelu-3", ops.prelu, (IMAGE[0], ONES[:2])),
    ("softmax", ops.softmax, (IMAGE, -2)),
    ("softplus_parametric", ops.softplus_parametric, (IMAGE, ONES, ONES)),
]


@pytest.mark.parametrize(("function", "arguments"), [each[1:] for each in META], ids=[each[0] for each in META])
def test_meta_tensors_give_the_same_shape_and_type(function: Any, arguments: tuple[Any, ...]) -> None:
    real = function(*arguments)
    meta = function(*(each.to("meta") if isinstance(each, torch.Tensor) else each for each in arguments))
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
