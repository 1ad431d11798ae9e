"""Ops that move values without changing them, against the index formula of each, element by element, or against NumPy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import shape as ops

Array = Any
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
DTYPES = ("float32", "float64", "int32", "int16", "uint8", "bool")


def numbered(shape: tuple[int, ...], dtype: str) -> Array:
    """Values that all differ as far as the type allows, so that none can be taken for another."""
    values = np.arange(math.prod(shape)).reshape(shape)
    return np.asarray(values % 3 == 1 if dtype == "bool" else values, dtype)


@st.composite
def arrays(draw: st.DrawFn, min_dims: int = 1, max_dims: int = 4, least: int = 1) -> Array:
    shape = draw(st.lists(st.integers(least, 4), min_size=min_dims, max_size=max_dims))
    return numbered(tuple(shape), draw(st.sampled_from(DTYPES)))


def same(result: torch.Tensor, expected: Array) -> None:
    assert result.numpy().dtype == expected.dtype
    assert tuple(result.shape) == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)


def some_axes(draw: Any, rank: int, unique: bool = True) -> tuple[int, ...]:
    """Different axes, each written from the front or from the back."""
    axes = draw(st.lists(st.integers(0, rank - 1), unique=unique, max_size=rank))
    return tuple(axis - rank if draw(st.booleans()) else axis for axis in axes)


@PROPERTY
@given(x=arrays(0), data=st.data())
def test_reshape_keeps_the_row_major_order_and_finds_the_size_left_out(x: Array, data: Any) -> None:
    rest, shape = x.size, []
    for _ in range(data.draw(st.integers(0, 3))):
        shape.append(data.draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0])))
        rest //= shape[-1]
    position = data.draw(st.integers(0, len(shape)))
    left_out = data.draw(st.booleans())
    asked = (*shape[:position], -1 if left_out else rest, *shape[position:])
    ios = data.draw(st.sampled_from([15, 16, 17, 18]))
    result = ops.reshape(torch.from_numpy(x), asked, ios)
    assert tuple(result.shape) == (*shape[:position], rest, *shape[position:])
    assert result.flatten().tolist() == x.flatten().tolist()


@pytest.mark.parametrize(
    ("ios", "own", "asked", "expected"),
    [
        (15, (2, 3, 4), (0, -1, 0), (2, 3, 4)),
        (16, (2, 3, 4), (0, 1, 12), (2, 1, 12)),
        (16, (2, 3, 4), (-1, 6, 0), (1, 6, 4)),
        (17, (2, 3, 4), (0, -1, 0), (2, 3, 4)),
        (17, (2, 50), (1, 0, -1, 0), (1, 1, 2, 50)),  # the definition's own example
        (17, (2, 3, 4), (-1, 0), (6, 4)),
        (18, (4,), (0, 0, 0), (1, 1, 4)),
        (18, (2, 3, 4), (0, 8), (3, 8)),  # the 0 stands above the 3
        (17, (2, 3, 4), (0, 12), None),
        (15, (2, 50), (1, 0, -1, 0), None),
        (16, (2, 3, 4), (-1, 0), None),
        (15, (0, 3), (0, 3), (0, 3)),  # nothing to copy: 0 is 0
        (17, (0, 3), (3, 0), (3, 0)),
    ],
)
def test_reshape_copies_lengths_by_opset(ios: int, own: tuple[int, ...], asked: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    x = torch.arange(math.prod(own)).reshape(own)
    if expected is None:
        with pytest.raises((ArtifactError, RuntimeError)):
            ops.reshape(x, asked, ios)
    else:
        same(ops.reshape(x, asked, ios), np.arange(math.prod(own)).reshape(expected))


@pytest.mark.parametrize(
    ("refs", "begins", "ends", "masks", "expected"),
    [
        ([(2, 3, 4), (1, 5, 6)], (0, 1), (2, 0), (False, True), (2, 3, 5, 6)),  # the definition's own example
        ([(7, 2), (5, 3, 9)], (-1, 0), (0, -1), (True, False), (2, 5, 3)),
        ([(4, 3)], (0,), (2,), (False,), (4, 3)),
        ([(4, 3), (2,)], (1, 0), (1, 1), (False, False), (2,)),  # nothing of the first
        ([(4, 3)], (1,), (1,), (True,), (3,)),  # a masked end is not looked at
    ],
)
def test_reshape_like_joins_parts_of_the_shapes(refs: Any, begins: Any, ends: Any, masks: Any, expected: tuple[int, ...]) -> None:
    x = torch.arange(math.prod(expected))
    tensors = tuple(torch.zeros(shape) for shape in refs)
    same(ops.reshape_like(x, tensors, begins, ends, masks), np.arange(math.prod(expected)).reshape(expected))


@PROPERTY
@given(x=arrays(0, 3), data=st.data())
def test_expand_dims_is_that_of_numpy(x: Array, data: Any) -> None:
    count = data.draw(st.integers(1, 3))
    rank = x.ndim + count
    axes = data.draw(st.lists(st.integers(0, rank - 1), unique=True, min_size=count, max_size=count))
    axes = tuple(axis - rank if data.draw(st.booleans()) else axis for axis in axes)
    same(ops.expand_dims(torch.from_numpy(x), axes), np.expand_dims(x, axes))


@PROPERTY
@given(shape=st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=5), data=st.data())
def test_squeeze_drops_the_named_axes_of_length_1_and_no_others(shape: list[int], data: Any) -> None:
    x = numbered(tuple(shape), "float32")
    axes = data.draw(st.none() | st.just(some_axes(data.draw, x.ndim)))
    named = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    expected = [size for axis, size in enumerate(shape) if size != 1 or axis not in named]
    same(ops.squeeze(torch.from_numpy(x), axes), x.reshape(expected))


@PROPERTY
@given(x=arrays(), data=st.data())
def test_transpose_puts_axis_perm_i_in_place_i(x: Array, data: Any) -> None:
    perm = data.draw(st.permutations(range(x.ndim)))
    asked = tuple(axis - x.ndim if data.draw(st.booleans()) else axis for axis in perm)
    expected = np.empty([x.shape[axis] for axis in perm], x.dtype)
    for place in np.ndindex(*x.shape):
        expected[tuple(place[axis] for axis in perm)] = x[place]
    same(ops.transpose(torch.from_numpy(x), asked), expected)


@PROPERTY
@given(x=arrays(0, least=0), data=st.data())
def test_reverse_turns_the_named_axes_round(x: Array, data: Any) -> None:
    axes = data.draw(st.none() | st.just(some_axes(data.draw, x.ndim))) if x.ndim else None
    expected = x
    for axis in range(x.ndim) if axes is None else axes:
        expected = np.take(expected, np.arange(x.shape[axis])[::-1], axis)
    same(ops.reverse(torch.from_numpy(x), axes), expected)


@PROPERTY
@given(x=arrays(2), data=st.data())
def test_reverse_sequence_turns_the_first_values_of_each_row_round(x: Array, data: Any) -> None:
    seq, batch = data.draw(st.permutations(range(x.ndim)))[:2]
    lengths = data.draw(st.lists(st.integers(0, x.shape[seq]), min_size=x.shape[batch], max_size=x.shape[batch]))
    expected = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        length, source = lengths[place[batch]], list(place)
        if place[seq] < length:
            source[seq] = length - 1 - place[seq]
        expected[place] = x[tuple(source)]
    seq_axis, batch_axis = (axis - x.ndim if data.draw(st.booleans()) else axis for axis in (seq, batch))
    given_lengths = torch.tensor(lengths, dtype=data.draw(st.sampled_from([torch.int8, torch.int32])))
    same(ops.reverse_sequence(torch.from_numpy(x), given_lengths, seq_axis, batch_axis), expected)


@PROPERTY
@given(x=arrays(), data=st.data())
def test_sliding_windows_stand_behind_their_axis(x: Array, data: Any) -> None:
    axis = data.draw(st.integers(0, x.ndim - 1))
    size, stride = data.draw(st.integers(1, x.shape[axis])), data.draw(st.integers(1, 3))
    windows = [np.take(x, range(start, start + size), axis) for start in range(0, x.shape[axis] - size + 1, stride)]
    expected = np.stack(windows, axis)
    result = ops.sliding_windows(torch.from_numpy(x), axis - x.ndim if data.draw(st.booleans()) else axis, size, stride)
    same(result, expected)
    assert result.shape[axis : axis + 2] == ((x.shape[axis] - size) // stride + 1, size)


BLOCK = st.integers(1, 3)
Source = Callable[[int, int, int, int, int, int], tuple[int, int, int, int]]
# (function, whether depth becomes space, where out[n, c, h, w] comes from, for blocks of b and x or out of `depth` channels)
BLOCKS: dict[str, tuple[Callable[..., torch.Tensor], bool, Source]] = {
    "depth_to_space": (ops.depth_to_space, True, lambda n, c, h, w, b, depth: (n, (h % b * b + w % b) * depth + c, h // b, w // b)),
    "pixel_shuffle": (ops.pixel_shuffle, True, lambda n, c, h, w, b, depth: (n, (c * b + h % b) * b + w % b, h // b, w // b)),
    "space_to_depth": (
        ops.space_to_depth, False, lambda n, c, h, w, b, depth: (n, c % depth, h * b + c // depth // b, w * b + c // depth % b)
    ),
    "pixel_unshuffle": (
        ops.pixel_unshuffle, False, lambda n, c, h, w, b, depth: (n, c // b**2, h * b + c % b**2 // b, w * b + c % b)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
@PROPERTY
@given(sizes=st.tuples(*[st.integers(1, 3)] * 4), block=BLOCK, dtype=st.sampled_from(DTYPES))
def test_blocks_move_between_depth_and_space_by_the_formula(name: str, sizes: tuple[int, ...], block: int, dtype: str) -> None:
    function, to_space, source = BLOCKS[name]
    n, depth, height, width = sizes
    deep, wide = (n, depth * block**2, height, width), (n, depth, height * block, width * block)
    x = numbered(deep if to_space else wide, dtype)
    expected = np.empty(wide if to_space else deep, x.dtype)
    for place in np.ndindex(*expected.shape):
        expected[place] = x[source(*place, block, depth)]
    same(function(torch.from_numpy(x), block), expected)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Array, tuple[int, int], tuple[tuple[int, int], ...], Array]:
    """x [n, C, H, W], blocks, paddings, and x after space_to_batch by its formula."""
    n, depth, *spatial = draw(st.tuples(*[st.integers(1, 3)] * 4))
    block = draw(st.tuples(BLOCK, BLOCK))
    before = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    paddings = tuple((b, -(size + b) % each + each * draw(st.integers(0, 1))) for size, b, each in zip(spatial, before, block, strict=True))
    x = numbered((n, depth, *spatial), draw(st.sampled_from(DTYPES)))
    padded = np.pad(x, ((0, 0), (0, 0), *paddings))
    expected = np.empty((n * math.prod(block), depth, padded.shape[2] // block[0], padded.shape[3] // block[1]), x.dtype)
    for image, channel, row, column in np.ndindex(*padded.shape):
        place = (row % block[0] * block[1] + column % block[1]) * n + image
        expected[place, channel, row // block[0], column // block[1]] = padded[image, channel, row, column]
    return x, block, paddings, expected


@PROPERTY
@given(case=batches())
def test_space_to_batch_by_the_formula_and_batch_to_space_undoes_it(case: Any) -> None:
    x, block, paddings, expected = case
    same(ops.space_to_batch(torch.from_numpy(x), block, paddings), expected)
    same(ops.batch_to_space(torch.from_numpy(expected), block, paddings), x)


X = torch.arange(24.0).reshape(1, 4, 2, 3)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("axes", lambda: ops.expand_dims(X, (6,))),
        ("axis 4", lambda: ops.sliding_windows(X, 4, 1)),
        ("size 3", lambda: ops.sliding_windows(X, 2, 3)),
        ("size 0", lambda: ops.sliding_windows(X, 2, 0)),
        ("stride 0", lambda: ops.sliding_windows(X, 2, 1, 0)),
        ("lengths", lambda: ops.reverse_sequence(X, torch.tensor([1, 5, 0, 1]), 2, 1)),
        ("lengths", lambda: ops.reverse_sequence(X, torch.tensor([1, -1, 0, 1]), 2, 1)),
        ("lengths", lambda: ops.reverse_sequence(X, torch.tensor([1, 1]), 2, 1)),
        ("lengths", lambda: ops.reverse_sequence(X, torch.tensor([1]))),  # the defaults are the same axis twice
        ("axis -5", lambda: ops.reverse_sequence(X, torch.tensor([1]), -5, 0)),
        ("axis 0 of a tensor of rank 0", lambda: ops.reverse_sequence(torch.tensor(1.0), torch.tensor([1]))),
        ("blocks", lambda: ops.depth_to_space(X, 3)),
        ("blocks", lambda: ops.depth_to_space(X[0], 2)),
        ("blocks", lambda: ops.space_to_depth(X, 2)),
        ("blocks", lambda: ops.pixel_shuffle(X, 3)),
        ("blocks", lambda: ops.pixel_unshuffle(X, 0)),
        ("blocks", lambda: ops.space_to_batch(X, (2, 2), ((0, 0), (0, 0)))),
        ("none negative", lambda: ops.space_to_batch(X, (1, 1), ((0, -1), (0, 0)))),
        ("two pairs", lambda: ops.space_to_batch(X, (1, 1, 1), ((0, 0), (0, 0), (0, 0)))),
        ("blocks", lambda: ops.batch_to_space(X, (2, 2), ((0, 0), (0, 0)))),
        ("crops", lambda: ops.batch_to_space(X, (1, 1), ((0, 3), (0, 0)))),
        ("crops", lambda: ops.batch_to_space(X, (1, 1), ((0, 0), (2, 2)))),
        ("none negative", lambda: ops.batch_to_space(X, (1, 1), ((-1, 0), (0, 0)))),
        ("1 tensors, 2 begins", lambda: ops.reshape_like(X, (X,), (0, 0), (1,), (False,))),
        ("rank 4", lambda: ops.reshape(X, (0, -1), 16)),
    ],
)
def test_what_does_not_fit_is_refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch_to_space": lambda x: ops.batch_to_space(x.reshape(4, 1, 2, 3), (2, 2), ((1, 0), (0, 2))),
    "depth_to_space": lambda x: ops.depth_to_space(x, 2),
    "expand_dims": lambda x: ops.expand_dims(x, (0, -1)),
    "pixel_shuffle": lambda x: ops.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: ops.pixel_unshuffle(x.reshape(1, 1, 6, 4), 2),
    "reshape": lambda x: ops.reshape(x, (0, -1), 17),
    "reshape_like": lambda x: ops.reshape_like(x, (x, x), (0, 2), (2, 0), (False, True)),
    "reverse": lambda x: ops.reverse(x, (1,)),
    "reverse_sequence": lambda x: ops.reverse_sequence(x, torch.ones(4, dtype=torch.int32, device=x.device), 2, 1),
    "sliding_windows": lambda x: ops.sliding_windows(x, 1, 2),
    "space_to_batch": lambda x: ops.space_to_batch(x, (2, 2), ((0, 0), (1, 0))),
    "space_to_depth": lambda x: ops.space_to_depth(x.reshape(1, 1, 6, 4), 2),
    "squeeze": ops.squeeze,
    "transpose": lambda x: ops.transpose(x, (3, 0, 1, 2)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_shapes_come_without_values_and_the_input_stays(name: str) -> None:
    x = X.clone()
    result = PLAIN[name](x)
    without = PLAIN[name](torch.empty(X.shape, device="meta"))
    assert without.is_meta
    assert without.shape == result.shape
    assert without.dtype == result.dtype
    assert torch.equal(x, X)
