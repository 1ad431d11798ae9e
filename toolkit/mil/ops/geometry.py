"""Padding of convolutions and pools, which MIL counts differently from PyTorch."""

import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Ints, Tensor

Pads = list[tuple[int, int]]


def padding(pad_type: str, pad: Ints | None, size: Ints, kernel: Ints, strides: Ints, dilations: Ints) -> Pads:
    """Elements before and after each spatial axis. Source: `ops/defs/_utils.py:aggregated_pad` of coremltools 9.0.

    valid: none. custom: `pad` is [before0, after0, before1, …]. same: the output has ceil(size / stride) elements, and
    an odd total puts the extra one after (same_lower: before). `pad` counts for custom only; coremltools writes it
    always. (The formula in conv's docstring leaves out the stride; the code that sets the shapes does not.)
    """
    axes = len(kernel)
    if not 1 <= axes <= 3:
        raise ArtifactError(f"{axes} spatial axes: only 1, 2 or 3 are possible")
    if not len(size) == len(strides) == len(dilations) == axes:
        raise ArtifactError(f"kernel {kernel}, strides {strides}, dilations {dilations} do not fit {len(size)} axes")
    if min(strides) < 1 or min(dilations) < 1 or min(kernel) < 1:
        raise ArtifactError(f"kernel {kernel}, strides {strides} and dilations {dilations} must be positive")
    if pad_type == "valid":
        return [(0, 0)] * axes
    if pad_type == "custom":
        pad = (0,) * 2 * axes if pad is None else pad
        if len(pad) != 2 * axes or min(pad) < 0:
            raise ArtifactError(f"pad {list(pad)} must be {2 * axes} numbers, none negative")
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise ArtifactError(f"pad_type {pad_type!r} is none of valid, custom, same, same_lower")
    pads = []
    for i, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, s * -(-i // s) - i + (k - 1) * d + 1 - s)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if pad_type == "same" else (large, small))
    return pads


def positions(size: Ints, pads: Pads, kernel: Ints, strides: Ints, dilations: Ints) -> Ints:
    """How often the kernel fits on each axis: floor((size + pads - (K-1)·dilation - 1) / stride) + 1."""
    counts = tuple(
        (i + before + after - (k - 1) * d - 1) // s + 1
        for i, (before, after), k, s, d in zip(size, pads, kernel, strides, dilations, strict=True)
    )
    if min(counts) < 1:
        raise ArtifactError(f"kernel {kernel} with dilations {dilations} does not fit into {size} padded by {pads}")
    return counts


def symmetric(pads: Pads) -> Ints | None:
    """The padding of each axis, if it is the same on both sides: PyTorch then needs no padded copy of x."""
    return tuple(before for before, _ in pads) if all(before == after for before, after in pads) else None


def pad_spatial(x: Tensor, pads: Pads, value: float) -> Tensor:
    """x [n, C, *D] with `value` around the spatial axes; negative amounts cut off."""
    if not any(before or after for before, after in pads):
        return x
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)  # PyTorch: last axis first
