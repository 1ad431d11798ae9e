"""Matrix products and attention. T is fp16 or fp32 unless said otherwise."""

import math

import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Tensor, Tensors


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [*D, D_in] @ weight [D_out, D_in]ᵀ + bias [D_out]. T also int32. iOS15|17/linear.py"""
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[-1:] or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = [list(each.shape) for each in (x, weight, bias) if each is not None]
        raise ArtifactError(f"x, weight and bias have shapes {shapes}, not [*D, i], [o, i] and [o]")
    dtype = torch.promote_types(x.dtype, weight.dtype)  # from iOS17 weights may have a type of their own
    x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if x.is_meta:  # PyTorch's shape function of F.linear would import its compiler, a second or more
        return x @ weight.T
    if not x.is_floating_point():
        product = x @ weight.T
        return product if bias is None else product + bias
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """x @ y as numpy.matmul, the last two axes swapped first where asked. T also int32. iOS15|17/linear.py

    From iOS17 the types may differ: the wider one counts. x may have rank 1: one row, not transposed. y of rank 1 is
    refused, as by the shape inference (the text allows it).
    """
    if y.ndim < 2 or (x.ndim < 2 and transpose_x):
        raise ArtifactError(f"x of rank {x.ndim}, y of rank {y.ndim}, transpose_x={transpose_x}")
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = x.to(dtype), y.to(dtype)
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def einsum(values: Tensors, equation: str) -> Tensor:
    """nchw,nwhu->nchu or chw,whr->chr, with any letters: Σ_w of the products, axes of length 1 broadcast. iOS15/linear.py"""
    if len(values) != 2:
        raise ArtifactError(f"einsum of {len(values)} tensors, not 2")
    letters = {letter: chr(ord("a") + index) for index, letter in enumerate(dict.fromkeys(each for each in equation if each.isalpha()))}
    canonical = "".join(letters.get(each, each) for each in equation)
    if canonical not in ("abcd,adce->abce", "abc,cbd->abd"):
        raise ArtifactError(f"equation {equation!r} is neither nchw,nwhu->nchu nor chw,whr->chr")
    if values[0].ndim != values[1].ndim or values[0].ndim != canonical.index(","):
        raise ArtifactError(f"equation {equation!r} for tensors of rank {values[0].ndim} and {values[1].ndim}")
    x, y = (value.transpose(-3, -2) for value in values)  # [n, h, c, w], [n, h, w, u]
    return (x @ y).transpose(-3, -2)


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(query [*B, L, E] @ key [*B, S, E]ᵀ / √E + mask) @ value [*B, S, V], softmax over S. iOS18/transformers.py

    A bool mask keeps where it is true (false: -inf), a float mask is added; it broadcasts to [*B, L, S], though not along S.
    A row that a mask leaves nothing of is nan, as the formula says.
    """
    if not query.ndim == key.ndim == value.ndim >= 3 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        shapes = [list(each.shape) for each in (query, key, value)]
        raise ArtifactError(f"query, key and value have shapes {shapes}: they need one rank, 3 or more, and the same leading axes")
    if attn_mask is not None and attn_mask.shape[-1:] != key.shape[-2:-1]:
        raise ArtifactError(f"attn_mask of shape {list(attn_mask.shape)} for {key.shape[-2]} keys")
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, -1) @ value
