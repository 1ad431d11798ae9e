"""Normalisation. T is fp16 or fp32; from iOS17 the parameters may be of the other type."""

import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.limits import current
from toolkit.mil.ops.types import Ints, Tensor


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma · (x - mean) / √(variance + epsilon) + beta, along axis 1 of x [n, C, *D], rank 3 to 5. iOS15|17/normalization.py"""
    _rank("x", x, 3, 5)
    for name, parameter in (("mean", mean), ("variance", variance), ("gamma", gamma), ("beta", beta)):
        _per_channel(name, parameter, x)
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def instance_norm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """gamma · (x - mean) / √(variance + epsilon) + beta; x is [n, C, *D], rank 3 or 4. iOS15|17/normalization.py

    Mean and (biased) variance are those of each image and channel, over the spatial axes.
    """
    _rank("x", x, 3, 4)
    _per_channel("gamma", gamma, x)
    _per_channel("beta", beta, x)
    return torch.group_norm(x, x.shape[1], gamma, beta, epsilon)  # F.instance_norm refuses a single spatial element


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """x / √(Σ x² + epsilon), the sum over the last three axes. iOS15|17/normalization.py"""
    if x.ndim < 3:
        raise ArtifactError(f"x has rank {x.ndim}, less than 3")
    return x / torch.sqrt((x * x).sum(dim=(-3, -2, -1), keepdim=True) + epsilon)


def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma · (x - mean) / √(variance + epsilon) + beta, over `axes` (default: all). iOS15|17/normalization.py

    The variance is the biased one. gamma and beta have the lengths of `axes`, in the order of x whatever that of `axes`.
    """
    rank = x.ndim
    if axes is not None and (not axes or any(not -rank <= axis < rank for axis in axes)):
        raise ArtifactError(f"axes {list(axes)} for a tensor of rank {rank}")
    chosen = sorted(range(rank) if axes is None else {axis % rank for axis in axes})
    shape = [x.shape[axis] for axis in chosen]
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter is not None and list(parameter.shape) != shape:
            raise ArtifactError(f"{name} has shape {list(parameter.shape)}, the normalised axes {shape}")
    order = [axis for axis in range(rank) if axis not in chosen] + chosen
    result = F.layer_norm(x.permute(order), shape, gamma, beta, epsilon)
    return result.permute([order.index(axis) for axis in range(rank)])


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size · Σ x²)^beta, the sum over `size` neighbouring channels. iOS15|17/normalization.py

    Neighbours of channel c: c - size//2 to c + (size-1)//2, zero outside. Channels are axis 1; with rank 3 they are
    axis 0, which is what Apple's test expects (Core ML reads [C, H, W]) although the definition says [n, C, *D].
    """
    _rank("x", x, 3, 5)
    if size < 1:
        raise ArtifactError(f"size {size} must be positive")
    work, channels = current(), x.shape[0 if x.ndim == 3 else 1]
    if x.numel() // max(1, channels) * (channels + size) > work.budget.scratch:  # PyTorch pads the channels by size
        raise ArtifactError(f"size {size} of {list(x.shape)}: more than {work.budget.scratch} elements")
    work.spend(x.numel() * size)
    if x.ndim == 3:
        return F.local_response_norm(x.unsqueeze(0), size, alpha, beta, k).squeeze(0)
    return F.local_response_norm(x, size, alpha, beta, k)


def _rank(name: str, x: Tensor, least: int, most: int) -> None:
    if not least <= x.ndim <= most:
        raise ArtifactError(f"{name} has rank {x.ndim}, not {least} to {most}")


def _per_channel(name: str, parameter: Tensor | None, x: Tensor) -> None:
    if parameter is not None and tuple(parameter.shape) != (x.shape[1],):
        raise ArtifactError(f"{name} has shape {list(parameter.shape)}, x {x.shape[1]} channels")
