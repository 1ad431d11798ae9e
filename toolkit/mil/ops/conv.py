"""Convolutions of x [n, C_in, *D] with 1 to 3 spatial axes D. T is fp16 or fp32; from iOS17 weight and bias may be the other."""

from collections.abc import Callable

import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.ops.geometry import pad_spatial, padding, positions, symmetric
from toolkit.mil.ops.types import Ints, Tensor

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of x [n, C_in, *D] with weight [C_out, C_in/groups, *K]. iOS15|17/conv.py

    out[n, o, p] = bias[o] + Σ_{c,k} weight[o, c, k] · x[n, group(o) + c, p·stride + k·dilation - pad_before], x zero
    outside. Size: floor((D + pads - (K-1)·dilation - 1) / stride) + 1. Pads: see geometry.padding.
    """
    kernel = _kernel(x, weight)
    ones = (1,) * len(kernel)
    strides, dilations = strides or ones, dilations or ones
    _channels(x, weight.shape[1], weight.shape[0], bias, groups)
    size = tuple(x.shape[2:])
    pads = padding(pad_type, pad, size, kernel, strides, dilations)
    positions(size, pads, kernel, strides, dilations)
    function, equal = _CONV[len(kernel)], symmetric(pads)
    if equal is None:
        x, equal = pad_spatial(x, pads, 0.0), (0,) * len(kernel)
    return function(x, weight, bias, strides, equal, dilations, groups)


def conv_quantized(
    x: Tensor,
    weight: Tensor,
    quantization_type: str,
    quant_scale: Tensor,
    quant_bias: Tensor,
    bias: Tensor | None = None,
    nbits: int = 8,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """conv with weight · quant_scale + quant_bias, each one number or one per output channel. iOS15/conv.py

    weight is uint8, one value in each byte, of `nbits` bits. The definition gives no formula for quantization_type
    "lut", nor for its uint8 bias: both are refused.
    """
    if quantization_type != "linear":
        raise ArtifactError(f"quantization_type {quantization_type!r}: only linear has a formula")
    if bias is not None:
        raise ArtifactError("bias of type uint8: the definition does not say what it stands for")
    if not 1 <= nbits <= 8:
        raise ArtifactError(f"nbits {nbits} must be 1 to 8")
    shape = (-1,) + (1,) * (weight.ndim - 1)
    for name, parameter in (("quant_scale", quant_scale), ("quant_bias", quant_bias)):
        if parameter.numel() not in (1, weight.shape[0]):
            raise ArtifactError(f"{name} has {parameter.numel()} values, neither one nor one per output channel")
    real = weight.to(x.dtype) * quant_scale.reshape(shape) + quant_bias.reshape(shape)
    return conv(x, real, None, strides, pad_type, pad, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv` with respect to its input, x being the gradient of its output. iOS15|17/conv.py

    weight is [C_in, C_out/groups, *K]. out[n, o, p·stride + k·dilation - pad_before] += weight[c, o, k] · x[n, c, p],
    plus bias[o]. Size: (D-1)·stride + (K-1)·dilation + 1 - pads; pad_type same: D·stride; output_shape [n, C_out, *D]
    decides where `conv` maps several sizes to that of x, and is refused where it does not.
    """
    kernel = _kernel(x, weight)
    ones = (1,) * len(kernel)
    strides, dilations = strides or ones, dilations or ones
    channels = weight.shape[1] * groups
    _channels(x, x.shape[1] // max(groups, 1), channels, bias, groups)
    if weight.shape[0] != x.shape[1]:
        raise ArtifactError(f"weight has {weight.shape[0]} input channels, x has {x.shape[1]}")
    if pad_type not in ("valid", "custom", "same"):
        raise ArtifactError(f"pad_type {pad_type!r} is none of valid, custom, same")
    d_in = tuple(x.shape[2:])
    padding("valid", None, d_in, kernel, strides, dilations)  # strides and dilations fit
    full = tuple((i - 1) * s + (k - 1) * d + 1 for i, s, k, d in zip(d_in, strides, kernel, dilations, strict=True))
    size = full
    if output_shape is not None:
        size = output_shape[2:]
        if len(output_shape) != x.ndim or output_shape[:2] != (x.shape[0], channels):
            raise ArtifactError(f"output_shape {list(output_shape)} must be [{x.shape[0]}, {channels}, …] of rank {x.ndim}")
    elif pad_type == "same":
        size = tuple(i * s for i, s in zip(d_in, strides, strict=True))
    pads = padding(pad_type, pad, size, kernel, strides, dilations)
    if output_shape is None and pad_type == "custom":
        size = tuple(f - before - after for f, (before, after) in zip(full, pads, strict=True))
    if min(size) < 1 or positions(size, pads, kernel, strides, dilations) != d_in:
        raise ArtifactError(f"an output of size {list(size)} does not belong to an input of size {list(d_in)}")
    cut = [(before, f - before - i) for f, i, (before, _) in zip(full, size, pads, strict=True)]
    function, equal = _TRANSPOSE[len(kernel)], symmetric(cut)
    if equal is not None:
        return function(x, weight, bias, strides, equal, 0, groups, dilations)
    result = function(x, weight, None, strides, 0, 0, groups, dilations)
    result = pad_spatial(result, [(0, max(0, -after)) for _, after in cut], 0.0)
    for axis, ((before, _), i) in enumerate(zip(cut, size, strict=True), 2):
        result = result.narrow(axis, before, i)
    return result if bias is None else result + bias.reshape(-1, *ones)


def _kernel(x: Tensor, weight: Tensor) -> Ints:
    if x.ndim != weight.ndim or x.ndim not in (3, 4, 5):
        raise ArtifactError(f"x of rank {x.ndim} and weight of rank {weight.ndim} must both have rank 3, 4 or 5")
    return tuple(weight.shape[2:])


def _channels(x: Tensor, inputs: int, outputs: int, bias: Tensor | None, groups: int) -> None:
    if groups < 1 or x.shape[1] != inputs * groups or outputs % groups:
        raise ArtifactError(f"groups {groups} with {x.shape[1]} channels, weights for {inputs} in a group and {outputs} outputs")
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise ArtifactError(f"bias of shape {list(bias.shape)} for {outputs} output channels")
