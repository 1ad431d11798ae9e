"""Elementwise ops of two operands, and select, against NumPy in float64 and Python's integers."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.errors import ArtifactError
from toolkit.mil.ops import elementwise_binary as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
# halves, so that equal operands, exact quotients and half-way points occur
HALVES = st.integers(-12, 12).map(lambda value: value / 2)
INTEGERS = st.integers(-60, 60)


@st.composite
def operands(draw: st.DrawFn, dtypes: tuple[str, ...], nonzero: bool = False, count: int = 2) -> list[Array]:
    """Arrays of one dtype whose shapes broadcast against each other, ranks 0 to 4."""
    dtype = draw(st.sampled_from(dtypes))
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=4, max_side=3)).input_shapes
    values: st.SearchStrategy[Any] = {"b": st.booleans(), "i": INTEGERS, "f": HALVES | st.floats(-50, 50, width=16)}[np.dtype(dtype).kind]
    result = [draw(hnp.arrays(dtype, shape, elements=values)) for shape in shapes]
    if nonzero:
        result[1] = np.where(np.abs(result[1]) < 0.25, np.ones_like(result[1]), result[1])
    return result


NUMBERS, ALL = ("float32", "float64", "int32"), ("float32", "float64", "int32", "bool")
ARITHMETIC: dict[str, tuple[Callable[..., torch.Tensor], Callable[[Array, Array], Array]]] = {
    "add": (ops.add, operator.add),
    "sub": (ops.sub, operator.sub),
    "mul": (ops.mul, operator.mul),
    "maximum": (ops.maximum, lambda x, y: np.where(x > y, x, y)),
    "minimum": (ops.minimum, lambda x, y: np.where(x > y, y, x)),
}
COMPARISONS = {
    "equal": (ops.equal, operator.eq),
    "not_equal": (ops.not_equal, operator.ne),
    "less": (ops.less, operator.lt),
    "less_equal": (ops.less_equal, operator.le),
    "greater": (ops.greater, operator.gt),
    "greater_equal": (ops.greater_equal, operator.ge),
}
LOGIC = {
    "logical_and": (ops.logical_and, operator.and_),
    "logical_or": (ops.logical_or, operator.or_),
    "logical_xor": (ops.logical_xor, operator.xor),
}
DIVISIONS = {
    "floor_div": (ops.floor_div, np.floor_divide),
    "mod": (ops.mod, lambda x, y: x - y * np.floor_divide(x, y)),
    "real_div": (ops.real_div, lambda x, y: np.trunc(x / y) if x.dtype == np.int64 else x / y),
}


def check(case: Any, x: Array, y: Array) -> None:
    function, expected = case
    result = function(torch.from_numpy(x), torch.from_numpy(y))
    wide = np.int64 if x.dtype == np.int32 else np.float64
    value = expected(x.astype(wide), y.astype(wide))
    assert result.shape == value.shape
    assert result.is_floating_point() == (x.dtype != np.int32)
    if result.is_floating_point():
        assert result.numpy().dtype == x.dtype
    rtol, atol = {"float32": (1e-6, 1e-5), "float64": (1e-14, 1e-12), "int32": (0, 0)}[x.dtype.name]
    np.testing.assert_allclose(result.numpy(), value, rtol, atol)


@pytest.mark.parametrize("name", ARITHMETIC)
@PROPERTY
@given(pair=operands(NUMBERS))
def test_arithmetic_equals_numpy(name: str, pair: list[Array]) -> None:
    check(ARITHMETIC[name], *pair)


@pytest.mark.parametrize("name", DIVISIONS)
@PROPERTY
@given(pair=operands(NUMBERS, nonzero=True))
def test_divisions_round_down_or_towards_zero(name: str, pair: list[Array]) -> None:
    check(DIVISIONS[name], *pair)


@pytest.mark.parametrize("name", [*COMPARISONS, *LOGIC])
@PROPERTY
@given(data=st.data())
def test_comparisons_and_logic_give_bool(name: str, data: st.DataObject) -> None:
    function, expected = {**COMPARISONS, **LOGIC}[name]
    x, y = data.draw(operands(("bool",) if name in LOGIC else NUMBERS))
    result = function(torch.from_numpy(x), torch.from_numpy(y))
    assert result.dtype == torch.bool
    np.testing.assert_array_equal(result.numpy(), expected(x, y), strict=True)


@PROPERTY
@given(pair=operands(("float32", "float64")), base=st.sampled_from([0.25, 1.0, 2.0, 3.0]))
def test_pow_of_floats_equals_exp_of_log(pair: list[Array], base: float) -> None:
    x, y = pair
    x = np.asarray(np.abs(x) / 50 + base, x.dtype)
    expected = np.exp(y.astype(np.float64) * np.log(x.astype(np.float64)))
    result = ops.pow_(torch.from_numpy(x), torch.from_numpy(y))
    assert result.numpy().dtype == x.dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5 if x.dtype == np.float32 else 1e-12)


@PROPERTY
@given(base=st.integers(-9, 9), exponent=st.integers(0, 9))
def test_pow_of_integers_is_exact(base: int, exponent: int) -> None:
    result = ops.pow_(torch.tensor([base], dtype=torch.int32), torch.tensor(exponent, dtype=torch.int32))
    assert result.tolist() == [base**exponent]


@PROPERTY
@given(triple=operands(ALL, count=3), data=st.data())
def test_select_equals_where(triple: list[Array], data: st.DataObject) -> None:
    shape, a, b = triple[0].shape, *triple[1:]
    cond = data.draw(hnp.arrays(bool, shape))
    result = ops.select(*(torch.from_numpy(each) for each in (cond, a, b)))
    expected = np.empty(np.broadcast_shapes(shape, a.shape, b.shape), a.dtype)
    np.copyto(expected, b)
    np.copyto(expected, a, where=cond)
    np.testing.assert_array_equal(result.numpy(), expected, strict=True)


@pytest.mark.parametrize(
    ("function", "x", "y", "expected"),
    [
        (ops.real_div, [1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [math.inf, -math.inf, math.nan]),
        (ops.floor_div, [1.0, -1.0, 0.0, -7.0], [0.0, 0.0, 0.0, 2.0], [math.inf, -math.inf, math.nan, -4.0]),
        (ops.mod, [1.0, -7.0, 7.0, -0.5], [0.0, 3.0, -3.0, 0.75], [math.nan, 2.0, -2.0, 0.25]),
        (ops.pow_, [0.0, -8.0, -2.0, 0.0], [0.0, 1 / 3, 3.0, -1.0], [1.0, math.nan, -8.0, math.inf]),
        (ops.maximum, [math.nan, 1.0], [1.0, math.nan], [math.nan, math.nan]),
        (ops.minimum, [math.nan, 1.0], [1.0, math.nan], [math.nan, math.nan]),
    ],
)
def test_float_limits(function: Any, x: list[float], y: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(function(torch.tensor(x), torch.tensor(y)).numpy(), expected)


@pytest.mark.parametrize(("function", "expected"), [(ops.floor_div, [2**31, -4, 3]), (ops.mod, [0, 1, 1]), (ops.real_div, [2**31, -3, 3])])
def test_integer_divisions_at_the_limits(function: Any, expected: list[int]) -> None:
    x, y = torch.tensor([-(2**31), -7, 7], dtype=torch.int32), torch.tensor([-1, 2, 2], dtype=torch.int32)
    assert function(x, y).tolist() == expected


@pytest.mark.parametrize("function", [ops.floor_div, ops.mod, ops.real_div])
def test_an_integer_divided_by_zero_is_refused(function: Any) -> None:
    with pytest.raises(ArtifactError, match="divided by zero"):
        function(torch.tensor([1, 2]), torch.tensor([1, 0]))


def test_a_negative_integer_exponent_is_refused() -> None:
    with pytest.raises(ArtifactError, match="negative"):
        ops.pow_(torch.tensor([2]), torch.tensor([-1]))


FLOATS = (torch.rand(2, 1, 3), torch.rand(4, 1) + 1)
WHOLE = (torch.tensor([[1], [2]], dtype=torch.int32), torch.tensor([3, 4], dtype=torch.int32))
META = [
    *((f"{name}-float", case[0], FLOATS) for name, case in {**ARITHMETIC, **DIVISIONS, **COMPARISONS, "pow": (ops.pow_, None)}.items()),
    *((f"{name}-int", case[0], WHOLE) for name, case in {**ARITHMETIC, **DIVISIONS, **COMPARISONS, "pow": (ops.pow_, None)}.items()),
    *((name, case[0], (FLOATS[0] > 0.5, FLOATS[1] > 1.5)) for name, case in LOGIC.items()),
    ("select", ops.select, (FLOATS[0] > 0.5, *FLOATS)),
]


@pytest.mark.parametrize(("function", "arguments"), [each[1:] for each in META], ids=[each[0] for each in META])
def test_meta_tensors_give_the_same_shape_and_type(function: Any, arguments: tuple[torch.Tensor, ...]) -> None:
    real, meta = function(*arguments), function(*(each.to("meta") for each in arguments))
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
