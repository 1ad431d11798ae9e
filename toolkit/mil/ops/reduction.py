"""Reductions over `axes` (negative ones count from the end; None is all of them, an empty list none).

`keep_dims` keeps each reduced axis with length 1, otherwise it is removed. T is fp16, fp32 or int32.
"""

from collections.abc import Callable

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Ints, Tensor


def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """Index of the largest value along `axis`, as int32, from iOS17 also uint16. iOS15|17/reduction.py

    Among equal values the definition allows any index; here it is the first.
    """
    return torch.argmax(x, _axis_of_indices(x, axis, output_dtype), keep_dims)


def reduce_argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """Index of the smallest value along `axis`, as int32, from iOS17 also uint16. iOS15|17/reduction.py

    Among equal values the definition allows any index; here it is the first.
    """
    return torch.argmin(x, _axis_of_indices(x, axis, output_dtype), keep_dims)


def reduce_l1_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Σ |x|. iOS15/reduction.py"""
    return _reduce(torch.sum, torch.abs(x), axes, keep_dims)


def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """sqrt(Σ x²). iOS15/reduction.py. T int32 is refused: how the root becomes an integer is not defined."""
    return torch.sqrt(_reduce(torch.sum, _real(x) * x, axes, keep_dims))


def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """ln Σ x. iOS15/reduction.py. T int32 is refused: how the logarithm becomes an integer is not defined."""
    return torch.log(_reduce(torch.sum, _real(x), axes, keep_dims))


def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """ln Σ exp(x), without overflow: m + ln Σ exp(x - m), m the maximum. iOS15/reduction.py. T int32 is refused as above."""
    return _reduce(torch.logsumexp, _real(x), axes, keep_dims)


def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The largest value. iOS15/reduction.py"""
    return _reduce(torch.amax, x, axes, keep_dims)


def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Σ x / number of values. iOS15/reduction.py. T int32 is refused: how the quotient is rounded is not defined."""
    return _reduce(torch.mean, _real(x), axes, keep_dims)


def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """The smallest value. iOS15/reduction.py"""
    return _reduce(torch.amin, x, axes, keep_dims)


def reduce_prod(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Π x. iOS15/reduction.py"""
    return _reduce(_prod, x, axes, keep_dims)


def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Σ x. iOS15/reduction.py"""
    return _reduce(torch.sum, x, axes, keep_dims)


def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Σ x². iOS15/reduction.py"""
    return _reduce(torch.sum, x * x, axes, keep_dims)


def axes_of(x: Tensor, axes: Ints) -> Ints:
    """`axes` counted from the front; outside the rank of x, or named twice, they are refused."""
    if not all(-x.ndim <= axis < x.ndim for axis in axes):
        raise ArtifactError(f"axes {list(axes)} do not all lie in x of shape {list(x.shape)}")
    positive = tuple(axis % x.ndim for axis in axes)
    if len(set(positive)) < len(positive):
        raise ArtifactError(f"axes {list(axes)} of x of shape {list(x.shape)} name one axis twice")
    return positive


def _reduce(function: Callable[[Tensor, Ints, bool], Tensor], x: Tensor, axes: Ints | None, keep_dims: bool) -> Tensor:
    """function(x, axes, keep_dims), where PyTorch takes an empty list for "all" and MIL for "none"."""
    axes = tuple(range(x.ndim)) if axes is None else axes_of(x, axes)
    return function(x, axes, keep_dims) if axes else function(x.unsqueeze(-1), (-1,), False)


def _prod(x: Tensor, axes: Ints, keep_dims: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep_dims)
    return x


def _real(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ArtifactError(f"x holds integers ({x.dtype}), for which the result is not defined")
    return x


def _axis_of_indices(x: Tensor, axis: int, output_dtype: str) -> int:
    axis = axes_of(x, (axis,))[0]
    if output_dtype.lower() not in ("int32", "uint16"):
        raise ArtifactError(f"output_dtype {output_dtype!r} is neither int32 nor uint16")
    if output_dtype.lower() == "uint16" and x.shape[axis] > 65536:
        raise ArtifactError(f"an axis of length {x.shape[axis]} has indices that are no uint16")
    return axis
