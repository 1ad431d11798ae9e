"""quantize and dequantize against their formulas, in NumPy and float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import quantize as ops

Array = Any
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
STORAGE = st.sampled_from([np.float32, np.float64])
DTYPE = st.sampled_from([np.int8, np.uint8])


@st.composite
def cases(draw: Any) -> tuple[Any, Any, int | None, Any, Any, Any]:
    """A shape, scale and zero point (in NumPy), their axis, the shape that makes them broadcast, and a generator."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    rng, dtype, integer = np.random.default_rng(draw(st.integers(0, 2**32))), draw(STORAGE), draw(DTYPE)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    size: Any = () if axis is None else shape[axis]
    wide = [1] * len(shape)
    if axis is not None:
        wide[axis] = shape[axis]
    scale = np.asarray(2.0 ** rng.integers(-4, 3, size) * rng.choice([1, -1], size), dtype)  # powers of two: quotients are exact
    limits = np.iinfo(integer)
    zero = None if draw(st.booleans()) else np.asarray(rng.integers(limits.min, limits.max + 1, size), integer)
    return shape, scale, axis, zero, wide, (rng, dtype, integer)


def tensor(array: Array) -> Any:
    return None if array is None else torch.from_numpy(array.copy())


@PROPERTY
@given(case=cases())
def test_quantize_rounds_half_to_even_shifts_and_clips(case: Any) -> None:
    """Many inputs lie half-way between two steps, and many outside the range."""
    shape, scale, axis, zero, wide, (rng, dtype, integer) = case
    halves = rng.integers(-700, 700, shape)  # in half steps
    x = (halves / 2 * scale.reshape(wide)).astype(dtype)
    even = halves // 2 + (halves % 2) * ((halves // 2) % 2)  # integer arithmetic: n + 1/2 goes to the even neighbour
    limits = np.iinfo(integer)
    expected = np.clip(even + (0 if zero is None else zero.reshape(wide).astype(int)), limits.min, limits.max)
    actual = ops.quantize(torch.from_numpy(x), tensor(scale), np.dtype(integer).name, tensor(zero), axis)
    np.testing.assert_array_equal(actual.numpy(), expected)


@PROPERTY
@given(case=cases())
def test_dequantize_is_scale_times_the_distance_from_zero_point(case: Any) -> None:
    shape, scale, axis, zero, wide, (rng, dtype, integer) = case
    limits = np.iinfo(integer)
    x = rng.integers(limits.min, limits.max + 1, shape).astype(integer)
    scale = np.asarray(scale * rng.uniform(0.5, 2), dtype)
    steps = x.astype(int) - (0 if zero is None else zero.reshape(wide).astype(int))
    actual = ops.dequantize(torch.from_numpy(x), tensor(scale), tensor(zero), axis)
    assert actual.numpy().dtype == dtype
    np.testing.assert_allclose(actual.numpy(), steps * scale.reshape(wide).astype(np.float64), rtol=1e-6 if dtype == np.float32 else 1e-15)


@PROPERTY
@given(case=cases())
def test_quantize_undoes_dequantize(case: Any) -> None:
    shape, scale, axis, zero, _, (rng, _, integer) = case
    x = torch.from_numpy(rng.integers(np.iinfo(integer).min, np.iinfo(integer).max + 1, shape).astype(integer))
    real = ops.dequantize(x, tensor(scale), tensor(zero), axis)
    assert ops.quantize(real, tensor(scale), np.dtype(integer).name, tensor(zero), axis).tolist() == x.tolist()


@pytest.mark.parametrize(("dtype", "limits"), [("int8", [-128, 127]), ("uint8", [0, 255])])
def test_quantize_clips_infinities(dtype: str, limits: list[int]) -> None:
    assert ops.quantize(torch.tensor([-torch.inf, torch.inf]), torch.tensor(0.1), dtype).tolist() == limits


X, ONE = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor(1.0)
ZERO = torch.tensor(0, dtype=torch.int8)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("output_dtype 'int16' is neither", (X, ONE, "int16")),
        ("zero_point is torch.int8, output_dtype 'uint8'", (X, ONE, "uint8", ZERO)),
        ("scale is 0", (X, torch.tensor(0.0), "int8")),
        ("a value is not a number", (torch.tensor([torch.nan]), ONE, "int8")),
        ("a value is not a number", (torch.zeros(2), torch.tensor([0.0, 1.0]), "int8", None, 0)),
        (r"of shape \[\] along axis 0", (X, ONE, "int8", None, 0)),
        (r"of shape \[1\] along axis None", (X, ONE.reshape(1), "int8")),
        (r"of shape \[2\] along axis 1 of \[1, 3\]", (X, torch.ones(2), "int8", None, 1)),
        (r"of shape \[1\] along axis 1 of \[1, 3\]", (X, torch.ones(3), "int8", ZERO.reshape(1), 1)),
        (r"of shape \[3\] along axis 2", (X, torch.ones(3), "int8", None, 2)),
        (r"of shape \[3\] along axis -3", (X, torch.ones(3), "int8", None, -3)),
        (r"of shape \[1, 3\] along axis 1", (X, torch.ones(1, 3), "int8", None, 1)),
    ],
)
def test_quantize_refuses(message: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ArtifactError, match=message):
        ops.quantize(*arguments)


@pytest.mark.parametrize(("scale", "zero", "axis"), [((2,), None, 1), ((), None, 0), ((3,), (2,), 1), ((1,), None, None)])
def test_dequantize_refuses_parameters_that_do_not_fit(scale: Any, zero: Any, axis: int | None) -> None:
    with pytest.raises(ArtifactError, match="scale or zero point of shape"):
        ops.dequantize(X.to(torch.int8), torch.ones(scale), None if zero is None else torch.zeros(zero, dtype=torch.int8), axis)


@pytest.mark.parametrize("axis", [None, 1])
def test_meta_tensors_give_the_real_shape(axis: int | None) -> None:
    scale, zero = torch.ones(() if axis is None else 3), torch.zeros(() if axis is None else 3, dtype=torch.int8)
    quantized = ops.quantize(X, scale, "int8", zero, axis)
    meta = ops.quantize(X.to("meta"), scale.to("meta"), "int8", zero.to("meta"), axis)
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (quantized.shape, quantized.dtype)
    back = ops.dequantize(meta.to(torch.int8), scale.to("meta"), zero.to("meta"), axis)
    assert back.is_meta
    assert (back.shape, back.dtype) == (X.shape, X.dtype)
