"""Normalisations against their formulas in NumPy, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import normalization as ops

Array = Any
PROPERTY = settings(max_examples=30, deadline=None, derandomize=True)
EPSILON = st.sampled_from([0.0, 1e-5, 0.01, 2.0])


@st.composite
def images(draw: Any, least: int, most: int, side: int = 5) -> tuple[Array, np.random.Generator]:
    """x with mean and spread other than 0 and 1, and where to take parameters from."""
    shape = [draw(st.integers(1, side)) for _ in range(draw(st.integers(least, most)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return (rng.normal(size=shape) * 3 + rng.normal()).astype(dtype), rng


def optional(rng: np.random.Generator, shape: Any, dtype: Any) -> torch.Tensor | None:
    return torch.from_numpy(rng.normal(size=shape).astype(dtype)) if rng.random() < 0.7 else None


def value(parameter: torch.Tensor | None, default: float, shape: Any) -> Array:
    return default if parameter is None else parameter.numpy().astype(np.float64).reshape(shape)


def agree(result: torch.Tensor, expected: Array, dtype: Any) -> None:
    assert result.numpy().dtype == dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, *((1e-4, 1e-4) if dtype == np.float32 else (1e-10, 1e-10)))


@PROPERTY
@given(case=images(3, 5), epsilon=EPSILON)
def test_batch_norm(case: tuple[Array, np.random.Generator], epsilon: float) -> None:
    x, rng = case
    channels, column = x.shape[1], (-1, *(1,) * (x.ndim - 2))
    mean, variance = (torch.from_numpy(v.astype(x.dtype)) for v in (rng.normal(size=channels), rng.uniform(0.5, 2, size=channels)))
    gamma, beta = (optional(rng, channels, x.dtype) for _ in range(2))
    spread = np.sqrt(value(variance, 0, column) + epsilon)
    expected = (x - value(mean, 0, column)) / spread * value(gamma, 1, column) + value(beta, 0, column)
    agree(ops.batch_norm(torch.from_numpy(x), mean, variance, gamma, beta, epsilon), expected, x.dtype)


@PROPERTY
@given(case=images(3, 4), epsilon=st.sampled_from([1e-3, 0.01, 2.0]))
def test_instance_norm(case: tuple[Array, np.random.Generator], epsilon: float) -> None:
    x, rng = case
    axes, column = tuple(range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))
    gamma, beta = (optional(rng, x.shape[1], x.dtype) for _ in range(2))
    y = x.astype(np.float64)
    normal = (y - y.mean(axes, keepdims=True)) / np.sqrt(y.var(axes, keepdims=True) + epsilon)
    expected = normal * value(gamma, 1, column) + value(beta, 0, column)
    agree(ops.instance_norm(torch.from_numpy(x), gamma, beta, epsilon), expected, x.dtype)


@PROPERTY
@given(case=images(1, 5, 4), epsilon=st.sampled_from([1e-3, 0.01, 2.0]), data=st.data())
def test_layer_norm(case: tuple[Array, np.random.Generator], epsilon: float, data: Any) -> None:
    x, rng = case
    axes = data.draw(st.none() | st.lists(st.integers(0, x.ndim - 1), min_size=1, unique=True))
    given_axes = None if axes is None else tuple(axis - x.ndim * int(rng.integers(2)) for axis in axes)
    over = tuple(range(x.ndim)) if axes is None else tuple(sorted(axes))
    shape, wide = [x.shape[i] for i in over], [n if i in over else 1 for i, n in enumerate(x.shape)]
    gamma, beta = (optional(rng, shape, x.dtype) for _ in range(2))
    y = x.astype(np.float64)
    normal = (y - y.mean(over, keepdims=True)) / np.sqrt(y.var(over, keepdims=True) + epsilon)
    expected = normal * value(gamma, 1, wide) + value(beta, 0, wide)
    agree(ops.layer_norm(torch.from_numpy(x), given_axes, gamma, beta, epsilon), expected, x.dtype)


@PROPERTY
@given(case=images(3, 5, 4), epsilon=st.sampled_from([1e-6, 0.01, 2.0]))
def test_l2_norm(case: tuple[Array, np.random.Generator], epsilon: float) -> None:
    x, _ = case
    rows = x.astype(np.float64).reshape(-1, int(np.prod(x.shape[-3:])))
    expected = np.stack([row / np.sqrt(row @ row + epsilon) for row in rows]).reshape(x.shape)
    agree(ops.l2_norm(torch.from_numpy(x), epsilon), expected, x.dtype)


@PROPERTY
@given(case=images(3, 5), size=st.integers(1, 6), alpha=st.floats(0, 2), beta=st.floats(0.1, 2), k=st.floats(0.5, 2))
def test_local_response_norm(case: tuple[Array, np.random.Generator], size: int, alpha: float, beta: float, k: float) -> None:
    """Channels are axis 1; with rank 3, axis 0."""
    x, _ = case
    y = np.moveaxis(x.astype(np.float64), min(1, x.ndim - 3), 0)
    expected = np.empty_like(y)
    for c in range(len(y)):
        near = [y[j] ** 2 for j in range(c - size // 2, c - size // 2 + size) if 0 <= j < len(y)]
        expected[c] = y[c] / (k + alpha / size * sum(near)) ** beta
    expected = np.moveaxis(expected, 0, min(1, x.ndim - 3))
    agree(ops.local_response_norm(torch.from_numpy(x), size, alpha, beta, k), expected, x.dtype)


def test_local_response_norm_of_rank_3_is_that_of_apples_test() -> None:
    x = torch.tensor([[[1.0, -7.0], [5.0, -6.0], [-3.0, -5.0]]])
    expected = [[[0.99996257, -6.98716545], [4.99531746, -5.99191284], [-2.99898791, -4.99531746]]]
    torch.testing.assert_close(ops.local_response_norm(x, 2), torch.tensor(expected), rtol=1e-6, atol=0)


ONES = torch.ones(4)


@pytest.mark.parametrize(
    ("function", "x", "arguments", "message"),
    [
        (ops.batch_norm, torch.ones(2, 4), (ONES, ONES), "rank 2"),
        (ops.batch_norm, torch.ones(2, 4, 3), (ONES, torch.ones(1)), "variance has shape"),
        (ops.instance_norm, torch.ones(2, 4, 3, 2, 2), (), "rank 5"),
        (ops.instance_norm, torch.ones(2, 4, 3), (torch.ones(3),), "gamma has shape"),
        (ops.l2_norm, torch.ones(2, 4), (), "rank 2"),
        (ops.layer_norm, torch.ones(2, 4), ((2,),), "axes"),
        (ops.layer_norm, torch.ones(2, 4), ((),), "axes"),
        (ops.layer_norm, torch.ones(2, 4), ((1,), torch.ones(2)), "gamma has shape"),
        (ops.layer_norm, torch.ones(2, 4), ((1,), None, torch.ones(2)), "beta has shape"),
        (ops.local_response_norm, torch.ones(2, 4), (1,), "rank 2"),
        (ops.local_response_norm, torch.ones(2, 4, 2), (0,), "size 0"),
    ],
)
def test_what_does_not_fit_is_refused(function: Any, x: torch.Tensor, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        function(x, *arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ops.batch_norm, (ONES, ONES, ONES, ONES)),
        (ops.batch_norm, (ONES, ONES)),
        (ops.instance_norm, (ONES, ONES)),
        (ops.instance_norm, ()),
        (ops.l2_norm, ()),
        (ops.layer_norm, ((1,), ONES, ONES)),
        (ops.layer_norm, ()),
        (ops.local_response_norm, (3,)),
    ],
)
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 3, 5)])
def test_meta_tensors_give_the_real_shape(function: Any, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    on_meta = (each.to("meta") if isinstance(each, torch.Tensor) else each for each in arguments)
    assert function(torch.ones(shape, device="meta"), *on_meta).shape == function(torch.ones(shape), *arguments).shape == shape
