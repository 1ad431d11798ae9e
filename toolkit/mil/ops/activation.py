"""Activations. The result has the shape of x; NaN stays NaN. T is fp16 or fp32; from iOS17 alpha and beta may be the other."""

import math

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.reduction import axes_of
from toolkit.mil.ops.types import Tensor


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(beta, x) where x >= 0, else min(beta, alpha · x). iOS15|17/activation.py"""
    return torch.clamp(leaky_relu(x, alpha), max=beta)


def elu(x: Tensor, alpha: float) -> Tensor:
    """x where x > 0, else alpha · (eˣ - 1). iOS15|17/activation.py"""
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """x · Φ(x), Φ the normal distribution function, by `mode`. iOS15/activation.py

    EXACT: Φ = (1 + erf(x / √2)) / 2. TANH_APPROXIMATION: (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2.
    SIGMOID_APPROXIMATION: sigmoid(1.702 · x).
    """
    # 1 + erf and 1 + tanh cancel for negative x; 1 + erf(z) = erfc(-z) and (1 + tanh z) / 2 = sigmoid(2z) do not.
    if mode == "EXACT":
        return 0.5 * x * torch.erfc(x * -math.sqrt(0.5))
    if mode == "TANH_APPROXIMATION":
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ArtifactError(f"mode {mode!r} is not one of EXACT, TANH_APPROXIMATION, SIGMOID_APPROXIMATION")


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= 0, else alpha · x. iOS15|17/activation.py"""
    return torch.where(x >= 0, x, alpha * x)


def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha · x + beta. iOS15|17/activation.py"""
    return alpha * x + beta


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """x where x > 0, else alpha_c · x; x [B, C, *D] of rank 3, 4 or 5, alpha [C]. iOS15|17/activation.py

    With rank 3 and 5 the definition allows only alphas that are equal (to within 1e-5).
    """
    if x.ndim not in (3, 4, 5):
        raise ArtifactError(f"x has rank {x.ndim}, not 3, 4 or 5")
    slope = _per_channel("alpha", alpha, x)
    if x.ndim != 4 and not alpha.is_meta and bool(((alpha - alpha[:1]).abs() > 1e-5).any()):
        raise ArtifactError(f"x has rank {x.ndim}, for which all values of alpha must be equal")
    return torch.where(x > 0, x, slope * x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0). iOS15/activation.py"""
    return torch.clamp(x, min=0)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6). iOS15/activation.py"""
    return torch.clamp(x, 0, 6)


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha · tanh(beta · x). iOS15|17/activation.py"""
    return alpha * torch.tanh(beta * x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ). iOS15/activation.py"""
    return torch.sigmoid(x)


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(alpha · x + beta, 0), 1). iOS15|17/activation.py"""
    return torch.clamp(alpha * x + beta, 0, 1)


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x). iOS15/activation.py"""
    return x * torch.sigmoid(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x - m) / Σ exp(x - m) along `axis`, m the maximum along it. iOS15/activation.py"""
    return torch.softmax(x, axes_of(x, (axis,))[0])


def softplus(x: Tensor) -> Tensor:
    """ln(1 + eˣ), without overflow: max(x, 0) + ln(1 + exp(-|x|)). iOS15/activation.py"""
    return torch.logaddexp(x, torch.zeros_like(x))


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha_c · ln(1 + exp(beta_c · x)); x [B, C, *D] of rank >= 3, alpha and beta [C]. iOS15|17/activation.py"""
    if x.ndim < 3:
        raise ArtifactError(f"x has rank {x.ndim}, not 3 or more")
    return _per_channel("alpha", alpha, x) * softplus(_per_channel("beta", beta, x) * x)


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|). iOS15/activation.py"""
    return x / (1 + torch.abs(x))


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """x where x >= alpha, else 0. iOS15|17/activation.py"""
    return torch.where(x < alpha, 0, x)


def _per_channel(name: str, values: Tensor, x: Tensor) -> Tensor:
    if values.ndim != 1 or values.shape[0] != x.shape[1]:
        raise ArtifactError(f"{name} has shape {list(values.shape)}, not [{x.shape[1]}], one value for each channel of x")
    return values.reshape(-1, *(1,) * (x.ndim - 2))
