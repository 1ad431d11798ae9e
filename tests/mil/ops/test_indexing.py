"""Gathering and scattering against their index formulas, element by element, one update after the other."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import indexing as ops

Array = Any
Place = tuple[int, ...]
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
SIDES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
IOS = st.sampled_from([15, 16, 17, 18])
INDEX_TYPES = st.sampled_from([torch.int8, torch.uint8, torch.int16, torch.int32])


def numbered(shape: Place, dtype: Any) -> Array:
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


def places(draw: st.DrawFn, shape: Place, sizes: int | Array, ios: int) -> tuple[Array, torch.Tensor]:
    """Random indices below `sizes`, as they are meant and as a program might write them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    meant = np.asarray(rng.integers(0, sizes, shape))
    dtype = draw(INDEX_TYPES)
    negative = ios < 17 and dtype != torch.uint8
    written = np.where(rng.integers(0, 2, shape) == 1, meant - sizes, meant) if negative else meant
    return meant, torch.tensor(written.tolist(), dtype=dtype).reshape(shape)


def same(result: torch.Tensor, expected: Array) -> None:
    assert result.numpy().dtype == expected.dtype
    assert tuple(result.shape) == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)


@PROPERTY
@given(batch=SIDES, before=SIDES, size=st.integers(1, 4), after=SIDES, picked=SIDES, ios=IOS, data=st.data())
def test_gather_takes_what_the_indices_name(
    batch: Place, before: Place, size: int, after: Place, picked: Place, ios: int, data: Any
) -> None:
    x = numbered((*batch, *before, size, *after), data.draw(st.sampled_from([np.float32, np.float64, np.int32, np.int8])))
    axis, shared = len(batch) + len(before), len(batch)
    meant, indices = places(data.draw, (*batch, *picked), size, ios)
    expected = np.empty((*batch, *before, *picked, *after), x.dtype)
    for place in np.ndindex(*expected.shape):
        b, p, i, q = place[:shared], place[shared:axis], place[axis : axis + len(picked)], place[axis + len(picked) :]
        expected[place] = x[(*b, *p, meant[(*b, *i)], *q)]
    asked = axis - x.ndim if data.draw(st.booleans()) else axis
    same(ops.gather(torch.from_numpy(x), indices, ios, asked, shared, data.draw(st.booleans())), expected)


@PROPERTY
@given(before=SIDES, size=st.integers(1, 4), after=SIDES, count=st.integers(1, 5), ios=IOS, data=st.data())
def test_gather_along_axis_looks_each_element_up_in_its_own_line(
    before: Place, size: int, after: Place, count: int, ios: int, data: Any
) -> None:
    x, axis = numbered((*before, size, *after), data.draw(st.sampled_from([np.float32, np.int32]))), len(before)
    meant, indices = places(data.draw, (*before, count, *after), size, ios)
    expected = np.empty(meant.shape, x.dtype)
    for place in np.ndindex(*meant.shape):
        expected[place] = x[(*place[:axis], meant[place], *place[axis + 1 :])]
    same(ops.gather_along_axis(torch.from_numpy(x), indices, ios, axis - x.ndim if data.draw(st.booleans()) else axis), expected)


@PROPERTY
@given(batch=SIDES, sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), after=SIDES, picked=SIDES, ios=IOS, data=st.data())
def test_gather_nd_reads_coordinates_from_the_last_axis(
    batch: Place, sizes: list[int], after: Place, picked: Place, ios: int, data: Any
) -> None:
    x, shared = numbered((*batch, *sizes, *after), data.draw(st.sampled_from([np.float32, np.int32]))), len(batch)
    meant, indices = places(data.draw, (*batch, *picked, len(sizes)), np.array(sizes), ios)
    expected = np.empty((*batch, *picked, *after), x.dtype)
    for place in np.ndindex(*batch, *picked):
        expected[place] = x[(*place[:shared], *meant[place])]
    same(ops.gather_nd(torch.from_numpy(x), indices, ios, shared, data.draw(st.booleans())), expected)


MODES: dict[str, Callable[[Any, Any], Any]] = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new if isinstance(old, float) else (abs(old) // abs(new)) * (1 if old * new > 0 else -1),
    "max": max,
    "min": min,
}


@st.composite
def scatters(draw: st.DrawFn, kind: str) -> tuple[Array, Array, torch.Tensor, int, int, Iterator[tuple[Place, Place]]]:
    """data, updates, indices, opset, axis, and for each update where it goes, in row-major order."""
    before, after, ios = draw(SIDES), draw(SIDES), draw(IOS)
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, count, axis = draw(st.integers(1, 3)), draw(st.integers(1, 4)), len(before)  # often several updates for one place
    if kind == "scatter_nd":
        sizes, picked = (*before, size), (*draw(SIDES), count)
        meant, indices = places(draw, (*picked, len(sizes)), np.array(sizes), ios)
        updated = (*picked, *after)
        pairs = [((*meant[place[: len(picked)]].tolist(), *place[len(picked) :]), place) for place in np.ndindex(*updated)]
    else:
        updated = (*before, count, *after)
        meant, indices = places(draw, (count,) if kind == "scatter" else updated, size, ios)
        index = (lambda place: meant[place[axis]]) if kind == "scatter" else (lambda place: meant[place])
        pairs = [((*place[:axis], int(index(place)), *place[axis + 1 :]), place) for place in np.ndindex(*updated)]
    updates = rng.choice([-3, -2, -1, 1, 2, 3, 4], updated).astype(dtype)
    return rng.integers(-40, 40, (*before, size, *after)).astype(dtype), updates, indices, ios, axis, iter(pairs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["scatter", "scatter_along_axis", "scatter_nd"])
@PROPERTY
@given(data=st.data())
def test_updates_are_put_in_one_after_the_other(kind: str, mode: str, data: Any) -> None:
    before, updates, indices, ios, axis, pairs = data.draw(scatters(kind))
    expected, tensor = before.astype(object), torch.from_numpy(before.copy())
    for place, source in pairs:
        expected[place] = MODES[mode](expected[place], updates[source].item())
    named = {} if kind == "scatter_nd" else {"axis": axis - before.ndim if data.draw(st.booleans()) else axis}
    function: Callable[..., torch.Tensor] = getattr(ops, kind)
    result = function(tensor, indices, torch.from_numpy(updates), ios, **named, mode=mode).numpy()
    assert result.dtype == before.dtype
    if mode in ("mul", "div") and before.dtype == np.float32:
        np.testing.assert_allclose(result, expected.astype(np.float64), rtol=1e-6)
    elif mode == "div" and before.dtype == np.float64:
        np.testing.assert_allclose(result, expected.astype(np.float64), rtol=1e-14)
    else:
        np.testing.assert_array_equal(result, expected.astype(before.dtype))
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_scattering_adds_unless_told_otherwise() -> None:
    data, indices = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([1, 0])
    updates = torch.tensor([[5, 6, 7], [8, 9, 10]])
    expected = [[9, 11, 13], [9, 11, 13]]  # the definition's own example
    assert ops.scatter(data, indices, updates, 15).tolist() == expected
    assert ops.scatter_nd(data, indices[:, None], updates, 15).tolist() == expected
    assert ops.scatter_along_axis(data, indices[:, None].expand(2, 3), updates, 15).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_divisors_are_not_multiplied_into_an_overflow(dtype: torch.dtype) -> None:
    large = 1e30 if dtype == torch.float32 else 70_000
    data = torch.tensor([large, large], dtype=dtype)
    updates = torch.tensor([large, large], dtype=dtype)
    result = ops.scatter(data, torch.tensor([0, 0]), updates, 17, mode="div")
    np.testing.assert_allclose(result.double().numpy(), [1e-30 if dtype == torch.float32 else 0, large], rtol=1e-6)


X = torch.arange(6.0).reshape(3, 2)
REACHES: dict[str, Callable[[int, int, bool], torch.Tensor]] = {
    "gather": lambda i, ios, v: ops.gather(X, torch.tensor([0, i]), ios, 0, 0, v),
    "gather-batch": lambda i, ios, v: ops.gather(X.T.contiguous(), torch.tensor([[0], [i]]), ios, 1, 1, v),
    "gather_along_axis": lambda i, ios, v: ops.gather_along_axis(X, torch.tensor([[0, i]]), ios, 0, v),
    "gather_nd": lambda i, ios, v: ops.gather_nd(X, torch.tensor([[0, 0], [i, 1]]), ios, 0, v),
    "scatter": lambda i, ios, v: ops.scatter(X, torch.tensor([i]), X[:1], ios, 0, "add", v),
    "scatter_along_axis": lambda i, ios, v: ops.scatter_along_axis(X, torch.tensor([[0, i]]), X[:1], ios, 0, "add", v),
    "scatter_nd": lambda i, ios, v: ops.scatter_nd(X, torch.tensor([[i]]), X[:1], ios, "update", v),
}


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("name", REACHES)
def test_an_index_outside_is_refused_and_named(name: str, validate: bool) -> None:
    for index, ios in [(3, 15), (3, 18), (-4, 15), (-4, 16), (-1, 17), (-3, 18)]:
        with pytest.raises(ArtifactError, match=rf"index {index} into an axis of 3, iOS{ios}"):
            REACHES[name](index, ios, validate)
    for ios in (15, 16):
        assert torch.equal(REACHES[name](-1, ios, validate), REACHES[name](2, 18, validate))


ZEROS = torch.zeros(2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("axis 2", lambda: ops.gather(X, ZEROS, 17, 2)),
        ("axis 0 of a tensor of rank 0", lambda: ops.gather(torch.tensor(1.0), ZEROS, 17)),
        ("batch_dims 1 with axis 0", lambda: ops.gather(X, torch.zeros(3, 1, dtype=torch.int32), 17, 0, 1)),
        ("batch_dims 1", lambda: ops.gather(X, ZEROS, 17, 1, 1)),  # two rows of indices, three of x
        ("batch_dims -1", lambda: ops.gather(X, ZEROS, 17, 1, -1)),
        ("axis -3", lambda: ops.gather_along_axis(X, ZEROS[None], 17, -3)),
        ("may differ along axis 0 only", lambda: ops.gather_along_axis(X, ZEROS, 17)),
        ("may differ along axis 1 only", lambda: ops.gather_along_axis(X, ZEROS[None], 17, 1)),
        ("at most 2 coordinates", lambda: ops.gather_nd(X, torch.zeros(1, 3, dtype=torch.int32), 17)),
        ("at most 1 coordinates", lambda: ops.gather_nd(X, torch.zeros(3, 1, 2, dtype=torch.int32), 17, 1)),
        ("batch_dims 1", lambda: ops.gather_nd(X, torch.zeros(2, 1, 1, dtype=torch.int32), 17, 1)),
        ("coordinates", lambda: ops.gather_nd(X, torch.tensor(0), 17)),
        ("not one axis", lambda: ops.scatter(X, ZEROS[None], X, 17)),
        ("updates have shape", lambda: ops.scatter(X, ZEROS, X, 17)),
        ("mode 'sum' is none of", lambda: ops.scatter(X, ZEROS, X[:2], 17, 0, "sum")),
        ("updates", lambda: ops.scatter_along_axis(X, ZEROS[None], X[:2], 17)),
        ("may differ", lambda: ops.scatter_along_axis(X, ZEROS[:, None], X[:2, :1], 17)),
        ("updates", lambda: ops.scatter_nd(X, ZEROS[:, None], X, 17)),
    ],
)
def test_what_does_not_fit_is_refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


PLAIN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gather": lambda x, i: ops.gather(x, i, 17, 1),
    "gather-batch": lambda x, i: ops.gather(x, i[:, :3].T, 17, 1, 1),
    "gather_along_axis": lambda x, i: ops.gather_along_axis(x, i[:, :2], 17),
    "gather_nd": lambda x, i: ops.gather_nd(x, i, 17),
    "scatter": lambda x, i: ops.scatter(x, i[0, :1], x[:1], 17),
    "scatter_along_axis": lambda x, i: ops.scatter_along_axis(x, i[:, :2], x[:2], 17, mode="div"),
    "scatter_nd": lambda x, i: ops.scatter_nd(x, i[:, :1], x[:2], 17, mode="update"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_shapes_come_without_values_and_the_input_stays(name: str) -> None:
    x, indices = X.clone(), torch.zeros(2, 3 if name == "gather-batch" else 2, dtype=torch.int32)
    result = PLAIN[name](x, indices)
    without = PLAIN[name](x.to("meta"), indices.to("meta"))
    assert without.is_meta
    assert without.shape == result.shape
    assert without.dtype == result.dtype
    assert torch.equal(x, X)
