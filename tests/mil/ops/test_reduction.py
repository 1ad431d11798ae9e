"""Reductions against NumPy and SciPy in float64 and against Python's integers."""

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
from toolkit.mil.ops import reduction as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, max_side=3)

# op: its function, the expected value in float64 (or int64), whether x may be negative, whether it may hold integers
CASES: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., Array], bool, bool]] = {
    "l1_norm": (ops.reduce_l1_norm, lambda x, **k: np.sum(np.abs(x), **k), True, True),
    "l2_norm": (ops.reduce_l2_norm, lambda x, **k: np.sqrt(np.sum(x * x, **k)), True, False),
    "log_sum": (ops.reduce_log_sum, lambda x, **k: np.log(np.sum(x, **k)), False, False),
    "log_sum_exp": (ops.reduce_log_sum_exp, scipy.special.logsumexp, True, False),
    "max": (ops.reduce_max, np.max, True, True),
    "mean": (ops.reduce_mean, np.mean, True, False),
    "min": (ops.reduce_min, np.min, True, True),
    "prod": (ops.reduce_prod, np.prod, True, True),
    "sum": (ops.reduce_sum, np.sum, True, True),
    "sum_square": (ops.reduce_sum_square, lambda x, **k: np.sum(x * x, **k), True, True),
}


@st.composite
def reductions(draw: st.DrawFn, negative: bool, dtypes: tuple[str, ...]) -> tuple[Array, tuple[int, ...] | None, bool]:
    """x, some of its axes counted from either end (or None), and keep_dims."""
    dtype = draw(st.sampled_from(dtypes))
    elements: st.SearchStrategy[Any] = st.integers(-3, 3) if dtype == "int32" else st.floats(-4 if negative else 0.25, 4, width=32)
    x = draw(hnp.arrays(dtype, SHAPES, elements=elements))
    axes = draw(st.none() | st.lists(st.integers(0, x.ndim - 1), unique=True).map(tuple))
    if axes is not None:
        axes = tuple(axis - x.ndim if draw(st.booleans()) else axis for axis in axes)
    return x, axes, draw(st.booleans())


@pytest.mark.parametrize("name", CASES)
@PROPERTY
@given(data=st.data())
def test_equals_numpy_over_any_axes(name: str, data: st.DataObject) -> None:
    function, expected, negative, whole = CASES[name]
    x, axes, keep_dims = data.draw(reductions(negative, ("float32", "float64", *(["int32"] if whole else []))))
    result = function(torch.from_numpy(x), axes, keep_dims)
    value = expected(x.astype(np.int64 if x.dtype == np.int32 else np.float64), axis=axes, keepdims=keep_dims)
    assert result.shape == np.shape(value)
    if x.dtype == np.int32:
        assert not result.is_floating_point()
        np.testing.assert_array_equal(result.numpy(), value)
    else:
        assert result.numpy().dtype == x.dtype
        rtol, atol = (1e-5, 3e-5) if x.dtype == np.float32 else (1e-12, 1e-12)
        np.testing.assert_allclose(result.numpy(), value, rtol, atol)


@pytest.mark.parametrize("name", CASES)
def test_all_axes_are_reduced_to_one_value_by_default(name: str) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    values = {"l1_norm": 21, "l2_norm": math.sqrt(91), "log_sum": math.log(21), "log_sum_exp": math.log(sum(map(math.exp, range(1, 7))))}
    values |= {"max": 6, "mean": 3.5, "min": 1, "prod": 720, "sum": 21, "sum_square": 91}
    result = CASES[name][0](x)
    assert result.shape == ()
    assert result.item() == pytest.approx(values[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[3]])
def test_integers_are_refused_where_the_result_is_no_integer(name: str) -> None:
    with pytest.raises(ArtifactError, match="integers"):
        CASES[name][0](torch.tensor([1, 2], dtype=torch.int32))


@PROPERTY
@given(case=reductions(True, ("float32", "float64", "int32")), data=st.data())
def test_argmax_and_argmin_name_the_first_extreme(case: tuple[Array, Any, bool], data: st.DataObject) -> None:
    x, _, keep_dims = case
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    dtype = data.draw(st.sampled_from(["int32", "uint16", "UINT16"]))
    for function, expected in [(ops.reduce_argmax, np.argmax), (ops.reduce_argmin, np.argmin)]:
        result = function(torch.from_numpy(x), axis, keep_dims, dtype)
        np.testing.assert_array_equal(result.numpy(), expected(x, axis=axis, keepdims=keep_dims), strict=True)


def test_argmax_and_argmin_take_the_last_axis_by_default() -> None:
    x = torch.tensor([[[1.0, 3.0, 2.0], [9.0, 8.0, 7.0]]])
    assert ops.reduce_argmax(x).tolist() == [[1, 0]]
    assert ops.reduce_argmin(x).tolist() == [[0, 2]]


def test_uint16_names_any_of_65536_values() -> None:
    x = torch.arange(65536, dtype=torch.int32)
    assert ops.reduce_argmax(x, 0, False, "uint16").item() == 65535


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (ops.reduce_log_sum_exp, [1000.0, 1000.0], 1000 + math.log(2)),
        (ops.reduce_log_sum_exp, [-1000.0, -1000.0], -1000 + math.log(2)),
        (ops.reduce_log_sum_exp, [-math.inf, -math.inf], -math.inf),
        (ops.reduce_log_sum, [1.0, -1.0], -math.inf),
        (ops.reduce_log_sum, [1.0, -2.0], math.nan),
        (ops.reduce_max, [math.nan, 1.0], math.nan),
        (ops.reduce_min, [1.0, math.nan], math.nan),
        (ops.reduce_l2_norm, [3.0, -4.0], 5.0),
    ],
)
def test_limits(function: Any, x: list[float], expected: float) -> None:
    np.testing.assert_allclose(function(torch.tensor(x)).item(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.reduce_sum(torch.zeros(2, 3), (2,)), r"axes \[2\] do not all lie in x of shape \[2, 3\]"),
        (lambda: ops.reduce_sum(torch.zeros(2, 3), (0, -3)), r"axes \[0, -3\] do not all lie"),
        (lambda: ops.reduce_max(torch.zeros(2, 3), (0, -2)), "name one axis twice"),
        (lambda: ops.reduce_argmax(torch.zeros(2), 1), "do not all lie"),
        (lambda: ops.reduce_argmin(torch.zeros(2), 0, False, "int64"), "'int64' is neither int32 nor uint16"),
        (lambda: ops.reduce_argmax(torch.zeros(65537, dtype=torch.int8), 0, False, "uint16"), "65537 has indices that are no uint16"),
    ],
)
def test_what_the_definition_excludes_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


X = torch.rand(2, 3, 4)
ARGUMENTS: list[tuple[Any, ...]] = [(), ((1, -1),), ((0,), True), ((),)]
META = [
    *((f"{name}-{arguments}", case[0], arguments) for name, case in CASES.items() for arguments in ARGUMENTS),
    *((f"arg-{arguments}", function, arguments) for function in (ops.reduce_argmax, ops.reduce_argmin) for arguments in [(), (0, True)]),
]


@pytest.mark.parametrize(("function", "arguments"), [each[1:] for each in META], ids=[each[0] for each in META])
def test_meta_tensors_give_the_same_shape_and_type(function: Any, arguments: tuple[Any, ...]) -> None:
    real, meta = function(X, *arguments), function(X.to("meta"), *arguments)
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
