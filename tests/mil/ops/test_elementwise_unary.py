"""Elementwise ops of one operand against NumPy, SciPy and closed forms in float64."""

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
from toolkit.mil.ops import elementwise_unary as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)


def arrays(low: float, high: float) -> st.SearchStrategy[Array]:
    """Arrays of rank 0 to 4 in either float type."""

    def of_width(width: int) -> st.SearchStrategy[Array]:
        bounds = {"min_value": float(np.float32(low)), "max_value": float(np.float32(high))}
        values = st.floats(**bounds, width=width, allow_subnormal=False)
        return hnp.arrays(f"float{width}", SHAPES, elements=values)

    return st.sampled_from([32, 64]).flatmap(of_width)


def agree(result: torch.Tensor, expected: Array, dtype: Any) -> None:
    """Same shape, the dtype of the operand, and a few units in the last place."""
    assert result.numpy().dtype == dtype
    assert result.shape == np.shape(expected)
    rtol, atol = (3e-6, 1e-6) if dtype == np.float32 else (1e-12, 1e-13)
    np.testing.assert_allclose(result.numpy(), expected, rtol, atol)


# op: its function, the expected value in float64, the interval from which x is drawn
CASES: dict[str, tuple[Callable[..., torch.Tensor], Callable[[Array], Array], float, float]] = {
    "abs": (ops.abs_, np.abs, -100, 100),
    "acos": (ops.acos, np.arccos, -1, 1),
    "asin": (ops.asin, np.arcsin, -1, 1),
    "atan": (ops.atan, np.arctan, -1e3, 1e3),
    "atanh": (ops.atanh, lambda x: np.log((1 + x) / (1 - x)) / 2, -0.99, 0.99),
    "ceil": (ops.ceil, lambda x: -np.floor(-x), -9, 9),
    "cos": (ops.cos, np.cos, -100, 100),
    "cosh": (ops.cosh, lambda x: (np.exp(x) + np.exp(-x)) / 2, -20, 20),
    "erf": (ops.erf, scipy.special.erf, -5, 5),
    "exp": (ops.exp, np.exp, -20, 20),
    "exp2": (ops.exp2, lambda x: 2.0**x, -20, 20),
    "floor": (ops.floor, np.floor, -9, 9),
    "identity": (ops.identity, lambda x: x, -9, 9),
    "inverse": (ops.inverse, lambda x: 1 / (x + 1e-4), 0.01, 100),
    "log": (ops.log, np.log, 1e-6, 1e6),
    "round": (ops.round_, np.rint, -9, 9),
    "rsqrt": (ops.rsqrt, lambda x: (x + 1e-12) ** -0.5, 1e-10, 1e6),
    "sign": (ops.sign, lambda x: 1.0 * (x > 0) - 1.0 * (x < 0), -2, 2),
    "sin": (ops.sin, np.sin, -100, 100),
    "sinh": (ops.sinh, np.sinh, -20, 20),
    "sqrt": (ops.sqrt, np.sqrt, 0, 1e6),
    "square": (ops.square, lambda x: x**2, -100, 100),
    "tan": (ops.tan, lambda x: np.sin(x) / np.cos(x), -1.5, 1.5),
    "tanh": (ops.tanh, np.tanh, -9, 9),
}


@pytest.mark.parametrize("name", CASES)
@PROPERTY
@given(data=st.data())
def test_equals_numpy_in_float64(name: str, data: st.DataObject) -> None:
    function, expected, low, high = CASES[name]
    x = data.draw(arrays(low, high))
    agree(function(torch.from_numpy(x)), expected(x.astype(np.float64)), x.dtype)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (ops.inverse, lambda total: 1 / total),
        (ops.log, np.log),
        (ops.rsqrt, lambda total: 1 / np.sqrt(total)),
    ],
)
@PROPERTY
@given(x=arrays(0.01, 100), epsilon=st.floats(1e-3, 1))
def test_epsilon_is_added_to_x_first(function: Any, expected: Any, x: Array, epsilon: float) -> None:
    agree(function(torch.from_numpy(x), epsilon), expected(x.astype(np.float64) + epsilon), x.dtype)


@PROPERTY
@given(x=arrays(-5, 5), bounds=st.tuples(st.integers(-4, 4), st.integers(-4, 4)).map(sorted))
def test_clip_and_threshold_are_minimum_of_maximum(x: Array, bounds: list[int]) -> None:
    low, high = bounds
    agree(ops.clip(torch.from_numpy(x), low, high, ios=15), np.minimum(np.maximum(x, low), high), x.dtype)
    agree(ops.threshold(torch.from_numpy(x), torch.tensor(low, dtype=torch.from_numpy(x).dtype)), np.maximum(x, low), x.dtype)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_clip_needs_alpha_below_beta_from_ios17(alpha: float, beta: float) -> None:
    with pytest.raises(ArtifactError, match="not smaller than beta"):
        ops.clip(torch.zeros(1), alpha, beta, ios=17)
    if alpha == alpha:
        assert ops.clip(torch.tensor([0.0, 5.0]), alpha, beta, ios=16).tolist() == [beta, beta]


@PROPERTY
@given(x=hnp.arrays(np.int32, SHAPES, elements=st.integers(-1000, 1000)), alpha=st.integers(2**24, 2**30))
def test_integer_operands_give_exact_integers(x: Array, alpha: int) -> None:
    tensor = torch.from_numpy(x)
    for result, expected in [
        (ops.abs_(tensor), np.abs(x)),
        (ops.sign(tensor), np.sign(x)),
        (ops.square(tensor), x * x),
        (ops.threshold(tensor * 0 + (alpha - 1), torch.tensor(alpha, dtype=torch.int32)), np.full_like(x, alpha)),
        (ops.exp2(tensor.abs() % 31), 2 ** (np.abs(x).astype(np.int64) % 31)),
    ]:
        assert not result.is_floating_point()
        np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize("exponent", [-1, 31])
def test_exp2_refuses_an_integer_whose_power_is_no_int32(exponent: int) -> None:
    with pytest.raises(ArtifactError, match=r"0\.\.30"):
        ops.exp2(torch.tensor([0, exponent], dtype=torch.int32))


SPECIAL = [
    (ops.round_, [0.5, 1.5, 2.5, -0.5, -1.5], [0, 2, 2, 0, -2]),
    (ops.sign, [0.0, -0.0, 1e-30, -math.inf], [0, 0, 1, -1]),
    (ops.log, [0.0, math.inf, -1.0], [-103.27893, math.inf, math.nan]),  # ln of the smallest positive float32
    (ops.acos, [2.0], [math.nan]),
    (ops.atanh, [1.0, -1.0, 2.0], [math.inf, -math.inf, math.nan]),
    (ops.sqrt, [-1.0, math.inf], [math.nan, math.inf]),
    (ops.rsqrt, [0.0, math.inf], [1e6, 0]),
    (ops.inverse, [0.0, -math.inf], [1e4, 0]),
    (ops.exp, [-math.inf, math.inf], [0, math.inf]),
    (ops.tanh, [-math.inf, math.inf], [-1, 1]),
]


@pytest.mark.parametrize(("function", "x", "expected"), SPECIAL)
def test_limits_and_ties(function: Any, x: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(function(torch.tensor(x)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_nan_stays_nan(name: str) -> None:
    assert CASES[name][0](torch.tensor(math.nan)).isnan()


def test_clip_and_threshold_keep_nan() -> None:
    nan = torch.tensor(math.nan)
    assert ops.clip(nan, 0, 1, ios=17).isnan()
    assert ops.threshold(nan, torch.tensor(0.0)).isnan()


def test_logical_not_swaps_the_truth_values() -> None:
    assert ops.logical_not(torch.tensor([True, False])).tolist() == [False, True]


LIMITS = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16, "int32": np.int32}


@pytest.mark.parametrize("dtype", LIMITS)
@PROPERTY
@given(data=st.data())
def test_cast_to_an_integer_drops_the_fraction(dtype: str, data: st.DataObject) -> None:
    limits = np.iinfo(LIMITS[dtype])
    x = data.draw(hnp.arrays(np.float64, SHAPES, elements=st.floats(int(limits.min), int(limits.max))))
    expected = [int(value) for value in x.flat]
    assert ops.cast(torch.from_numpy(x), dtype).flatten().tolist() == expected
    assert ops.cast(torch.tensor(expected), dtype).tolist() == expected


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("source", [torch.float64, torch.int64])
def test_cast_takes_the_whole_range_and_nothing_beyond(dtype: str, source: torch.dtype) -> None:
    limits = np.iinfo(LIMITS[dtype])
    assert ops.cast(torch.tensor([int(limits.min), int(limits.max)], dtype=source), dtype).tolist() == [limits.min, limits.max]
    for outside in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(ArtifactError, match=f"outside {dtype}"):
            ops.cast(torch.tensor([0, outside], dtype=source), dtype)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2147483648.0])
def test_cast_refuses_what_no_integer_represents(value: float) -> None:
    with pytest.raises(ArtifactError, match="undefined"):
        ops.cast(torch.tensor([0.0, value]), "int32")  # 2147483648.0 is also what 2147483647 is in float32


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        (torch.tensor([0.0, -0.5, math.nan]), "bool", [False, True, True]),
        (torch.tensor([0, 3]), "bool", [False, True]),
        (torch.tensor([True, False]), "int32", [1, 0]),
        (torch.tensor([True, False]), "fp16", [1.0, 0.0]),
        (torch.tensor([2**24 + 1], dtype=torch.int32), "fp32", [float(2**24 + 1)]),
        (torch.tensor([0.1], dtype=torch.float64), "fp16", [0.1]),
    ],
)
def test_cast_to_bool_and_to_float_leaves_rounding_to_the_caller(x: torch.Tensor, dtype: str, expected: list[Any]) -> None:
    result = ops.cast(x, dtype)
    assert result.tolist() == expected
    assert result.is_floating_point() == dtype.startswith("fp")


def test_cast_refuses_an_unknown_type() -> None:
    with pytest.raises(ArtifactError, match="int64"):
        ops.cast(torch.zeros(1), "int64")


X, INTEGER = torch.rand(2, 3), torch.tensor([[1, 2]], dtype=torch.int32)
META = [
    *((name, case[0], (X,)) for name, case in CASES.items()),
    *((f"cast-{dtype}", ops.cast, (X, dtype)) for dtype in ("fp16", "bool", "int32", "uint8")),
    ("cast-integer", ops.cast, (INTEGER, "int8")),
    ("clip", ops.clip, (X, 0.0, 1.0, 17)),
    ("exp2-integer", ops.exp2, (INTEGER,)),
    ("logical_not", ops.logical_not, (X > 0,)),
    ("threshold", ops.threshold, (X, torch.tensor(0.5))),
]


@pytest.mark.parametrize(("function", "arguments"), [each[1:] for each in META], ids=[each[0] for each in META])
def test_meta_tensors_give_the_same_shape_and_type(function: Any, arguments: tuple[Any, ...]) -> None:
    real = function(*arguments)
    meta = function(*(each.to("meta") if isinstance(each, torch.Tensor) else each for each in arguments))
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
