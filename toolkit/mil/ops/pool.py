"""Pools over x [n, C, *D], 1 to 3 spatial axes D. T is fp16 or fp32. Strides default to 1, not to the kernel as in PyTorch.

ceil_mode (1 or 2 spatial axes, equal padding on both sides) rounds the number of windows up: ceil((D + pads - K) / stride)
+ 1, less one where the last would start in the padding after x. What a window reaches beyond the padding is not there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.limits import MAX_WINDOWS
from toolkit.mil.ops.geometry import Pads, pad_spatial, padding, positions, symmetric
from toolkit.mil.ops.types import Array, Ints, Tensor

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class _Windows:
    """strides; pads: elements around each axis; overhang: how far the last window ends beyond them (negative: before)."""

    strides: Ints
    pads: Pads
    overhang: Ints
    starts: list[range]

    def direct(self, x: Tensor, kernel: Ints) -> Ints | None:
        """The padding PyTorch would take itself: equal on both sides, at most half the kernel; in 3-D x is not below the kernel."""
        equal = symmetric(self.pads)
        if equal is None or any(2 * p > k for p, k in zip(equal, kernel, strict=True)):
            return None
        return None if len(kernel) == 3 and any(k > i for i, k in zip(x.shape[2:], kernel, strict=True)) else equal

    @property
    def all_pads(self) -> Pads:
        return [(before, after + over) for (before, after), over in zip(self.pads, self.overhang, strict=True)]

    def counts(self, axis: int, kernel: int, first: int, last: int) -> Array:
        """How many of the elements first..last-1 each window of `axis` covers: int64 [windows]."""
        starts = self.starts[axis]
        start = np.arange(starts.start, starts.stop, starts.step)
        covered: Array = np.maximum(0, np.minimum(start + kernel, last) - np.maximum(start, first))
        return covered


def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Mean of each window; padding counts as zeros unless excluded, then only elements of x count. iOS15/pool.py"""
    windows = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    function, equal = _AVERAGE[len(kernel_sizes)], windows.direct(x, kernel_sizes)
    covered = _covered(x, kernel_sizes, windows, exclude_padding_from_average)
    if equal is not None:
        return function(x, kernel_sizes, windows.strides, equal, ceil_mode, not exclude_padding_from_average)
    mean = function(pad_spatial(x, windows.all_pads, 0.0), kernel_sizes, windows.strides)
    for axis, (counts, kernel) in enumerate(zip(covered, kernel_sizes, strict=True)):
        if (counts != kernel).any():
            share = torch.from_numpy(counts).to(x.device, x.dtype) / kernel
            mean = mean / share.reshape(-1, *(1,) * (len(kernel_sizes) - 1 - axis))
    return mean


def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Square root of the sum of squares of each window, 1 or 2 spatial axes; padding counts as zeros. iOS15/pool.py"""
    if len(kernel_sizes) > 2:
        raise ArtifactError(f"{len(kernel_sizes)} spatial axes: only 1 or 2 are possible")
    windows = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    function, equal = _AVERAGE[len(kernel_sizes)], windows.direct(x, kernel_sizes)
    if equal is None or ceil_mode:  # PyTorch would divide by fewer elements where a window overhangs
        x, equal = pad_spatial(x, windows.all_pads, 0.0), (0,) * len(kernel_sizes)
    return torch.sqrt(function(x * x, kernel_sizes, windows.strides, equal) * math.prod(kernel_sizes))


def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window; padding never wins (it is -inf). iOS15/pool.py"""
    windows = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    _covered(x, kernel_sizes, windows, True)
    function, equal = _MAX[len(kernel_sizes)], windows.direct(x, kernel_sizes)
    if equal is not None:
        return function(x, kernel_sizes, windows.strides, equal, 1, ceil_mode)
    return function(pad_spatial(x, windows.all_pads, -math.inf), kernel_sizes, windows.strides)


def _windows(x: Tensor, kernel: Ints, pad_type: str, strides: Ints | None, pad: Ints | None, ceil_mode: bool) -> _Windows:
    """iOS15/pool.py and `_utils.py:spatial_dimensions_out_shape`, which sets the shapes."""
    size, ones, pad_type = tuple(x.shape[2:]), (1,) * len(kernel), pad_type.lower()
    strides = strides or ones
    pads = padding(pad_type, pad, size, kernel, strides, ones)
    if ceil_mode and len(kernel) > 2:
        raise ArtifactError("ceil_mode with 3 spatial axes: only 1 or 2 are possible")
    if ceil_mode and pad_type == "same":
        raise ArtifactError("ceil_mode with pad_type same")
    if ceil_mode and pad_type == "custom" and symmetric(pads) is None:
        raise ArtifactError(f"ceil_mode with different padding before and after: {pads}")
    counts = positions(size, pads, kernel, strides, ones)
    if ceil_mode:
        counts = tuple(_rounded_up(i, sum(p), k, s) for i, p, k, s in zip(size, pads, kernel, strides, strict=True))
    if max(counts) > MAX_WINDOWS:
        raise ArtifactError(f"{list(counts)} windows, more than {MAX_WINDOWS} on an axis")
    starts = [range(-before, s * n - before, s) for (before, _), s, n in zip(pads, strides, counts, strict=True)]
    ends = [i + after for i, (_, after) in zip(size, pads, strict=True)]
    overhang = tuple(start[-1] + k - end for start, k, end in zip(starts, kernel, ends, strict=True))
    return _Windows(strides, pads, overhang, starts)


def _rounded_up(size: int, pads: int, kernel: int, stride: int) -> int:
    count = -(-(size + pads - kernel) // stride) + 1
    return count - 1 if pads > 0 and 2 * (count - 1) * stride >= 2 * size + pads else count


def _covered(x: Tensor, kernel: Ints, windows: _Windows, only_x: bool) -> list[Array]:
    """How many elements each window covers on each axis, of x or of x and its padding; none at all has no mean or maximum."""
    result = []
    for axis, (size, (before, after)) in enumerate(zip(x.shape[2:], windows.pads, strict=True)):
        first, last = (0, size) if only_x else (-before, size + after)
        result.append(windows.counts(axis, kernel[axis], first, last))
        if result[-1].min() < 1:
            raise ArtifactError(f"a window of spatial axis {axis} covers no element: kernel {kernel}, pads {windows.pads}")
    return result
