"""Every op the evaluator knows: one literal table, one small function each, whose docstring is its specification.

The specification is coremltools' op definitions, `coremltools/converters/mil/mil/ops/defs/<opset>/<file>.py`, version
9.0; each docstring names the file. T is fp16 or fp32 unless said otherwise. A signature is the op's parameter list:
`Tensor` arguments may be computed or constant, all others must be constants. What the evaluator does around each
function (rounding to the declared type, checking the declared shape) is in plan.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.errors import ArtifactError
from toolkit.mil import batching
from toolkit.mil.geometry import Ints, pad_spatial, padding

Tensors = tuple[Tensor, ...]
Labels = tuple[Any, ...]
_INTEGERS = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32}


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, NumPy broadcasting. T also int32. iOS15/elementwise_binary.py"""
    return x + y


def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y, NumPy broadcasting. T also int32. iOS15/elementwise_binary.py"""
    return x - y


def mul(x: Tensor, y: Tensor) -> Tensor:
    """x * y, NumPy broadcasting. T also int32. iOS15/elementwise_binary.py"""
    return x * y


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y, NumPy broadcasting; x / 0 is ±inf or nan as in IEEE 754. iOS15/elementwise_binary.py

    The definition lets T be int32 without saying how the quotient becomes an integer: refused.
    """
    _floats("real_div", x)
    return x / y


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise. iOS15/activation.py"""
    return torch.relu(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), elementwise. iOS15/activation.py"""
    return torch.sigmoid(x)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """min(max(x, alpha), beta), elementwise. iOS15/elementwise_unary.py"""
    return torch.clamp(x, alpha, beta)


def cast(x: Tensor, dtype: str) -> Tensor:
    """x in type `dtype`: fp16, fp32, int32, bool, and from iOS17 int8, uint8, int16. iOS15|17/elementwise_unary.py

    To float: rounded to nearest even by the caller, who knows the mode. To bool: x != 0. Float to integer: truncated
    towards zero. A value outside the target's range has no defined result and is refused.
    """
    if dtype in ("fp16", "fp32"):
        return x if x.is_floating_point() else x.double()
    if dtype == "bool":
        return x != 0
    if dtype not in _INTEGERS:
        raise ArtifactError(f"cast to {dtype!r} is not supported yet")
    limits, whole = torch.iinfo(_INTEGERS[dtype]), torch.trunc(x) if x.is_floating_point() else x
    if not x.is_meta and not bool(((whole >= limits.min) & (whole <= limits.max)).all()):
        raise ArtifactError(f"a value lies outside {dtype} ({limits.min}..{limits.max}); its cast is undefined")
    return whole.to(_INTEGERS[dtype])


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
    """Cross-correlation of x [n, C_in, *D] with weight [C_out, C_in/groups, *K], 1 to 3 spatial axes. iOS15/conv.py

    out[n, o, p] = bias[o] + Σ_{c,k} weight[o, c, k] · x[n, group(o) + c, p·stride + k·dilation - pad_before], x zero
    outside. Size: floor((D + pads - (K-1)·dilation - 1) / stride) + 1. Pads: see geometry.padding.
    """
    kernel = tuple(weight.shape[2:])
    ones = (1,) * len(kernel)
    strides, dilations = strides or ones, dilations or ones
    pads = padding(pad_type, pad, tuple(x.shape[2:]), kernel, strides, dilations)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel)]
    if all(before == after for before, after in pads):  # the common case needs no padded copy of x
        return function(x, weight, bias, strides, tuple(before for before, _ in pads), dilations, groups)
    return function(pad_spatial(x, pads, 0.0), weight, bias, strides, 0, dilations, groups)


def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window of x [n, C, *D]; padding never wins (it is -inf). iOS15/pool.py

    Strides default to 1 (not to the kernel, as in PyTorch). ceil_mode=True is refused.
    """
    strides, pads = _pool(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    function: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel_sizes)]
    result: Tensor = function(pad_spatial(x, pads, float("-inf")), kernel_sizes, strides)
    return result


def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Mean of each window of x [n, C, *D]; padding counts as zeros unless excluded. iOS15/pool.py

    Strides default to 1. Excluded: the sum divided by the number of window elements inside x. ceil_mode is refused.
    """
    strides, pads = _pool(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    function: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel_sizes)]
    mean: Tensor = function(pad_spatial(x, pads, 0.0), kernel_sizes, strides)
    if not exclude_padding_from_average:
        return mean
    inside: Tensor = function(pad_spatial(torch.ones_like(x[:1, :1]), pads, 0.0), kernel_sizes, strides)
    return mean / inside


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """gamma · (x - mean) / sqrt(variance + epsilon) + beta, along axis 1 of x [n, C, *D]. iOS15/normalization.py"""
    shape = (-1, *(1,) * (x.ndim - 2))
    y = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + epsilon)
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [*D, D_in] @ weight [D_out, D_in]ᵀ + bias [D_out]. iOS15/linear.py"""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """x @ y as numpy.matmul, the last two axes swapped first where asked. iOS15/linear.py"""
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x - max) / Σ exp(x - max) along `axis`. iOS15/activation.py"""
    return torch.softmax(x, axis)


def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    """Mean over `axes`, all of them by default. iOS15/reduction.py. T int32 is refused: its rounding is undefined."""
    _floats("reduce_mean", x)
    return x.mean(dim=tuple(range(x.ndim)) if axes is None else axes, keepdim=keep_dims)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Bilinear interpolation of the last two axes to floor(size · scale). iOS15|16/image_resizing.py

    Grid point i, from the sizes and not from the scale: i·(in-1)/(out-1) with align_corners, else (i+0.5)·in/out - 0.5,
    clamped to 0..in-1. size · scale is rounded to float32 as the definition's own shape code does. half_pixel_centers
    defaults to not align_corners; the definition gives no grid for other combinations, nor for one aligned point.
    """
    if half_pixel_centers not in (None, not align_corners):
        raise ArtifactError(f"half_pixel_centers={half_pixel_centers} with align_corners={align_corners}: no formula")
    factors = (scale_factor_height, scale_factor_width)
    scale, size = torch.tensor(factors), torch.tensor(x.shape[-2:])
    height, width = (int(each) for each in torch.floor(scale * size))
    if align_corners and (height == 1 < x.shape[-2] or width == 1 < x.shape[-1]):
        raise ArtifactError("align_corners with an output of one point: the definition divides by zero")
    flat = x.reshape(1, -1, *x.shape[-2:]) if x.ndim != 4 else x
    y = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=align_corners)
    return y.reshape(*x.shape[:-2], height, width)


def reshape(x: Tensor, shape: Ints) -> Tensor:
    """The values of x in row-major order; -1 is what is left. iOS15|17/tensor_transformation.py. 0 is refused."""
    if 0 in shape:
        raise ArtifactError(f"shape {list(shape)}: 0 means 'copy', differently by opset, and is not supported yet")
    return x.reshape(shape)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """Axes of length 1 inserted at `axes`, counted in the output. iOS15/tensor_transformation.py"""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Without those of `axes` (default: all) that have length 1; others are kept. iOS15/tensor_transformation.py"""
    return x.squeeze() if axes is None else x.squeeze(axes)


def transpose(x: Tensor, perm: Ints) -> Tensor:
    """Axis i of the result is axis perm[i] of x. iOS15/tensor_transformation.py"""
    return x.permute(perm)


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """The tensors one after the other along `axis`. iOS15/tensor_operation.py. interleave=True is refused."""
    if interleave:
        raise ArtifactError("interleave=True is not supported yet")
    return torch.cat(values, axis)


def classify(probabilities: Tensor, classes: Labels) -> tuple[list[Any], Tensor]:
    """Label of the largest probability, and all probabilities in class order. iOS15/classify.py

    Returns one label and one row for each len(classes) values. The first of equal probabilities wins: the definition
    is silent, and argmax is what everybody means.
    """
    table = probabilities.reshape(-1, len(classes))
    indices = [0] * len(table) if table.is_meta else table.argmax(dim=1).tolist()
    return [classes[index] for index in indices], table


def _floats(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise ArtifactError(f"{name} of {x.dtype}: only floating point is supported")


def _pool(
    x: Tensor, kernel: Ints, pad_type: str, strides: Ints | None, pad: Ints | None, ceil_mode: bool
) -> tuple[Ints, list[tuple[int, int]]]:
    if ceil_mode:
        raise ArtifactError("ceil_mode=True is not supported yet")
    strides = strides or (1,) * len(kernel)
    return strides, padding(pad_type, pad, tuple(x.shape[2:]), kernel, strides, (1,) * len(kernel))


@dataclass(frozen=True)
class Op:
    """A function of this file, when its operands may be batched, and what else is particular to it."""

    function: Callable[..., Any]
    batch_rule: batching.Rule
    dtype_parameter: str | None = None  # the parameter that names the output's type; None: the type of the operands
    shape_parameter: str | None = None  # the parameter that repeats the output's shape and so grows with the batch


OPS: dict[str, Op] = {
    "add": Op(add, batching.broadcast),
    "avg_pool": Op(avg_pool, batching.spatial),
    "batch_norm": Op(batch_norm, batching.spatial),
    "cast": Op(cast, batching.broadcast, dtype_parameter="dtype"),
    "classify": Op(classify, batching.classify),
    "clip": Op(clip, batching.broadcast),
    "concat": Op(concat, batching.concat),
    "conv": Op(conv, batching.spatial),
    "expand_dims": Op(expand_dims, batching.axes_of_output),
    "linear": Op(linear, batching.rows),
    "matmul": Op(matmul, batching.matmul),
    "max_pool": Op(max_pool, batching.spatial),
    "mul": Op(mul, batching.broadcast),
    "real_div": Op(real_div, batching.broadcast),
    "reduce_mean": Op(reduce_mean, batching.axes_of_x),
    "relu": Op(relu, batching.broadcast),
    "reshape": Op(reshape, batching.reshape, shape_parameter="shape"),
    "sigmoid": Op(sigmoid, batching.broadcast),
    "softmax": Op(softmax, batching.axes_of_x),
    "squeeze": Op(squeeze, batching.axes_of_x),
    "sub": Op(sub, batching.broadcast),
    "transpose": Op(transpose, batching.transpose),
    "upsample_bilinear": Op(upsample_bilinear, batching.spatial),
}
