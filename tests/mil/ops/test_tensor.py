"""Joining, splitting, sorting, padding and filling against NumPy, Python's own sorting and sums, and the definitions' examples."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import tensor as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
DTYPES = ("float32", "float64", "int32", "int8", "bool")
NUMBERS = ("float32", "float64", "int32", "int8")


@st.composite
def arrays(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPES, min_dims: int = 1, max_dims: int = 4, least: int = 1) -> Array:
    """Whole numbers -9 to 9, so that sums are exact and equal values occur."""
    shape = draw(st.lists(st.integers(least, 4), min_size=min_dims, max_size=max_dims))
    values = np.random.default_rng(draw(st.integers(0, 2**32))).integers(-9, 10, shape)
    dtype = draw(st.sampled_from(dtypes))
    return np.asarray(values > 0 if dtype == "bool" else values, dtype)


def same(result: torch.Tensor, expected: Array) -> None:
    assert result.numpy().dtype == expected.dtype
    assert tuple(result.shape) == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)


def an_axis(draw: Any, rank: int) -> tuple[int, int]:
    """An axis, and a way to write it."""
    axis = draw(st.integers(0, rank - 1))
    return axis, axis - rank if draw(st.booleans()) else axis


@PROPERTY
@given(x=arrays(), data=st.data())
def test_concat_is_that_of_numpy(x: Array, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    values = [np.roll(np.repeat(x, size, axis), number) for number, size in enumerate(sizes)]
    same(ops.concat(tuple(map(torch.from_numpy, values)), asked), np.concatenate(values, axis))


@PROPERTY
@given(x=arrays(), count=st.integers(1, 4), data=st.data())
def test_interleaved_every_nth_slice_is_the_nth_tensors(x: Array, count: int, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    values = [np.roll(x, number) for number in range(count)]
    expected = np.empty([size * count if each == axis else size for each, size in enumerate(x.shape)], x.dtype)
    for number, value in enumerate(values):
        expected[(slice(None),) * axis + (slice(number, None, count),)] = value
    same(ops.concat(tuple(map(torch.from_numpy, values)), asked, True), expected)


@pytest.mark.parametrize("interleave", [False, True])
def test_scalars_are_joined_to_a_vector(interleave: bool) -> None:
    assert ops.concat((torch.tensor(3), torch.tensor(1), torch.tensor(2)), 0, interleave).tolist() == [3, 1, 2]


@PROPERTY
@given(x=arrays(min_dims=0), count=st.integers(1, 4), data=st.data())
def test_stack_gives_each_tensor_a_place_along_a_new_axis(x: Array, count: int, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim + 1)
    values = [np.asarray(np.roll(x, number)) for number in range(count)]
    result = ops.stack(tuple(map(torch.from_numpy, values)), asked)
    assert result.ndim == x.ndim + 1
    assert result.shape[axis] == count
    for number, value in enumerate(values):
        same(result[(slice(None),) * axis + (number,)], value)


@PROPERTY
@given(x=arrays(), data=st.data())
def test_split_cuts_at_the_sums_of_the_sizes(x: Array, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    cuts = sorted(data.draw(st.lists(st.integers(0, x.shape[axis]), max_size=3)))
    sizes = tuple(b - a for a, b in itertools.pairwise([0, *cuts, x.shape[axis]]))
    count = data.draw(st.sampled_from([None, len(sizes)]))
    pieces = ops.split(torch.from_numpy(x), asked, count, sizes)
    for piece, expected in zip(pieces, np.split(x, cuts, axis), strict=True):
        same(piece, expected)


@PROPERTY
@given(x=arrays(), count=st.integers(1, 3), data=st.data())
def test_split_into_equal_pieces(x: Array, count: int, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    x = np.concatenate([np.roll(x, number) for number in range(count)], axis)
    for piece, expected in zip(ops.split(torch.from_numpy(x), asked, count), np.split(x, count, axis), strict=True):
        same(piece, expected)


@PROPERTY
@given(x=arrays(), data=st.data())
def test_tile_repeats_the_whole(x: Array, data: Any) -> None:
    reps = data.draw(st.tuples(*[st.integers(1, 3)] * x.ndim))
    expected = np.empty([size * times for size, times in zip(x.shape, reps, strict=True)], x.dtype)
    for place in np.ndindex(*expected.shape):
        expected[place] = x[tuple(i % size for i, size in zip(place, x.shape, strict=True))]
    same(ops.tile(torch.from_numpy(x), reps), expected)


@pytest.mark.parametrize(("mode", "numpys"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")])
@PROPERTY
@given(x=arrays(("float32", "float64")), value=st.sampled_from([0.0, 0.5, -math.inf]), data=st.data())
def test_pad_is_numpys_of_the_last_axes(mode: str, numpys: str, x: Array, value: float, data: Any) -> None:
    axes = data.draw(st.integers(0, x.ndim))
    most = [min(3, size - 1) if mode == "reflect" else 3 for size in x.shape[x.ndim - axes :]]
    pads = [data.draw(st.tuples(st.integers(0, each), st.integers(0, each))) for each in most]
    options = {"constant_values": value} if mode == "constant" else {}
    expected = np.pad(x, [(0, 0)] * (x.ndim - axes) + pads, numpys, **options)
    same(ops.pad(torch.from_numpy(x), tuple(itertools.chain(*pads)), mode, value), expected)


def test_pad_fills_with_zeros_unless_told_otherwise() -> None:
    assert ops.pad(torch.tensor([[1.0, 2.0]]), (1, 0, 0, 2)).tolist() == [[0, 0, 0, 0], [1, 2, 0, 0]]


@PROPERTY
@given(shape=st.lists(st.integers(0, 4), max_size=4).map(tuple), value=st.sampled_from([2.5, -3, True, False]))
def test_fill_and_fill_like_repeat_one_value(shape: tuple[int, ...], value: Any) -> None:
    expected = np.full(shape, value, np.float32 if isinstance(value, float) else None)
    for result in (ops.fill(shape, torch.tensor(value)), ops.fill_like(torch.ones(shape, dtype=torch.int8), torch.tensor(value))):
        same(result, expected)
    for result in (ops.fill(shape), ops.fill_like(torch.ones(shape))):
        same(result, np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((3,), -1, (1, 3)),  # the definition's own examples
        ((3,), 1, (3, 1)),
        ((4, 3), -1, (4, 3)),
        ((2, 3, 2), -1, (6, 2)),
        ((5, 5, 2), 1, (5, 10)),
        ((5, 5, 2), 0, (1, 50)),
        ((5, 5, 2), 3, (50, 1)),
        ((2, 3, 4), -2, (2, 12)),
    ],
)
def test_flatten2d_cuts_the_shape_in_two(shape: tuple[int, ...], axis: int, expected: tuple[int, int]) -> None:
    values = np.arange(math.prod(shape), dtype=np.float32)
    same(ops.flatten2d(torch.from_numpy(values.reshape(shape)), axis), values.reshape(expected))
    assert ops.flatten2d(torch.zeros(2, 3, 4)).shape == (2, 12)


@PROPERTY
@given(x=arrays(min_dims=0, least=0))
def test_shape_is_a_vector_of_lengths(x: Array) -> None:
    result = ops.shape(torch.from_numpy(x))
    assert not result.is_floating_point()
    assert result.tolist() == list(x.shape)


@PROPERTY
@given(start=st.integers(-20, 20), end=st.integers(-20, 20), step=st.sampled_from([-7, -2, -1, 1, 2, 3, 50]), scale=st.sampled_from([1, 4]))
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.float64])
def test_range_1d_counts_up_to_the_end_and_not_to_it(start: int, end: int, step: int, scale: int, dtype: torch.dtype) -> None:
    scale = 1 if dtype == torch.int32 else scale
    first, last, stride = (Fraction(each, scale) for each in (start, end, step))
    expected, value = [], first
    while (last - value) * stride > 0:
        expected.append(value)
        value += stride
    result = ops.range_1d(*(torch.tensor(float(each)).to(dtype) for each in (first, last, stride)))
    assert result.dtype == dtype
    assert result.tolist() == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(end=st.integers(1, 60), step=st.integers(1, 9), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_range_1d_has_as_many_elements_as_the_definition_counts_in_float32(end: int, step: int, dtype: torch.dtype) -> None:
    """Tenths, hardly any of which float32 holds: in float64, 0 to 0.3 by 0.1 would be four."""
    last, stride = np.float32(end / 10), np.float32(step / 10)
    result = ops.range_1d(torch.tensor(0, dtype=dtype), torch.tensor(last).to(dtype), torch.tensor(stride).to(dtype))
    count = math.ceil((last - np.float32(0)) / stride)
    assert len(result) == count
    np.testing.assert_allclose(result.double().numpy(), np.arange(count) * float(stride), rtol=1e-6)


@PROPERTY
@given(indices=arrays(("int32", "int8"), 0, 3), size=st.integers(0, 6), data=st.data())
def test_one_hot_marks_the_index_and_nothing_for_one_outside(indices: Array, size: int, data: Any) -> None:
    axis, asked = an_axis(data.draw, indices.ndim + 1)
    on, off = data.draw(st.sampled_from([(None, None), (2.5, -1.0), (5, None), (True, False), (7, 9)]))
    marks = np.full((*indices.shape[:axis], size, *indices.shape[axis:]), 0 if off is None else off, None if on is None else type(on))
    for place in np.ndindex(*indices.shape):
        if 0 <= indices[place] < size:
            marks[(*place[:axis], indices[place], *place[axis:])] = 1 if on is None else on
    given_on, given_off = (None if each is None else torch.tensor(each) for each in (on, off))
    result = ops.one_hot(torch.from_numpy(indices), size, asked, given_on, given_off)
    assert tuple(result.shape) == marks.shape
    assert result.dtype == (torch.int64 if on is None else torch.tensor(on).dtype)
    np.testing.assert_array_equal(result.numpy(), marks)
    if asked == -1:
        assert torch.equal(ops.one_hot(torch.from_numpy(indices), size, on_value=given_on, off_value=given_off), result)


@PROPERTY
@given(x=arrays(min_dims=1, least=0))
def test_non_zero_lists_the_places_in_row_major_order(x: Array) -> None:
    result = ops.non_zero(torch.from_numpy(x))
    expected = [list(place) for place in np.ndindex(*x.shape) if x[place] != 0]
    assert result.shape == (len(expected), x.ndim)
    assert result.tolist() == expected


@PROPERTY
@given(x=arrays(min_dims=2), lower=st.integers(-2, 3), upper=st.integers(-2, 3))
def test_band_part_keeps_what_is_near_the_diagonal(x: Array, lower: int, upper: int) -> None:
    expected = x.copy()
    for *_, m, n in (places := list(np.ndindex(*x.shape))):
        if not ((lower < 0 or m - n <= lower) and (upper < 0 or n - m <= upper)):
            expected[..., m, n] = 0
    assert len(places) == x.size
    same(ops.band_part(torch.from_numpy(x), lower, upper), expected)
    if lower == upper == -1:
        same(ops.band_part(torch.from_numpy(x)), x)


def test_band_part_of_what_is_not_finite_is_zero_outside_the_band() -> None:
    x = torch.full((2, 2), math.inf)
    x[1, 0] = math.nan
    assert ops.band_part(x, 0, 0).tolist() == [[math.inf, 0], [0, math.inf]]


@PROPERTY
@given(x=arrays(NUMBERS), exclusive=st.booleans(), reverse=st.booleans(), data=st.data())
def test_cumsum_adds_what_stands_on_one_side(x: Array, exclusive: bool, reverse: bool, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    length, expected = x.shape[axis], np.empty(x.shape, np.int64)
    for i in range(length):
        side = [j for j in range(length) if (j > i if reverse else j < i) or (j == i and not exclusive)]
        expected[(slice(None),) * axis + (i,)] = x.take(side, axis).astype(np.int64).sum(axis) if side else 0
    before, tensor = x.copy(), torch.from_numpy(x)
    result = ops.cumsum(tensor, asked, exclusive, reverse)
    np.testing.assert_array_equal(result.numpy(), expected)
    np.testing.assert_array_equal(x, before)
    assert result.is_floating_point() == tensor.is_floating_point()
    assert not result.is_floating_point() or result.dtype == tensor.dtype


def test_cumsum_goes_along_axis_0_unless_told_otherwise() -> None:
    assert ops.cumsum(torch.tensor([[1, 2], [3, 4]])).tolist() == [[1, 2], [4, 6]]


def sorted_places(line: Array, ascending: bool) -> list[int]:
    """Python's sort keeps the order of equal values."""
    return sorted(range(len(line)), key=lambda place: line[place] if ascending else -int(line[place]))


@PROPERTY
@given(x=arrays(("float32", "float64", "int32", "uint8")), ascending=st.booleans(), data=st.data())
def test_argsort_keeps_the_order_of_equal_values(x: Array, ascending: bool, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    expected = np.apply_along_axis(sorted_places, axis, x.astype(np.int64), ascending)
    result = ops.argsort(torch.from_numpy(x), asked, ascending)
    assert not result.is_floating_point()
    np.testing.assert_array_equal(result.numpy(), expected)
    if axis == x.ndim - 1 and not ascending:
        assert torch.equal(ops.argsort(torch.from_numpy(x)), result)


@PROPERTY
@given(x=arrays(("float32", "float64", "int32", "uint8")), ascending=st.booleans(), sort=st.booleans(), data=st.data())
def test_topk_are_the_first_of_the_sorted(x: Array, ascending: bool, sort: bool, data: Any) -> None:
    axis, asked = an_axis(data.draw, x.ndim)
    k = data.draw(st.sampled_from([-1, *range(1, x.shape[axis] + 1)]))
    places = np.apply_along_axis(sorted_places, axis, x.astype(np.int64), ascending)
    places = places.take(range(x.shape[axis] if k == -1 else k), axis)
    values, indices = ops.topk(torch.from_numpy(x), k, asked, ascending, sort)
    same(values, np.take_along_axis(x, places, axis))
    np.testing.assert_array_equal(indices.numpy(), places)
    alone = ops.topk(torch.from_numpy(x), k, asked, ascending, sort, return_indices=False)
    assert isinstance(alone, torch.Tensor)
    same(alone, values.numpy())


def test_topk_is_the_largest_of_each_row_unless_told_otherwise() -> None:
    values, indices = ops.topk(torch.tensor([[1.0, 3.0, 2.0], [6.0, 5.0, 6.0]]))
    assert values.tolist() == [[3], [6]]
    assert indices.tolist() == [[1], [0]]


X = torch.arange(6.0).reshape(2, 3)
ONE, HUGE = torch.tensor(1.0), 2**20


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("concat of nothing", lambda: ops.concat((), 0)),
        ("axis 2", lambda: ops.concat((X, X), 2, True)),
        ("num_splits 2 does not divide", lambda: ops.split(X, 1, 2)),
        ("num_splits None", lambda: ops.split(X, 1)),
        ("num_splits 0", lambda: ops.split(X, 1, 0)),
        ("split_sizes", lambda: ops.split(X, 1, None, (1, 1))),
        ("split_sizes", lambda: ops.split(X, 1, None, (4, -1))),
        ("num_splits 3", lambda: ops.split(X, 1, 3, (1, 2))),
        ("reps", lambda: ops.tile(X, (2,))),
        ("reps", lambda: ops.tile(X, (2, -1))),
        ("pairs", lambda: ops.pad(X, (1,))),
        ("pairs", lambda: ops.pad(X, (0,) * 6)),
        ("none negative", lambda: ops.pad(X, (1, -1))),
        ("mode 'wrap'", lambda: ops.pad(X, (1, 1), "wrap")),
        ("reflect padding of 0 and 3", lambda: ops.pad(X, (0, 3), "reflect")),
        ("replicate padding", lambda: ops.pad(X[:, :0], (1, 0), "replicate")),
        ("more than", lambda: ops.pad(X, (0, HUGE * HUGE), "replicate")),
        ("more than", lambda: ops.pad(X, (0, HUGE * HUGE))),
        ("shape", lambda: ops.fill((2, -1))),
        ("more than", lambda: ops.fill((HUGE, HUGE))),
        ("in steps of 0", lambda: ops.range_1d(ONE, ONE, ONE * 0)),
        ("in steps of 0", lambda: ops.range_1d(ONE.int(), 2 * ONE.int(), ONE.int() * 0)),
        ("to inf", lambda: ops.range_1d(ONE, ONE * math.inf, ONE)),
        ("from nan", lambda: ops.range_1d(ONE * math.nan, ONE, ONE)),
        ("in steps of inf", lambda: ops.range_1d(ONE, 2 * ONE, ONE * math.inf)),
        ("elements, more than", lambda: ops.range_1d(ONE, ONE * 1e30, ONE)),
        ("one_hot_vector_size -1", lambda: ops.one_hot(torch.tensor([1]), -1)),
        ("axis 2", lambda: ops.one_hot(torch.tensor([1]), 3, 2)),
        ("axis 2", lambda: ops.cumsum(X, 2)),
        ("axis 0 of a tensor of rank 0", lambda: ops.cumsum(ONE)),
        ("k 4", lambda: ops.topk(X, 4)),
        ("k -2", lambda: ops.topk(X, -2)),
    ],
)
def test_what_does_not_fit_is_refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


PLAIN: dict[str, Callable[[torch.Tensor], Any]] = {
    "argsort": ops.argsort,
    "band_part": lambda x: ops.band_part(x, 0, 1),
    "concat": lambda x: ops.concat((x, x), 0),
    "concat-interleave": lambda x: ops.concat((x, x), 1, True),
    "cumsum": lambda x: ops.cumsum(x, 1, True, True),
    "fill_like": lambda x: ops.fill_like(x, torch.tensor(3)),
    "flatten2d": lambda x: ops.flatten2d(x, -1),
    "one_hot": lambda x: ops.one_hot(x.int(), 4, 0),
    "one_hot-values": lambda x: ops.one_hot(x.int(), 4, 1, torch.tensor(2.0), torch.tensor(1.0)),
    "pad": lambda x: ops.pad(x, (1, 2)),
    "pad-reflect": lambda x: ops.pad(x, (1, 0, 1, 2), "reflect"),
    "pad-replicate": lambda x: ops.pad(x, (1, 0, 1, 2), "replicate"),
    "shape": ops.shape,
    "split": lambda x: ops.split(x, 1, None, (1, 2)),
    "stack": lambda x: ops.stack((x, x), -1),
    "tile": lambda x: ops.tile(x, (2, 3)),
    "topk": lambda x: ops.topk(x, 2, 0),
}


@pytest.mark.parametrize("name", PLAIN)
def test_shapes_come_without_values_and_the_input_stays(name: str) -> None:
    x = X.clone()
    results, without = ([each] if isinstance(each, torch.Tensor) else each for each in (PLAIN[name](x), PLAIN[name](x.to("meta"))))
    for result, shape_only in zip(results, without, strict=True):
        assert shape_only.shape == result.shape
        assert shape_only.dtype == result.dtype
    assert torch.equal(x, X)
