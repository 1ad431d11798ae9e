"""Gathering and scattering. T is fp16, fp32, int32 and, from iOS17, the small integers; indices are integers.

Negative indices count from the end up to iOS16. From iOS17 they are out of bounds, and what happens then is undefined
(an error with validate_indices); here every index out of bounds is an error.
"""

import math

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.shape import axis_of
from toolkit.mil.ops.types import Ints, Tensor

_MODES = ("update", "add", "sub", "mul", "div", "max", "min")


def gather(x: Tensor, indices: Tensor, ios: int, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """out[*b, *p, *i, *q] = x[*b, *p, indices[*b, *i], *q], the index standing on `axis`. iOS15|16|17/scatter_gather.py

    The first `batch_dims` axes, *b, are shared. Shape: x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis+1:].
    """
    axis = axis_of(x, axis)
    if not 0 <= batch_dims <= min(axis, indices.ndim) or x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ArtifactError(f"batch_dims {batch_dims} with axis {axis}, x {list(x.shape)}, indices {list(indices.shape)}")
    shape = (*x.shape[:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])
    indices = _bounded(indices, x.shape[axis], ios)
    if batch_dims == 0:
        return x.index_select(axis, indices.reshape(-1)).reshape(shape)
    batch, picked = math.prod(x.shape[:batch_dims]), math.prod(indices.shape[batch_dims:])
    before, after = math.prod(x.shape[batch_dims:axis]), math.prod(x.shape[axis + 1 :])
    rows = indices.reshape(batch, 1, picked, 1).expand(batch, before, picked, after)
    return x.reshape(batch, before, x.shape[axis], after).gather(2, rows).reshape(shape)


def gather_along_axis(x: Tensor, indices: Tensor, ios: int, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """out[…, i, …] = x[…, indices[…, i, …], …] along `axis`; the other axes are the same. iOS15|16|17/scatter_gather.py"""
    axis = axis_of(x, axis)
    _same_but(axis, x, indices)
    return x.gather(axis, _bounded(indices, x.shape[axis], ios))


def gather_nd(x: Tensor, indices: Tensor, ios: int, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """out[*b, *i] = x[*b, *indices[*b, *i]]: the last axis of indices holds coordinates. iOS15|16|17/scatter_gather.py

    The first `batch_dims` axes, *b, are shared. Shape: indices.shape[:-1] + x.shape[batch_dims + indices.shape[-1]:].
    """
    depth = _depth(indices, x.ndim - batch_dims)
    if not 0 <= batch_dims < indices.ndim or x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ArtifactError(f"batch_dims {batch_dims} with x {list(x.shape)}, indices {list(indices.shape)}")
    batch = math.prod(x.shape[:batch_dims])
    sizes, rest = x.shape[batch_dims : batch_dims + depth], x.shape[batch_dims + depth :]
    flat = _flat(indices, sizes, ios).reshape(batch, -1)
    rows = torch.arange(batch, device=x.device)[:, None] * math.prod(sizes) + flat
    table = x.reshape(batch * math.prod(sizes), math.prod(rest))
    return table.index_select(0, rows.reshape(-1)).reshape((*indices.shape[:-1], *rest))


def scatter(
    data: Tensor, indices: Tensor, updates: Tensor, ios: int, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """data, with updates[…, i, …] put to …, indices[i], … along `axis` by `mode`. iOS15|17/scatter_gather.py

    Modes: update (of several for one place the last), add, sub, mul, div, max, min; the docstring's default "update" is not
    the definition's.
    """
    axis = axis_of(data, axis)
    if indices.ndim != 1:
        raise ArtifactError(f"indices have shape {list(indices.shape)}, not one axis")
    if updates.shape != (*data.shape[:axis], len(indices), *data.shape[axis + 1 :]):
        raise ArtifactError(f"updates have shape {list(updates.shape)} for {len(indices)} places along axis {axis} of {list(data.shape)}")
    shape = [-1 if each == axis else 1 for each in range(data.ndim)]
    return _scattered(data, axis, _bounded(indices, data.shape[axis], ios).reshape(shape).expand(updates.shape), updates, mode)


def scatter_along_axis(
    data: Tensor, indices: Tensor, updates: Tensor, ios: int, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """data, with updates[…, i, …] put to …, indices[…, i, …], … along `axis` by `mode`, as scatter. iOS15|17/scatter_gather.py"""
    axis = axis_of(data, axis)
    _same_but(axis, data, indices)
    if updates.shape != indices.shape:
        raise ArtifactError(f"updates {list(updates.shape)} for indices {list(indices.shape)}")
    return _scattered(data, axis, _bounded(indices, data.shape[axis], ios), updates, mode)


def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, ios: int, mode: str = "add", validate_indices: bool = False) -> Tensor:
    """data, with updates[*i] put to indices[*i], coordinates in the last axis, by `mode`, as scatter. iOS15|17/scatter_gather.py"""
    depth = _depth(indices, data.ndim)
    sizes, rest = data.shape[:depth], data.shape[depth:]
    if updates.shape != (*indices.shape[:-1], *rest):
        raise ArtifactError(f"updates {list(updates.shape)} for indices {list(indices.shape)} into {list(data.shape)}")
    table = data.reshape(math.prod(sizes), math.prod(rest))
    places = _flat(indices, sizes, ios).reshape(-1, 1).expand(-1, table.shape[1])
    return _scattered(table, 0, places, updates.reshape(places.shape), mode).reshape(data.shape)


def _scattered(data: Tensor, axis: int, places: Tensor, updates: Tensor, mode: str) -> Tensor:
    if mode not in _MODES:
        raise ArtifactError(f"mode {mode!r} is none of {', '.join(_MODES)}")
    if mode == "update":
        return data.scatter(axis, places, updates)
    if mode in ("add", "sub"):
        return data.scatter_add(axis, places, updates if mode == "add" else -updates)
    if mode == "div":
        wide = torch.float64 if data.is_floating_point() else torch.int64  # a product may not fit where the quotient does
        divisor = torch.ones_like(data, dtype=wide).scatter_reduce(axis, places, updates.to(wide), "prod")
        return torch.div(data, divisor, rounding_mode=None if data.is_floating_point() else "trunc").to(data.dtype)
    return data.scatter_reduce(axis, places, updates, {"mul": "prod", "max": "amax", "min": "amin"}[mode])


def _flat(indices: Tensor, sizes: Ints, ios: int) -> Tensor:
    """Coordinates [*K, depth] into axes of `sizes` as row numbers [*K]."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for number, size in enumerate(sizes):
        flat = flat * size + _bounded(indices[..., number], size, ios)
    return flat


def _bounded(indices: Tensor, size: int, ios: int) -> Tensor:
    """As int64, negative ones counted from the end where the opset allows that."""
    indices = indices.to(torch.int64)
    if indices.is_meta or indices.numel() == 0:
        return indices
    low, high = int(indices.min()), int(indices.max())
    if high >= size or low < (-size if ios < 17 else 0):
        raise ArtifactError(f"index {high if high >= size else low} into an axis of {size}, iOS{ios}: what happens then is not defined")
    return torch.where(indices < 0, indices + size, indices) if low < 0 else indices


def _same_but(axis: int, x: Tensor, indices: Tensor) -> None:
    if x.ndim != indices.ndim or any(n != m for each, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True)) if each != axis):
        raise ArtifactError(f"indices {list(indices.shape)} for {list(x.shape)}: they may differ along axis {axis} only")


def _depth(indices: Tensor, rank: int) -> int:
    depth = indices.shape[-1] if indices.ndim else 0
    if not indices.ndim or depth > rank:
        raise ArtifactError(f"indices {list(indices.shape)} into {rank} axes: the last axis holds at most {rank} coordinates")
    return depth
