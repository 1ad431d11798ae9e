"""Elementwise ops of one operand. The result has the shape of x; NaN stays NaN. T is fp16 or fp32 unless said otherwise."""

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Tensor

_RANGES = {  # of the integer types that cast can name
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int32": (-(2**31), 2**31 - 1),
}


def abs_(x: Tensor) -> Tensor:
    """|x|. T also int32. iOS15/elementwise_unary.py"""
    return torch.abs(x)


def acos(x: Tensor) -> Tensor:
    """arccos x in radians, 0..π; NaN outside -1..1. iOS15/elementwise_unary.py"""
    return torch.acos(x)


def asin(x: Tensor) -> Tensor:
    """arcsin x in radians, -π/2..π/2; NaN outside -1..1. iOS15/elementwise_unary.py"""
    return torch.asin(x)


def atan(x: Tensor) -> Tensor:
    """arctan x in radians, -π/2..π/2. iOS15/elementwise_unary.py"""
    return torch.atan(x)


def atanh(x: Tensor) -> Tensor:
    """artanh x = ln((1 + x) / (1 - x)) / 2; ±inf at ±1, NaN beyond. iOS15/elementwise_unary.py"""
    return torch.atanh(x)


def cast(x: Tensor, dtype: str) -> Tensor:
    """x in type `dtype`: fp16, fp32, int32, bool, and from iOS17 int8, uint8, int16, uint16. iOS15|17/elementwise_unary.py

    To float: rounded to nearest even by the caller, who knows the mode. To bool: x != 0. Float to integer: truncated
    towards zero. NaN and a value outside the target's range have no defined result (nor a test) and are refused.
    """
    if dtype in ("fp16", "fp32"):
        return x if x.is_floating_point() else x.double()  # exact for int32, so that the caller rounds once
    if dtype == "bool":
        return x != 0
    if dtype not in _RANGES:
        raise ArtifactError(f"dtype {dtype!r} is not one of fp16, fp32, bool, {', '.join(_RANGES)}")
    low, high = _RANGES[dtype]
    whole = torch.trunc(x.double()) if x.is_floating_point() else x.long()  # float32 cannot hold the limits of int32
    if not x.is_meta and not bool(((whole >= low) & (whole <= high)).all()):
        raise ArtifactError(f"a value lies outside {dtype} ({low}..{high}); its cast is undefined")
    return whole.long()


def ceil(x: Tensor) -> Tensor:
    """The smallest whole number >= x. iOS15/elementwise_unary.py"""
    return torch.ceil(x)


def clip(x: Tensor, alpha: float, beta: float, ios: int) -> Tensor:
    """min(max(x, alpha), beta). From iOS17 alpha < beta is required. iOS15|17/elementwise_unary.py"""
    if ios >= 17 and not alpha < beta:
        raise ArtifactError(f"alpha {alpha} is not smaller than beta {beta}, as iOS17 requires")
    return torch.clamp(x, alpha, beta)


def cos(x: Tensor) -> Tensor:
    """Cosine of x in radians. iOS15/elementwise_unary.py"""
    return torch.cos(x)


def cosh(x: Tensor) -> Tensor:
    """(eˣ + e⁻ˣ) / 2. iOS15/elementwise_unary.py"""
    return torch.cosh(x)


def erf(x: Tensor) -> Tensor:
    """2/√π · ∫ exp(-t²) dt for t from 0 to x. iOS15/elementwise_unary.py"""
    return torch.erf(x)


def exp(x: Tensor) -> Tensor:
    """eˣ. iOS15/elementwise_unary.py"""
    return torch.exp(x)


def exp2(x: Tensor) -> Tensor:
    """2ˣ. iOS15/elementwise_unary.py. T also int32; then only 0..30 has a result of that type, others are refused."""
    if x.is_floating_point():
        return torch.exp2(x)
    if not x.is_meta and not bool(((x >= 0) & (x <= 30)).all()):
        raise ArtifactError("an int32 exponent lies outside 0..30; its power of two is no int32")
    return torch.pow(2, x.long())


def floor(x: Tensor) -> Tensor:
    """The largest whole number <= x. iOS15/elementwise_unary.py"""
    return torch.floor(x)


def identity(x: Tensor) -> Tensor:
    """x itself, of any type. iOS15/tensor_operation.py"""
    return x


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon). iOS15|17/elementwise_unary.py"""
    return 1 / (x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    """ln(x + epsilon). iOS15|17/elementwise_unary.py

    The default 1e-45 is the smallest positive float32 and would be 0 in fp16: log 0 is -103.28 here, -inf there.
    """
    return torch.log(x + epsilon)


def logical_not(x: Tensor) -> Tensor:
    """NOT x, for bool. iOS15/elementwise_unary.py"""
    return torch.logical_not(x)


def round_(x: Tensor) -> Tensor:
    """x rounded to the nearest whole number, halves to the even one. iOS15/elementwise_unary.py ("0.5 is rounded to 0")"""
    return torch.round(x)


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(x + epsilon). iOS15|17/elementwise_unary.py"""
    return 1 / torch.sqrt(x + epsilon)


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1. T also int32. iOS15/elementwise_unary.py"""
    return torch.where(x != x, x, torch.sign(x))  # torch.sign(nan) is 0


def sin(x: Tensor) -> Tensor:
    """Sine of x in radians. iOS15/elementwise_unary.py"""
    return torch.sin(x)


def sinh(x: Tensor) -> Tensor:
    """(eˣ - e⁻ˣ) / 2. iOS15/elementwise_unary.py"""
    return torch.sinh(x)


def sqrt(x: Tensor) -> Tensor:
    """The square root; NaN for negative x. iOS15/elementwise_unary.py"""
    return torch.sqrt(x)


def square(x: Tensor) -> Tensor:
    """x². T also int32. iOS15/elementwise_unary.py"""
    return x * x


def tan(x: Tensor) -> Tensor:
    """Tangent of x in radians. iOS15/elementwise_unary.py"""
    return torch.tan(x)


def tanh(x: Tensor) -> Tensor:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ). iOS15/elementwise_unary.py"""
    return torch.tanh(x)


def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    """max(x, alpha), alpha one value of x's type. T also int32. iOS15/elementwise_unary.py"""
    return torch.maximum(x, alpha)
