"""Same values, other shape: reshaping, permuting, blocks moved between space, depth and batch. T is any type."""

import math

import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Ints, Items, Rows, Tensor, Tensors


def reshape(x: Tensor, shape: Ints, ios: int) -> Tensor:
    """The values of x in row-major order in `shape`; -1 is what is left. iOS15|17/tensor_transformation.py

    0 is the length of the same axis of x, which must have as many axes; from iOS17 axes are counted from the right, and a 0
    without a counterpart is 1.
    """
    if 0 in shape and x.numel() and ios < 17 and len(shape) != x.ndim:
        raise ArtifactError(f"shape {list(shape)} with a 0 for a tensor of rank {x.ndim}")
    if 0 in shape and x.numel():
        own = (1,) * (len(shape) - x.ndim) + tuple(x.shape)[max(0, x.ndim - len(shape)) :]
        shape = tuple(own[axis] if size == 0 else size for axis, size in enumerate(shape))
    return x.reshape(shape)


def reshape_like(x: Tensor, ref_tensors: Tensors, begins: Items, ends: Items, end_masks: Items) -> Tensor:
    """x in the shape that is ref.shape[begin:end], of all refs, joined; a masked end is the last. iOS16/tensor_transformation.py"""
    if not len(ref_tensors) == len(begins) == len(ends) == len(end_masks):
        raise ArtifactError(f"{len(ref_tensors)} tensors, {len(begins)} begins, {len(ends)} ends, {len(end_masks)} masks")
    parts = zip(ref_tensors, begins, ends, end_masks, strict=True)
    shape: list[int] = []
    for ref, begin, end, mask in parts:
        shape += ref.shape[int(begin) : None if mask else int(end)]
    return x.reshape(shape)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Axes of length 1 inserted at `axes`, counted in the output. iOS15/tensor_transformation.py"""
    rank = x.ndim + len(axes)
    if any(not -rank <= axis < rank for axis in axes):
        raise ArtifactError(f"axes {list(axes)} of an output of rank {rank}")
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Without those of `axes` (default: all) that have length 1; others are kept. iOS15/tensor_transformation.py"""
    return x.squeeze() if axes is None else x.squeeze(axes)


def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Axis i of the result is axis perm[i] of x. iOS15/tensor_transformation.py"""
    return x.permute(perm)


def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    """The order of values along `axes`, by default all, turned round. iOS15/tensor_transformation.py"""
    return x.flip(tuple(range(x.ndim)) if axes is None else axes)


def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """Along seq_axis the first lengths[b] values turned round, for each b along batch_axis. iOS15/tensor_transformation.py"""
    seq_axis, batch_axis = axis_of(x, seq_axis), axis_of(x, batch_axis)
    if lengths.shape != (x.shape[batch_axis],) or seq_axis == batch_axis:
        raise ArtifactError(f"lengths {list(lengths.shape)} for {list(x.shape)}, batch axis {batch_axis}, sequence axis {seq_axis}")
    size = x.shape[seq_axis]
    if not x.is_meta and not bool(((lengths >= 0) & (lengths <= size)).all()):
        raise ArtifactError(f"lengths {lengths.tolist()[:8]} are not all 0..{size}")
    steps = torch.arange(size, device=x.device)[None]
    turned = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # (batch, size)
    if batch_axis > seq_axis:
        turned = turned.T
    shape = [size if axis == seq_axis else x.shape[axis] if axis == batch_axis else 1 for axis in range(x.ndim)]
    return x.gather(seq_axis, turned.reshape(shape).expand(x.shape))


def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """Every window of `size` along `axis`, each `stride` further on; the window is a new axis after it. iOS15/tensor_transformation.py"""
    axis = axis_of(x, axis)
    if not 1 <= size <= x.shape[axis] or stride < 1:
        raise ArtifactError(f"size {size} and stride {stride} along an axis of {x.shape[axis]}")
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """x [n, b·b·C, H, W] to [n, C, H·b, W·b]: out[n, c, h·b+i, w·b+j] = x[n, (i·b+j)·C+c, h, w]. iOS15/tensor_transformation.py"""
    n, depth, height, width = _blocks(x, (block_size, block_size), depth=True)
    y = x.reshape(n, block_size, block_size, depth // block_size**2, height, width)
    return y.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, height * block_size, width * block_size)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of depth_to_space: out[n, (i·b+j)·C+c, h, w] = x[n, c, h·b+i, w·b+j]. iOS15/tensor_transformation.py"""
    n, depth, height, width = _blocks(x, (block_size, block_size))
    y = x.reshape(n, depth, height // block_size, block_size, width // block_size, block_size)
    return y.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // block_size, width // block_size)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """x [n, C·f·f, H, W] to [n, C, H·f, W·f]: out[n, c, h·f+i, w·f+j] = x[n, (c·f+i)·f+j, h, w]. iOS15/tensor_transformation.py"""
    _blocks(x, (upscale_factor, upscale_factor), depth=True)
    return F.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of pixel_shuffle: out[n, (c·f+i)·f+j, h, w] = x[n, c, h·f+i, w·f+j]. iOS16/tensor_transformation.py"""
    _blocks(x, (downscale_factor, downscale_factor))
    return F.pixel_unshuffle(x, downscale_factor)


def space_to_batch(x: Tensor, block_shape: Ints, paddings: Rows) -> Tensor:
    """x [n, C, H, W], padded by zeros, to [n·b0·b1, C, H/b0, W/b1]. iOS15/tensor_transformation.py

    out[(i·b1+j)·n+m, c, h, w] = padded[m, c, h·b0+i, w·b1+j]. paddings [2, 2]: before and after H, before and after W.
    """
    (top, bottom), (left, right) = _pairs(paddings, block_shape)
    padded = F.pad(x, (left, right, top, bottom))
    n, depth, height, width = _blocks(padded, block_shape)
    y = padded.reshape(n, depth, height // block_shape[0], block_shape[0], width // block_shape[1], block_shape[1])
    return y.permute(3, 5, 0, 1, 2, 4).reshape(-1, depth, height // block_shape[0], width // block_shape[1])


def batch_to_space(x: Tensor, block_shape: Ints, crops: Rows) -> Tensor:
    """The inverse of space_to_batch, then cropped: crops [2, 2], before and after H, before and after W. iOS15/tensor_transformation.py"""
    (top, bottom), (left, right) = _pairs(crops, block_shape)
    if x.ndim != 4 or x.shape[0] % math.prod(block_shape):
        raise ArtifactError(f"a tensor of shape {list(x.shape)} in blocks of {list(block_shape)}")
    n, depth, height, width = x.shape
    y = x.reshape(*block_shape, n // math.prod(block_shape), depth, height, width).permute(2, 3, 4, 0, 5, 1)
    whole = y.reshape(-1, depth, height * block_shape[0], width * block_shape[1])
    if top + bottom > whole.shape[2] or left + right > whole.shape[3]:
        raise ArtifactError(f"crops {crops} of {list(whole.shape[2:])}")
    return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]


def axis_of(x: Tensor, axis: int) -> int:
    """`axis` of x counted from the front."""
    if not -x.ndim <= axis < x.ndim:
        raise ArtifactError(f"axis {axis} of a tensor of rank {x.ndim}")
    return axis % x.ndim


def _blocks(x: Tensor, block: Ints, depth: bool = False) -> tuple[int, int, int, int]:
    """The shape of x [n, C, H, W], whose C (depth) or H and W are whole numbers of blocks."""
    whole = x.ndim == 4 and len(block) == 2 and min(block) >= 1
    if not whole or (x.shape[1] % math.prod(block) if depth else x.shape[2] % block[0] or x.shape[3] % block[1]):
        raise ArtifactError(f"a tensor of shape {list(x.shape)} in blocks of {list(block)}")
    n, channels, height, width = x.shape
    return n, channels, height, width


def _pairs(amounts: Rows, block_shape: Ints) -> Rows:
    if len(amounts) != 2 or len(block_shape) != 2 or any(len(pair) != 2 or min(pair) < 0 for pair in amounts):
        raise ArtifactError(f"amounts {amounts} for blocks of {list(block_shape)}: two pairs, none negative")
    return amounts
