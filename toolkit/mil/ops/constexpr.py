"""Compressed weights, decoded once at load into NumPy arrays of their own types, as coremltools' definitions decode them.

iOS16 packs bits into uint8 vectors and gives the shape apart; iOS18 has sub-byte tensors, which arrive here one value to
a byte. Arithmetic happens in the types the definitions name, so that the result is the same to the last bit.
"""

import math

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.mil.limits import current
from toolkit.mil.ops.types import Array, Ints

_ENTRIES = (2, 4, 8, 16, 64, 256)  # of a look-up table: 2^n for the types uint1, 2, 3, 4, 6, 8


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    """scale · (quantized_data - zero_point) in float32, then in the type of scale. iOS16/constexpr_ops.py

    scale and zero_point: scalars, or vectors along `axis`.
    """
    _check_scale(scale)
    with np.errstate(all="ignore"):  # inf where fp16 overflows, as in the definition
        data: Array = quantized_data.astype(np.float32) - _along(zero_point, quantized_data, axis).astype(np.float32)
        decoded: Array = (data * _along(scale, quantized_data, axis)).astype(scale.dtype)
    return decoded


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale · (data - offset), each rounded to the type of scale; one scale for each block of data. iOS18/compression.py

    Block sizes are data.shape / scale.shape; offset has the shape of scale. An fp32 offset of an fp16 scale: rounded once, at the end.
    """
    _check_scale(scale)
    blocks = _repeated(scale, data.shape, "scale")
    if offset is not None and offset.shape != scale.shape:
        raise ArtifactError(f"offset has shape {list(offset.shape)}, scale {list(scale.shape)}")
    with np.errstate(all="ignore"):  # inf where fp16 overflows, as in the definition
        shifted = data.astype(scale.dtype)
        if offset is not None:
            shifted = shifted - _repeated(offset, data.shape, "offset")
        decoded: Array = (blocks * shifted).astype(scale.dtype)
    return decoded


def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """source_val, fp16, as fp32. iOS16/constexpr_ops.py"""
    if output_dtype != "fp32" or source_val.dtype != np.float16:
        raise ArtifactError(f"cast of {source_val.dtype} to {output_dtype!r}: only fp16 to fp32 is defined")
    return source_val.astype(np.float32)


def constexpr_lut_to_dense(indices: Array, lut: Array, shape: Ints | None = None, vector_axis: int | None = None) -> Array:
    """Each index replaced by its entry of the look-up table. iOS16/constexpr_ops.py, iOS18/compression.py

    iOS16: indices are packed bits, lut [2^n], shape that of the result. iOS18: indices [*K], lut [*G, 2^n, V], G dividing K:
    a table for each block; V values for an index follow each other along vector_axis.
    """
    if shape is not None:
        if lut.ndim != 1 or len(lut) not in _ENTRIES or len(lut) == 8:
            raise ArtifactError(f"lut has shape {list(lut.shape)}, not 2, 4, 16, 64 or 256 entries")
        return lut[_unpacked(indices, int(math.log2(len(lut))), shape)]
    if lut.ndim != indices.ndim + 2 or (lut.shape[-1] != 1 and vector_axis is None):
        raise ArtifactError(f"lut {list(lut.shape)} for indices {list(indices.shape)}, vector_axis {vector_axis}")
    entries, width = lut.shape[-2:]
    if entries not in _ENTRIES or width < 1:
        raise ArtifactError(f"lut {list(lut.shape)}: tables of {entries} entries of {width} values")
    if indices.size and int(indices.max()) >= entries:
        raise ArtifactError(f"index {int(indices.max())} for a table of {entries}")
    if indices.size * width > (most := current().budget.elements):
        raise ArtifactError(f"would decode to {indices.size * width} elements, more than {most}")
    tables = np.arange(math.prod(lut.shape[:-2])).reshape(lut.shape[:-2])  # which table each index looks into
    vectors = lut.reshape(-1, entries, width)[_repeated(tables, indices.shape, "lut"), indices]  # [*K, V]
    axis = _axis(-1 if vector_axis is None else vector_axis, indices.ndim)
    spread = np.moveaxis(vectors, -1, axis + 1)
    return spread.reshape(*indices.shape[:axis], indices.shape[axis] * width, *indices.shape[axis + 1 :])


def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """lut_to_dense of the values under the mask: the mask, spread along vector_axis, and its values. iOS18/compression.py"""
    dense = constexpr_lut_to_dense(constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, None, vector_axis)
    mask = indices_mask if vector_axis is None else np.repeat(indices_mask, lut.shape[-1], _axis(vector_axis, indices_mask.ndim))
    return mask, dense[mask != 0]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """blockwise_shift_scale of the values under the mask: the mask, and its values. iOS18/compression.py"""
    dense = constexpr_blockwise_shift_scale(constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints | None = None) -> Array:
    """The values, in row-major order, where the mask is 1; 0 elsewhere. iOS16/constexpr_ops.py, iOS18/compression.py

    iOS16: the mask is packed bits and `shape` that of the result. iOS18: the mask has the shape.
    """
    where = (mask if shape is None else _unpacked(mask, 1, shape)) != 0
    if shape is not None and np.unpackbits(mask, bitorder="little")[where.size :].any():
        raise ArtifactError("the mask has ones beyond the last element")
    if nonzero_data.shape != (np.count_nonzero(where),):
        raise ArtifactError(f"{list(nonzero_data.shape)} values for {np.count_nonzero(where)} ones in the mask")
    dense = np.zeros(where.shape, nonzero_data.dtype)
    dense[where] = nonzero_data
    return dense


def _unpacked(packed: Array, bits: int, shape: Ints) -> Array:
    """Unsigned integers of `bits` bits out of bytes, the first in the lowest bits, in `shape`."""
    count = math.prod(shape)
    if packed.dtype != np.uint8:
        raise ArtifactError(f"packed bits of type {packed.dtype}, not uint8")
    if min(shape, default=0) < 0 or count > current().budget.elements or packed.shape != (-(-count * bits // 8),):
        raise ArtifactError(f"{list(packed.shape)} bytes for shape {list(shape)[:8]} of {bits} bits each")
    unpacked = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    return np.packbits(unpacked, axis=1, bitorder="little").reshape(shape)


def _check_scale(scale: Array) -> None:
    if scale.dtype not in (np.float16, np.float32):
        raise ArtifactError(f"scale is {scale.dtype}, not fp16 or fp32")


def _along(parameter: Array, data: Array, axis: int) -> Array:
    """A scalar as it is; a vector so that it broadcasts along `axis` of data."""
    axis = _axis(axis, data.ndim)
    if parameter.ndim == 0:
        return parameter
    if parameter.shape != (data.shape[axis],):
        raise ArtifactError(f"scale or zero point of shape {list(parameter.shape)} along axis {axis} of {list(data.shape)}")
    return parameter.reshape([-1 if each == axis else 1 for each in range(data.ndim)])


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ArtifactError(f"axis {axis} of a tensor of rank {rank}")
    return axis % rank


def _repeated(blocks: Array, shape: Ints, name: str) -> Array:
    """`blocks` with each element repeated so that the whole has `shape`."""
    if blocks.ndim != len(shape) or any(block == 0 or size % block for block, size in zip(blocks.shape, shape, strict=True)):
        raise ArtifactError(f"{name} of shape {list(blocks.shape)} does not divide {list(shape)}")
    for axis, (block, size) in enumerate(zip(blocks.shape, shape, strict=True)):
        if size // block > 1:
            blocks = np.repeat(blocks, size // block, axis)
    return blocks
