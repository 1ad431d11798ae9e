"""NumPy-style slices, read and written. T is any type."""

import numpy as np
import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Bools, Ints, Tensor

_ONE_ELEMENT = np.iinfo(np.int32).max  # a stride that leaves one element, as in the definition


def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x[begin:end:stride] along every axis, as NumPy clamps it; masks say what is left open. iOS15/tensor_transformation.py

    A masked begin or end is the first or last that the stride's direction allows. A squeezed axis gives its element at
    begin, whatever the end, and goes: a begin outside is refused, not clamped.
    """
    for axis, each in enumerate(_slices(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)):
        x = x[(slice(None),) * axis + (each,)] if each.step > 0 else _backwards(x, axis, each)
    squeezed = tuple(axis for axis, gone in enumerate(squeeze_mask or ()) if gone)
    return x.squeeze(squeezed) if squeezed else x


def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """x[begin : begin + size] along every axis; size -1: to the end. iOS15/tensor_transformation.py"""
    if not len(begin) == len(size) == x.ndim:
        raise ArtifactError(f"begin {list(begin)} and size {list(size)} for a tensor of rank {x.ndim}")
    for axis, (start, count) in enumerate(zip(begin, size, strict=True)):
        start = start + x.shape[axis] if start < 0 else start
        count = x.shape[axis] - start if count == -1 else count
        if start < 0 or count < 0 or start + count > x.shape[axis]:
            raise ArtifactError(f"begin {start} and size {count} along an axis of {x.shape[axis]}")
        x = x.narrow(axis, start, count)
    return x


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x with the slice that slice_by_index would read replaced by `update`, of its shape. iOS18/tensor_transformation.py"""
    if x.is_meta:
        return x.clone()
    places = torch.arange(x.numel()).reshape(x.shape)
    where = slice_by_index(places, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if where.shape != update.shape or update.ndim == 0:
        raise ArtifactError(f"an update of shape {list(update.shape)} for a slice of {list(where.shape)}")
    return x.reshape(-1).scatter(0, where.reshape(-1), update.reshape(-1)).reshape(x.shape)


def _slices(
    x: Tensor, begin: Ints, end: Ints, stride: Ints | None, begin_mask: Bools | None, end_mask: Bools | None, squeeze_mask: Bools | None
) -> list[slice]:
    """One slice an axis, begin and end inside it. `stop` is -1 for a slice that runs backwards to the first element."""
    rank = x.ndim
    stride = stride or (1,) * rank
    masks = [mask or (False,) * rank for mask in (begin_mask, end_mask, squeeze_mask)]
    if any(len(each) != rank for each in (begin, end, stride, *masks)):
        raise ArtifactError(f"begin {list(begin)}, end {list(end)}, stride {list(stride)} or a mask does not fit a tensor of rank {rank}")
    if 0 in stride:
        raise ArtifactError(f"stride {list(stride)} with a 0")
    slices = []
    for axis in range(rank):
        first, last, squeezed = (mask[axis] for mask in masks)
        if squeezed and not -x.shape[axis] <= (0 if first else begin[axis]) < x.shape[axis]:
            raise ArtifactError(f"element {begin[axis]} of an axis of {x.shape[axis]}")
        step = _ONE_ELEMENT if squeezed else stride[axis]
        each = slice(None if first else begin[axis], None if last or squeezed else end[axis], step).indices(x.shape[axis])
        slices.append(slice(*each))
    return slices


def _backwards(x: Tensor, axis: int, each: slice) -> Tensor:
    """PyTorch has no negative strides."""
    return x.index_select(axis, torch.arange(each.start, min(each.start, each.stop), each.step, device=x.device))
