"""Joining, splitting, sorting, padding, filling. T is any type unless said otherwise."""

import math

import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.limits import MAX_PIECES, PER_SORTED, current
from toolkit.mil.ops.shape import axis_of
from toolkit.mil.ops.types import Ints, Tensor, Tensors


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """The tensors one after the other along `axis`; interleaved, their slices in turn. iOS15/tensor_operation.py"""
    if not values:
        raise ArtifactError("concat of nothing")
    values = tuple(each.reshape(1) if each.ndim == 0 else each for each in values)
    if not interleave:
        return torch.cat(values, axis)
    axis = axis_of(values[0], axis)
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def stack(values: Tensors, axis: int) -> Tensor:
    """The tensors side by side along a new axis. iOS15/tensor_operation.py"""
    return torch.stack(values, axis)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Tensors:
    """x cut along `axis` into pieces of split_sizes, or into num_splits equal ones. iOS15/tensor_operation.py"""
    if split_sizes is None:
        if not num_splits or x.shape[axis] % num_splits:
            raise ArtifactError(f"num_splits {num_splits} does not divide an axis of {x.shape[axis]}")
        split_sizes = (x.shape[axis] // num_splits,) * num_splits if num_splits <= MAX_PIECES else ()
    if max(num_splits or 0, len(split_sizes)) > MAX_PIECES:
        raise ArtifactError(f"{num_splits or len(split_sizes)} pieces, more than {MAX_PIECES}")
    if num_splits not in (None, len(split_sizes)) or sum(split_sizes) != x.shape[axis] or min(split_sizes) < 0:
        raise ArtifactError(f"split_sizes {list(split_sizes)} and num_splits {num_splits} for an axis of {x.shape[axis]}")
    return torch.split(x, list(split_sizes), axis)


def tile(x: Tensor, reps: Ints) -> Tensor:
    """x repeated reps[i] times along axis i. iOS15/tensor_operation.py"""
    if len(reps) != x.ndim or min(reps, default=0) < 0:
        raise ArtifactError(f"reps {list(reps)} for a tensor of rank {x.ndim}: one for each axis, none negative")
    return x.repeat(reps)


def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """pad[2i] elements before and pad[2i+1] after the i-th of the last len(pad)/2 axes. iOS15/tensor_operation.py

    constant: constant_val. reflect: mirrored without the edge. replicate: the edge again.
    """
    axes = len(pad) // 2
    if len(pad) % 2 or axes > x.ndim or min(pad, default=0) < 0:
        raise ArtifactError(f"pad {list(pad)} for a tensor of rank {x.ndim}: pairs, none negative")
    padded = [*x.shape[: x.ndim - axes], *(size + sum(pad[2 * i : 2 * i + 2]) for i, size in enumerate(x.shape[x.ndim - axes :]))]
    if math.prod(padded) > (most := current().budget.elements):
        raise ArtifactError(f"pad {list(pad)} of {list(x.shape)}: more than {most} elements")
    if mode == "constant":
        backwards = [amount for axis in reversed(range(axes)) for amount in pad[2 * axis : 2 * axis + 2]]
        return F.pad(x, backwards, value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise ArtifactError(f"mode {mode!r} is none of constant, reflect, replicate")
    for number in range(axes):
        axis, before, after = x.ndim - axes + number, pad[2 * number], pad[2 * number + 1]
        last = x.shape[axis] - 1
        if last < 0 or (mode == "reflect" and max(before, after) > last):
            raise ArtifactError(f"{mode} padding of {before} and {after} for an axis of {last + 1}")
        places = torch.arange(-before, last + after + 1, device=x.device)
        places = places.clamp(0, last) if mode == "replicate" else last - (last - places.abs()).abs()
        x = x.index_select(axis, places)
    return x


def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    """`value`, 0 by default, everywhere in a tensor of `shape`. iOS15/tensor_operation.py"""
    most = current().budget.elements
    if min(shape, default=0) < 0 or math.prod(shape) > most:
        raise ArtifactError(f"shape {list(shape)} has a negative axis or more than {most} elements")
    return (torch.zeros(()) if value is None else value).expand(shape)


def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """`value`, 0 by default, everywhere in a tensor of the shape of ref_tensor. iOS16/tensor_operation.py"""
    return (torch.zeros(()) if value is None else value).expand(ref_tensor.shape)


def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    """The axes before `axis` as one, the others as one. iOS15/tensor_operation.py"""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def shape(x: Tensor) -> Tensor:
    """The length of each axis of x, integers [rank]. iOS15/tensor_operation.py"""
    return torch.tensor(x.shape, dtype=torch.int64, device=x.device)


def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """start + i·step for i = 0 … ceil((end - start) / step) - 1. T is a number. iOS15/tensor_operation.py

    Of floats that quotient is computed in float32, as in the definition's shape code: 0 to 0.3 by 0.1 are three.
    """
    first, last, stride = (each.float() if each.is_floating_point() else each.double() for each in (start, end, step))
    quotient = ((last - first) / stride).item()
    if not math.isfinite(quotient) or not math.isfinite(stride):
        raise ArtifactError(f"from {start.item()} to {end.item()} in steps of {step.item()}")
    count = max(0, math.ceil(quotient))
    if count > (most := current().budget.elements):
        raise ArtifactError(f"{count} elements, more than {most}")
    wide = torch.float64 if start.is_floating_point() else torch.int64
    return (start.to(wide) + torch.arange(count) * step.to(wide)).to(start.dtype)


def one_hot(
    indices: Tensor, one_hot_vector_size: int, axis: int = -1, on_value: Tensor | None = None, off_value: Tensor | None = None
) -> Tensor:
    """on_value (1) where the new axis has the index, off_value (0) elsewhere; nowhere for one out of range. iOS15/tensor_operation.py"""
    on = torch.ones((), dtype=torch.int64) if on_value is None else on_value
    off = torch.zeros((), dtype=on.dtype) if off_value is None else off_value
    if one_hot_vector_size < 0 or not -indices.ndim - 1 <= axis <= indices.ndim:
        raise ArtifactError(f"one_hot_vector_size {one_hot_vector_size}, axis {axis} for indices of rank {indices.ndim}")
    axis = axis % (indices.ndim + 1)
    shape = [-1 if each == axis else 1 for each in range(indices.ndim + 1)]
    numbers = torch.arange(one_hot_vector_size, device=indices.device).reshape(shape)
    return torch.where(indices.unsqueeze(axis) == numbers, on.to(indices.device), off.to(indices.device))


def non_zero(x: Tensor) -> Tensor:
    """The indices of the values that are not 0, in row-major order: int32 [count, rank]. iOS15/tensor_operation.py"""
    return x.nonzero()


def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Of each matrix of the last two axes the elements with i - j <= lower and j - i <= upper, 0 elsewhere. iOS15/tensor_operation.py

    -1: no bound.
    """
    rows, columns = torch.arange(x.shape[-2], device=x.device)[:, None], torch.arange(x.shape[-1], device=x.device)
    inside = ((rows - columns <= lower) | (lower < 0)) & ((columns - rows <= upper) | (upper < 0))
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype, device=x.device))


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """The sum of all values up to each along `axis`: without itself if exclusive, from the end if reverse. iOS15/tensor_operation.py"""
    axis = axis_of(x, axis)
    x = x.flip(axis) if reverse else x
    sums = x.cumsum(axis)
    if exclusive:
        sums = sums.roll(1, axis)
        sums.narrow(axis, 0, min(1, x.shape[axis])).zero_()
    return sums.flip(axis) if reverse else sums


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    """The indices that sort x along `axis`, descending unless asked otherwise. iOS15/tensor_operation.py

    Equal values keep their order: the definition is silent.
    """
    current().spend(PER_SORTED * x.numel())
    return torch.sort(x, dim=axis, descending=not ascending, stable=True).indices


def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensors | Tensor:
    """The k largest values along `axis` (ascending: smallest), in order, and where they are. iOS15|16|17/tensor_operation.py

    k = -1: all. Of equal values the first comes first. sort=False leaves the order free: sorted here as well.
    """
    if k > x.shape[axis] or k < -1:
        raise ArtifactError(f"k {k} of an axis of {x.shape[axis]}")
    current().spend(PER_SORTED * x.numel())
    ordered = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    k = x.shape[axis] if k == -1 else k
    values, indices = ordered.values.narrow(axis, 0, k), ordered.indices.narrow(axis, 0, k)
    return (values, indices) if return_indices else values
