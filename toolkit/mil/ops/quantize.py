"""Quantisation of activations: the QDQ pairs of W8A8 programs."""

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Tensor

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def quantize(input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    """clip(round(input / scale) + zero_point) to int8 or uint8, rounding half to even. iOS17/quantization_ops.py

    scale and zero_point: scalars, or vectors along `axis`. A not-a-number has no integer: refused.
    """
    if output_dtype not in _RANGES:
        raise ArtifactError(f"output_dtype {output_dtype!r} is neither int8 nor uint8")
    if zero_point is not None and str(zero_point.dtype) != f"torch.{output_dtype}":
        raise ArtifactError(f"zero_point is {zero_point.dtype}, output_dtype {output_dtype!r}: they must be the same")
    if not scale.is_meta and not bool(scale.any()):
        raise ArtifactError("scale is 0")
    low, high = _RANGES[output_dtype]
    steps = torch.round(input / _along(scale, input, axis))
    if not input.is_meta and bool(torch.isnan(steps).any()):
        raise ArtifactError("a value is not a number, or zero divided by a scale of zero")
    shifted = steps if zero_point is None else steps + _along(zero_point, input, axis)
    return shifted.clamp(low, high).to(torch.int64)


def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    """scale · (input - zero_point), in the type of scale. iOS17/quantization_ops.py

    scale and zero_point: scalars, or vectors along `axis`.
    """
    steps = input.to(scale.dtype)
    if zero_point is not None:
        steps = steps - _along(zero_point, input, axis)
    return steps * _along(scale, input, axis)


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A scalar as it is; a vector so that it broadcasts along `axis` of x."""
    if parameter.ndim == 0 and axis is None:
        return parameter
    if axis is None or parameter.ndim != 1 or not -x.ndim <= axis < x.ndim or len(parameter) != x.shape[axis]:
        raise ArtifactError(f"scale or zero point of shape {list(parameter.shape)} along axis {axis} of {list(x.shape)}")
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)
