"""Matrix products and attention against NumPy in float64, summed by another route."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import linear as ops

Array = Any
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
DTYPE = st.sampled_from([np.float32, np.float64, np.int32])
FLOAT = st.sampled_from([np.float32, np.float64])
SIZE = st.integers(1, 4)
SEED = st.integers(0, 2**32)


def numbers(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    return rng.integers(-9, 10, shape).astype(dtype) if dtype == np.int32 else rng.normal(size=shape).astype(dtype)


def agree(actual: torch.Tensor, expected: Array, dtype: Any) -> None:
    assert actual.numpy().dtype == dtype
    tolerance = {np.float32: 1e-5, np.float64: 1e-13, np.int32: 0}[dtype]
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance, strict=False)
    assert actual.shape == expected.shape


def product(x: Array, y: Array) -> Array:
    """x [..., i, k] times y [..., k, j]: the products, broadcast, summed over k in float64."""
    return (x[..., :, :, None].astype(np.float64) * y[..., None, :, :]).sum(-2)


@PROPERTY
@given(lead=st.lists(SIZE, max_size=3), sizes=st.tuples(SIZE, SIZE), biased=st.booleans(), dtype=DTYPE, seed=SEED)
def test_linear(lead: list[int], sizes: tuple[int, int], biased: bool, dtype: Any, seed: int) -> None:
    rng, (inner, outer) = np.random.default_rng(seed), sizes
    x, weight, bias = numbers(rng, [*lead, inner], dtype), numbers(rng, (outer, inner), dtype), numbers(rng, outer, dtype)
    expected = np.stack([(x.astype(np.float64) * row).sum(-1) for row in weight], -1) + (bias if biased else 0)
    actual = ops.linear(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(bias) if biased else None)
    agree(actual, expected, dtype)


@st.composite
def broadcast(draw: Any, most: int) -> tuple[list[int], list[int]]:
    """Two shapes that broadcast, of any ranks."""
    full = draw(st.lists(SIZE, max_size=most))
    x, y = ([draw(st.sampled_from([1, size])) for size in full] for _ in range(2))
    return x[draw(st.integers(0, len(x))) :], y


@PROPERTY
@given(lead=broadcast(3), sizes=st.tuples(SIZE, SIZE, SIZE), swap=st.tuples(st.booleans(), st.booleans()), dtype=DTYPE, seed=SEED)
def test_matmul(lead: Any, sizes: tuple[int, int, int], swap: tuple[bool, bool], dtype: Any, seed: int) -> None:
    rng, (i, k, j) = np.random.default_rng(seed), sizes
    x, y = numbers(rng, [*lead[0], i, k], dtype), numbers(rng, [*lead[1], k, j], dtype)
    given_x, given_y = (np.swapaxes(each, -1, -2).copy() if turn else each for each, turn in zip((x, y), swap, strict=True))
    agree(ops.matmul(torch.from_numpy(given_x), torch.from_numpy(given_y), *swap), product(x, y), dtype)


@PROPERTY
@given(lead=st.lists(SIZE, max_size=2), sizes=st.tuples(SIZE, SIZE), swap=st.booleans(), dtype=DTYPE, seed=SEED)
def test_matmul_of_a_vector_is_that_of_one_row(lead: list[int], sizes: tuple[int, int], swap: bool, dtype: Any, seed: int) -> None:
    rng, (k, j) = np.random.default_rng(seed), sizes
    x, y = numbers(rng, k, dtype), numbers(rng, [*lead, k, j], dtype)
    given_y = np.swapaxes(y, -1, -2).copy() if swap else y
    agree(ops.matmul(torch.from_numpy(x), torch.from_numpy(given_y), False, swap), product(x[None], y)[..., 0, :], dtype)


@pytest.mark.parametrize("equation", ["nchw,nwhu->nchu", "abcd,adce->abce", "zYxw,zwxv->zYxv", "chw,whr->chr", "vnm,mno->vno"])
@PROPERTY
@given(sizes=st.tuples(SIZE, SIZE, SIZE), batch=st.tuples(SIZE, SIZE), ones=st.lists(st.booleans(), min_size=4, max_size=4), data=st.data())
def test_einsum_of_every_allowed_equation(equation: str, sizes: Any, batch: Any, ones: list[bool], data: Any) -> None:
    """n and h may be 1 in either tensor."""
    rng, dtype, (c, w, u) = np.random.default_rng(data.draw(SEED)), data.draw(FLOAT), sizes
    n_x, h_x, n_y, h_y = (1 if one else size for one, size in zip(ones, batch * 2, strict=True))
    x, y = numbers(rng, (n_x, c, h_x, w), dtype), numbers(rng, (n_y, w, h_y, u), dtype)
    if len(equation.split(",")[0]) == 3:
        x, y = x[0], y[0]
    expected = sum(x[..., :, :, i, None].astype(np.float64) * y[..., i, None, :, :] for i in range(w))
    agree(ops.einsum((torch.from_numpy(x), torch.from_numpy(y)), equation), np.asarray(expected), dtype)


@PROPERTY
@given(
    lead=st.lists(SIZE, min_size=1, max_size=3),
    sizes=st.tuples(SIZE, SIZE, SIZE, SIZE),
    mask=st.sampled_from([None, "bool", "float"]),
    dtype=FLOAT,
    data=st.data(),
)
def test_scaled_dot_product_attention(lead: list[int], sizes: Any, mask: str | None, dtype: Any, data: Any) -> None:
    """Row by row: weights exp(score) / Σ exp(score), and their mean of the values; masked keys do not count."""
    rng, (length, keys, inner, outer) = np.random.default_rng(data.draw(SEED)), sizes
    query, key = numbers(rng, [*lead, length, inner], dtype), numbers(rng, [*lead, keys, inner], dtype)
    value = numbers(rng, [*lead, keys, outer], dtype)
    shape = [size if data.draw(st.booleans()) else 1 for size in (*lead, length)]
    shape = [*shape[data.draw(st.integers(0, len(shape))) :], keys]
    kept = rng.random(shape) < 0.6
    kept[..., int(rng.integers(keys))] = True
    bias = np.where(kept, rng.normal(size=shape), -np.inf if rng.random() < 0.5 else -3.0).astype(dtype)
    given_mask = {None: None, "bool": kept, "float": bias}[mask]
    full = [*lead, length, keys]
    added = np.zeros(full) if mask is None else np.broadcast_to(np.where(kept, 0, -np.inf) if mask == "bool" else bias, full)
    expected = np.empty([*lead, length, outer])
    for place in np.ndindex(*lead, length):
        where, row = place[:-1], query[place].astype(np.float64)
        weights = np.array([math.exp(float(row @ key[where][s]) / math.sqrt(inner) + added[place][s]) for s in range(keys)])
        expected[place] = sum(weights[s] * value[where][s].astype(np.float64) for s in range(keys)) / weights.sum()
    inputs = (torch.from_numpy(query), torch.from_numpy(key), torch.from_numpy(value))
    attn_mask = None if given_mask is None else torch.from_numpy(given_mask)
    agree(ops.scaled_dot_product_attention(*inputs, attn_mask), expected, dtype)


def test_attention_to_nothing_is_nan() -> None:
    """softmax of nothing but -inf: 0 / 0. Other rows are unharmed."""
    query, value = torch.zeros(1, 2, 3), torch.tensor([[[2.0], [4.0]]])
    mask = torch.tensor([[False, False], [True, True]])
    first, second = ops.scaled_dot_product_attention(query, query, value, mask)[0, :, 0].tolist()
    assert math.isnan(first)
    assert second == 3.0


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("message", "function", "arguments"),
    [
        (r"shapes \[\[2, 3\], \[4, 2\]\], not", ops.linear, (ones(2, 3), ones(4, 2))),
        (r"shapes \[\[2, 3\], \[3\]\], not", ops.linear, (ones(2, 3), ones(3))),
        (r"shapes \[\[2, 3\], \[4, 3\], \[1\]\], not", ops.linear, (ones(2, 3), ones(4, 3), ones(1))),
        (r"shapes \[\[\], \[4, 3\]\], not", ops.linear, (ones(), ones(4, 3))),
        ("y of rank 1, transpose_x=False", ops.matmul, (ones(2, 3), ones(3))),
        ("x of rank 1, y of rank 2, transpose_x=True", ops.matmul, (ones(3), ones(3, 2), True)),
        ("einsum of 1 tensors", ops.einsum, ((ones(2, 2, 2),), "chw,whr->chr")),
        ("einsum of 3 tensors", ops.einsum, ((ones(2, 2, 2),) * 3, "chw,whr->chr")),
        ("equation 'ij,jk->ik' is neither", ops.einsum, ((ones(2, 2), ones(2, 2)), "ij,jk->ik")),
        ("equation 'chw,whr->crh' is neither", ops.einsum, ((ones(2, 2, 2), ones(2, 2, 2)), "chw,whr->crh")),
        ("equation 'chw,whc->chc' is neither", ops.einsum, ((ones(2, 2, 2), ones(2, 2, 2)), "chw,whc->chc")),
        ("equation 'chw,whr' is neither", ops.einsum, ((ones(2, 2, 2), ones(2, 2, 2)), "chw,whr")),
        ("for tensors of rank 3 and 3", ops.einsum, ((ones(2, 2, 2), ones(2, 2, 2)), "nchw,nwhu->nchu")),
        ("for tensors of rank 3 and 4", ops.einsum, ((ones(2, 2, 2), ones(1, 2, 2, 2)), "chw,whr->chr")),
        ("they need one rank, 3 or more", ops.scaled_dot_product_attention, (ones(2, 3),) * 3),
        ("and the same leading axes", ops.scaled_dot_product_attention, (ones(2, 2, 3), ones(1, 2, 3), ones(2, 2, 3))),
        ("and the same leading axes", ops.scaled_dot_product_attention, (ones(1, 2, 3), ones(1, 2, 3), ones(2, 2, 3))),
        (r"attn_mask of shape \[4, 1\] for 2 keys", ops.scaled_dot_product_attention, (*(ones(1, 2, 3),) * 3, ones(4, 1))),
    ],
)
def test_refuses(message: str, function: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ArtifactError, match=message):
        function(*arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ops.linear, (ones(2, 5, 3), ones(4, 3), ones(4))),
        (ops.linear, (ones(3).int(), ones(4, 3).int(), ones(4).int())),
        (ops.matmul, (ones(5, 1, 3, 4), ones(6, 2, 3), True, True)),
        (ops.matmul, (ones(3), ones(2, 3, 4))),
        (ops.einsum, ((ones(1, 3, 4, 5), ones(2, 5, 1, 6)), "nchw,nwhu->nchu")),
        (ops.scaled_dot_product_attention, (ones(2, 7, 4, 3), ones(2, 7, 5, 3), ones(2, 7, 5, 6), ones(4, 5).bool())),
        (ops.scaled_dot_product_attention, (ones(2, 4, 3), ones(2, 5, 3), ones(2, 5, 6), ones(1, 5))),
    ],
)
def test_meta_tensors_give_the_real_shape_and_type(function: Any, arguments: tuple[Any, ...]) -> None:
    def to_meta(each: Any) -> Any:
        if isinstance(each, tuple):
            return tuple(map(to_meta, each))
        return each.to("meta") if isinstance(each, torch.Tensor) else each

    real, meta = function(*arguments), function(*to_meta(arguments))
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
