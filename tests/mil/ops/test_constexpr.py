"""Compressed weights, bit for bit as coremltools' own op definitions decode them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil._coremltools import import_coremltools
from toolkit.mil.limits import Budget, Work, applied
from toolkit.mil.ops import constexpr as ops

import_coremltools()

from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_ops as ios16  # noqa: E402 (import_coremltools comes first)
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as ios18  # noqa: E402
from coremltools.optimize._utils import pack_elements_into_bits  # noqa: E402

Array = Any
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
RANGES = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}
FLOAT = st.sampled_from([np.float16, np.float32])
ENTRY = st.sampled_from([np.int8, np.uint8, np.float16, np.float32])
SEED = st.integers(0, 2**32)


def same(actual: Array, expected: Array) -> None:
    """Equal shape, type and bits; -0.0 and 0.0 differ."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def integers(rng: np.random.Generator, name: str, shape: Any) -> Array:
    """Values of type `name`, one to a byte, both limits among them."""
    low, high = RANGES[name]
    drawn = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([low, high], shape), drawn).astype(np.uint8 if low == 0 else np.int8)


def entries(rng: np.random.Generator, dtype: Any, shape: Any) -> Array:
    """Any values of dtype."""
    if dtype in (np.int8, np.uint8):
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def mask_of(rng: np.random.Generator, shape: Any) -> Array:
    return (rng.random(shape) < rng.choice([0.0, 0.3, 0.9, 1.0])).astype(np.uint8)


@st.composite
def blocked(draw: Any, most: int = 4) -> tuple[tuple[int, ...], tuple[int, ...], np.random.Generator]:
    """A shape, the number of blocks along each of its axes, and where to take values from."""
    counts = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=most)))
    shape = tuple(count * draw(st.integers(1, 3)) for count in counts)
    return shape, counts, np.random.default_rng(draw(SEED))


@PROPERTY
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    source=st.sampled_from(["int8", "uint8"]),
    zero=st.sampled_from(["int8", "uint8", "float"]),
    dtype=FLOAT,
    vectors=st.tuples(st.booleans(), st.booleans()),
    data=st.data(),
)
def test_affine_dequantize(shape: list[int], source: str, zero: str, dtype: Any, vectors: tuple[bool, bool], data: Any) -> None:
    rng, axis = np.random.default_rng(data.draw(SEED)), data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = [(shape[axis],) if vector else () for vector in vectors]
    zero_point = np.asarray(rng.normal(size=sizes[0]) * 9, np.float32) if zero == "float" else np.asarray(integers(rng, zero, sizes[0]))
    scale = np.asarray(rng.normal(size=sizes[1]), dtype)
    quantized = integers(rng, source, shape)
    expected = ios16.constexpr_affine_dequantize.decompress(quantized, zero_point, scale, axis)
    same(ops.constexpr_affine_dequantize(quantized, zero_point, scale, axis), expected)


@PROPERTY
@given(case=blocked(), source=st.sampled_from([*RANGES, "float"]), offset=st.sampled_from([None, "same", "float"]), dtype=FLOAT)
def test_blockwise_shift_scale(case: Any, source: str, offset: str | None, dtype: Any) -> None:
    shape, counts, rng = case
    values = entries(rng, dtype, shape) if source == "float" else integers(rng, source, shape)
    scale = rng.normal(size=counts).astype(dtype)
    whole = None if source == "float" else source
    shift = None if offset is None else integers(rng, whole, counts) if whole and offset == "same" else entries(rng, dtype, counts)
    same(ops.constexpr_blockwise_shift_scale(values, scale, shift), ios18.constexpr_blockwise_shift_scale.decompress(values, scale, shift))


def test_blockwise_shift_scale_rounds_to_fp16_after_each_step() -> None:
    """In fp16 2049 is 2048; the exact result would be 2049 · 0.1 = 204.9 → 204.875, the rounded one 2048 · 0.1 = 204.75."""
    scale, offset = np.full((1,), 0.1, np.float16), np.full((1,), -2048, np.float16)
    decoded = ops.constexpr_blockwise_shift_scale(np.array([1], np.int8), scale, offset)
    same(decoded, np.array([np.float16(2048) * np.float16(0.1)], np.float16))
    assert float(decoded[0]) == 204.75
    assert float(np.float16(2049 * float(np.float16(0.1)))) == 204.875


def test_a_product_too_large_for_fp16_is_infinite_without_a_warning() -> None:
    large = np.array([60000], np.float16)
    same(ops.constexpr_blockwise_shift_scale(np.array([-2], np.int8), large), np.array([-np.inf], np.float16))
    same(ops.constexpr_affine_dequantize(np.array([2], np.int8), np.array(0, np.int8), large, 0), np.array([np.inf], np.float16))


@PROPERTY
@given(shape=st.lists(st.integers(1, 4), max_size=4), seed=SEED)
def test_cast_keeps_every_fp16_value(shape: list[int], seed: int) -> None:
    """Any bit pattern: subnormals, infinities, signed zeros."""
    source = np.random.default_rng(seed).integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)
    source = np.where(np.isnan(source), np.float16(0), source)
    decoded = ops.constexpr_cast(source, "fp32")
    assert (decoded.dtype, decoded.shape) == (np.float32, source.shape)
    assert [float(x) for x in decoded.ravel()] == [float(x) for x in source.ravel()]


@PROPERTY
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), bits=st.sampled_from([1, 2, 4, 6, 8]), dtype=ENTRY, seed=SEED)
def test_packed_lut_to_dense(shape: list[int], bits: int, dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices, lut = rng.integers(0, 2**bits, shape).astype(np.uint8), entries(rng, dtype, 2**bits)
    packed = pack_elements_into_bits(indices, bits)
    decoded = ops.constexpr_lut_to_dense(packed, lut, tuple(shape))
    same(decoded, ios16.constexpr_lut_to_dense.decompress(lut, packed, tuple(shape)))
    same(decoded, np.array([lut[index] for index in indices.ravel()], dtype).reshape(shape))


def test_packed_bits_start_with_the_lowest() -> None:
    """The example of iOS16/constexpr_ops.py."""
    indices, lut = np.array([0b01_10_11_00, 0b00_00_00_11], np.uint8), np.array([10, 11, 12, 13], np.int8)
    same(ops.constexpr_lut_to_dense(indices, lut, (5,)), np.array([10, 13, 12, 11, 13], np.int8))


@PROPERTY
@given(case=blocked(3), bits=st.sampled_from([1, 2, 3, 4, 6, 8]), width=st.integers(1, 3), dtype=ENTRY, data=st.data())
def test_lut_to_dense(case: Any, bits: int, width: int, dtype: Any, data: Any) -> None:
    shape, counts, rng = case
    axis = data.draw(st.integers(-len(shape), len(shape) - 1) if width > 1 else st.none())
    indices = rng.integers(0, 2**bits, shape).astype(np.uint8)
    lut = entries(rng, dtype, (*counts, 2**bits, width))
    same(ops.constexpr_lut_to_dense(indices, lut, vector_axis=axis), ios18.constexpr_lut_to_dense.decompress(indices, lut, axis))


def test_lut_to_dense_has_a_table_for_each_block() -> None:
    """Case 1 of iOS18/compression.py."""
    indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3], np.uint8).reshape(6, 2)
    lut = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float16).reshape(2, 1, 4, 1)
    expected = np.array([[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]], np.float16)
    same(ops.constexpr_lut_to_dense(indices, lut), expected)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (1, [[[1, 1], [2, 2], [3, 3], [4, 1], [5, 2], [6, 3]], [[4, 4], [5, 5], [6, 6], [1, 1], [2, 2], [3, 3]]]),
        (2, [[[1, 2, 3, 1, 2, 3], [4, 5, 6, 1, 2, 3]], [[4, 5, 6, 4, 5, 6], [1, 2, 3, 1, 2, 3]]]),
    ],
)
def test_lut_to_dense_lays_vectors_along_their_axis(axis: int, expected: list[Any]) -> None:
    """Case 2 of iOS18/compression.py."""
    indices = np.array([0, 0, 1, 0, 1, 1, 0, 0], np.uint8).reshape(2, 2, 2)
    lut = np.array([1, 2, 3, 4, 5, 6], np.int8).reshape(1, 1, 1, 2, 3)
    same(ops.constexpr_lut_to_dense(indices, lut, vector_axis=axis), np.array(expected, np.int8))


@PROPERTY
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), dtype=ENTRY, seed=SEED)
def test_sparse_to_dense_packed_or_not(shape: list[int], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = mask_of(rng, shape)
    values = entries(rng, dtype, int(mask.sum()))
    packed, remaining = np.packbits(mask, bitorder="little"), iter(values)
    expected = np.array([next(remaining) if bit else 0 for bit in mask.ravel()], dtype).reshape(shape)
    same(ops.constexpr_sparse_to_dense(values, mask), expected)
    same(ops.constexpr_sparse_to_dense(values, packed, tuple(shape)), expected)
    same(ios18.constexpr_sparse_to_dense.decompress(values, mask), expected)
    same(ios16.constexpr_sparse_to_dense.decompress(values, packed, tuple(shape)), expected)


@PROPERTY
@given(case=blocked(3), bits=st.sampled_from([1, 2, 3, 4, 6, 8]), width=st.integers(1, 3), dtype=ENTRY, data=st.data())
def test_lut_to_sparse(case: Any, bits: int, width: int, dtype: Any, data: Any) -> None:
    shape, counts, rng = case
    some = st.integers(-len(shape), len(shape) - 1)
    axis, mask = data.draw(some if width > 1 else st.none() | some), mask_of(rng, shape)
    indices = rng.integers(0, 2**bits, int(mask.sum())).astype(np.uint8)
    lut = entries(rng, dtype, (*counts, 2**bits, width))
    decoded = ops.constexpr_lut_to_sparse(mask, indices, lut, axis)
    for actual, expected in zip(decoded, ios18.constexpr_lut_to_sparse.decompress(mask, indices, lut, axis), strict=True):
        same(actual, expected)


@PROPERTY
@given(case=blocked(), source=st.sampled_from([*RANGES]), shifted=st.booleans(), dtype=FLOAT)
def test_sparse_blockwise_shift_scale(case: Any, source: str, shifted: bool, dtype: Any) -> None:
    shape, counts, rng = case
    mask = mask_of(rng, shape)
    values, scale = integers(rng, source, int(mask.sum())), rng.normal(size=counts).astype(dtype)
    offset = integers(rng, source, counts) if shifted else None
    decoded = ops.constexpr_sparse_blockwise_shift_scale(mask, values, scale, offset)
    theirs = ios18.constexpr_sparse_blockwise_shift_scale.decompress(mask, values, scale, offset)
    for actual, expected in zip(decoded, theirs, strict=True):
        same(actual, expected)


@PROPERTY
@given(case=blocked(3), bits=st.sampled_from([1, 2, 4]), dtype=FLOAT)
def test_ops_compose_quantized_table_palette_sparse(case: Any, bits: int, dtype: Any) -> None:
    """A table decoded by one op, read by the second, its mask and values by the third; no step changes an input."""
    shape, counts, rng = case
    mask = mask_of(rng, shape)
    indices = rng.integers(0, 2**bits, int(mask.sum())).astype(np.uint8)
    whole, scale = integers(rng, "int8", (*counts, 2**bits, 1)), rng.normal(size=(*counts, 1, 1)).astype(dtype)
    inputs = [each.copy() for each in (mask, indices, whole, scale)]
    ones, values = ops.constexpr_lut_to_sparse(mask, indices, ops.constexpr_blockwise_shift_scale(whole, scale))
    dense = ops.constexpr_sparse_to_dense(values, ones)
    blocks = [size // count for size, count in zip(shape, counts, strict=True)]
    remaining, expected = iter(indices), np.zeros(shape, dtype)
    for place in np.argwhere(mask):
        block = tuple(int(i) // size for i, size in zip(place, blocks, strict=True))
        expected[tuple(place)] = dtype(whole[(*block, next(remaining), 0)]) * scale[(*block, 0, 0)]
    same(dense, expected)
    for before, after in zip(inputs, (mask, indices, whole, scale), strict=True):
        same(after, before)


def u1(*values: int) -> Array:
    return np.array(values, np.uint8)


def half(*shape: int) -> Array:
    return np.ones(shape, np.float16)


HUGE = math.isqrt(Budget().elements) + 1


@pytest.mark.parametrize(
    ("message", "function", "arguments"),
    [
        (r"axis 1 of a tensor of rank 1", ops.constexpr_affine_dequantize, (u1(1, 2), np.array(0, np.uint8), half(2), 1)),
        (r"axis -2 of a tensor of rank 1", ops.constexpr_affine_dequantize, (u1(1, 2), np.array(0, np.uint8), half(2), -2)),
        (r"of shape \[3\] along axis 0 of \[2\]", ops.constexpr_affine_dequantize, (u1(1, 2), u1(0, 0, 0), half(2), 0)),
        (r"of shape \[3\] along axis 0 of \[2\]", ops.constexpr_affine_dequantize, (u1(1, 2), u1(0, 0), half(3), 0)),
        (r"scale is int8", ops.constexpr_affine_dequantize, (u1(1, 2), u1(0, 0), half(2).astype(np.int8), 0)),
        (r"scale is uint8", ops.constexpr_blockwise_shift_scale, (u1(1, 2), u1(1, 1))),
        (r"scale of shape \[2\] does not divide \[3\]", ops.constexpr_blockwise_shift_scale, (u1(1, 2, 3), half(2))),
        (r"scale of shape \[0\] does not divide \[3\]", ops.constexpr_blockwise_shift_scale, (u1(1, 2, 3), half(0))),
        (r"scale of shape \[1, 1\] does not divide \[3\]", ops.constexpr_blockwise_shift_scale, (u1(1, 2, 3), half(1, 1))),
        (r"offset has shape \[3\], scale \[1\]", ops.constexpr_blockwise_shift_scale, (u1(1, 2, 3), half(1), u1(1, 1, 1))),
        (r"cast of float32 to 'fp32'", ops.constexpr_cast, (np.ones(1, np.float32), "fp32")),
        (r"cast of float16 to 'fp16'", ops.constexpr_cast, (half(1), "fp16")),
        (r"lut has shape \[8\]", ops.constexpr_lut_to_dense, (u1(1), half(8), (1,))),
        (r"lut has shape \[32\]", ops.constexpr_lut_to_dense, (u1(*range(5)), half(32), (8,))),
        (r"lut has shape \[2, 1\]", ops.constexpr_lut_to_dense, (u1(1), half(2, 1), (1,))),
        (r"\[1\] bytes for shape \[9\] of 1 bits", ops.constexpr_lut_to_dense, (u1(1), half(2), (9,))),
        (r"\[2\] bytes for shape \[8\] of 1 bits", ops.constexpr_lut_to_dense, (u1(1, 1), half(2), (8,))),
        (r"\[1\] bytes for shape \[-1, -8\] of 1 bits", ops.constexpr_lut_to_dense, (u1(1), half(2), (-1, -8))),
        (rf"\[1\] bytes for shape \[{HUGE}, {HUGE}\] of 8 bits", ops.constexpr_lut_to_dense, (u1(1), half(256), (HUGE, HUGE))),
        (r"packed bits of type int8, not uint8", ops.constexpr_lut_to_dense, (u1(1).astype(np.int8), half(2), (8,))),
        (r"lut \[2, 1\] for indices \[1\], vector_axis None", ops.constexpr_lut_to_dense, (u1(1), half(2, 1))),
        (r"lut \[1, 2, 2\] for indices \[1\], vector_axis None", ops.constexpr_lut_to_dense, (u1(1), half(1, 2, 2))),
        (r"tables of 3 entries of 1 values", ops.constexpr_lut_to_dense, (u1(1), half(1, 3, 1))),
        (r"tables of 32 entries of 1 values", ops.constexpr_lut_to_dense, (u1(1), half(1, 32, 1))),
        (r"tables of 0 entries of 1 values", ops.constexpr_lut_to_dense, (u1(), half(1, 0, 1))),
        (r"tables of 2 entries of 0 values", ops.constexpr_lut_to_dense, (u1(1), half(1, 2, 0), None, 0)),
        (r"index 2 for a table of 2", ops.constexpr_lut_to_dense, (u1(0, 2), half(1, 2, 1))),
        (r"axis 1 of a tensor of rank 1", ops.constexpr_lut_to_dense, (u1(0, 1), half(1, 2, 2), None, 1)),
        (r"lut of shape \[2\] does not divide \[3\]", ops.constexpr_lut_to_dense, (u1(0, 1, 0), half(2, 2, 1))),
        (r"\[1\] values for 2 ones in the mask", ops.constexpr_sparse_to_dense, (half(1), u1(1, 0, 1))),
        (r"\[3\] values for 2 ones in the mask", ops.constexpr_sparse_to_dense, (half(3), u1(0b101), (3,))),
        (r"\[2, 1\] values for 2 ones in the mask", ops.constexpr_sparse_to_dense, (half(2, 1), u1(1, 0, 1))),
        (r"ones beyond the last element", ops.constexpr_sparse_to_dense, (half(2), u1(0b1101), (3,))),
        (r"\[1\] values for 2 ones in the mask", ops.constexpr_lut_to_sparse, (u1(1, 0, 1), u1(0), half(1, 2, 1))),
        (r"\[1\] values for 2 ones in the mask", ops.constexpr_sparse_blockwise_shift_scale, (u1(1, 0, 1), u1(0), half(1))),
    ],
)
def test_refuses(message: str, function: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ArtifactError, match=message):
        function(*arguments)


def test_refuses_to_decode_more_than_the_limit() -> None:
    indices, lut = u1(0, 1, 0, 1, 1), half(1, 2, 2)
    assert ops.constexpr_lut_to_dense(indices, lut, vector_axis=0).shape == (10,)
    with applied(Work(Budget(memory_bytes=9 * 32))):
        with pytest.raises(ArtifactError, match="would decode to 10 elements, more than 9"):
            ops.constexpr_lut_to_dense(indices, lut, vector_axis=0)
        with pytest.raises(ArtifactError, match=r"\[2\] bytes for shape \[10\] of 1 bits each"):
            ops.constexpr_sparse_to_dense(half(1), u1(1, 0), (10,))
        assert ops.constexpr_sparse_to_dense(half(1), u1(1, 0), (9,)).shape == (9,)
