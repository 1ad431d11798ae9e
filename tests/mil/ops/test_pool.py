"""Pools against a loop over their windows, element by element, in float64."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import pool as ops

Array = Any
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
POOLS = {"avg": ops.avg_pool, "avg-excluded": ops.avg_pool, "l2": ops.l2_pool, "max": ops.max_pool}


@st.composite
def calls(draw: Any) -> tuple[Array, dict[str, Any]]:
    axes = draw(st.integers(1, 3))
    several = lambda least, most: tuple(draw(st.integers(least, most)) for _ in range(axes))  # noqa: E731
    ceil_mode = axes < 3 and draw(st.booleans())
    pads = [draw(st.integers(0, 3)) for _ in range(2 * axes)]
    if ceil_mode or draw(st.booleans()):
        pads[1::2] = pads[::2]
    call = {
        "kernel_sizes": several(1, 4),
        "strides": draw(st.none() | st.just(several(1, 4))),
        "pad_type": draw(st.sampled_from(["valid", "custom", *([] if ceil_mode else ["same"]), "same_lower"])),
        "pad": tuple(pads),
        "ceil_mode": ceil_mode,
    }
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *several(1, 7 if axes < 3 else 4))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=shape).astype(dtype), call


def places(size: int, kernel: int, stride: int, pad_type: str, pad: tuple[int, ...], ceil_mode: bool) -> list[list[int | None]] | None:
    """For each window, the index of each of its elements: None is padding, what lies beyond is left out."""
    before, after = pad if pad_type == "custom" else (0, 0)
    if pad_type.startswith("same"):
        needed = (len(range(0, size, stride)) - 1) * stride + kernel
        small, large = max(0, needed - size) // 2, -(-max(0, needed - size) // 2)
        before, after = (small, large) if pad_type == "same" else (large, small)
    total = before + size + after
    if total < kernel:
        return None
    starts = [0]  # rounding up: until a window reaches the end; rounding down: as long as the next one fits
    while starts[-1] + kernel < total if ceil_mode else starts[-1] + stride + kernel <= total:
        starts.append(starts[-1] + stride)
    if ceil_mode and before + after > 0 and starts[-1] >= before + size:
        starts.pop()
    everything = [None] * before + list(range(size)) + [None] * after
    return [everything[start : start + kernel] for start in starts]


def expected(name: str, x: Array, call: dict[str, Any]) -> Array | None:
    """None where a window holds nothing to take a mean or maximum of, or the kernel does not fit."""
    strides = call["strides"] or (1,) * len(call["kernel_sizes"])
    axes = [
        places(size, kernel, stride, call["pad_type"], call["pad"][2 * i : 2 * i + 2], call["ceil_mode"])
        for i, (size, kernel, stride) in enumerate(zip(x.shape[2:], call["kernel_sizes"], strides, strict=True))
    ]
    if None in axes:
        return None
    result = np.empty((*x.shape[:2], *map(len, axes)))
    for position in np.ndindex(*result.shape[2:]):
        window = list(itertools.product(*(axis[p] for axis, p in zip(axes, position, strict=True))))
        inside = [x[:, :, *place].astype(np.float64) for place in window if None not in place]
        count = len(window) if name == "avg" else len(inside)
        if count == 0 and name != "l2":
            return None
        if name == "l2":
            result[:, :, *position] = np.sqrt(sum((v * v for v in inside), np.zeros(x.shape[:2])))
        else:
            result[:, :, *position] = np.maximum.reduce(inside) if name == "max" else sum(inside, np.zeros(x.shape[:2])) / count
    return result


@pytest.mark.parametrize("name", POOLS)
@PROPERTY
@given(case=calls())
def test_each_window_gives_its_mean_norm_or_maximum(name: str, case: tuple[Array, dict[str, Any]]) -> None:
    x, call = case
    parameters = call | ({"exclude_padding_from_average": True} if name == "avg-excluded" else {})
    answer = expected(name, x, call)
    if answer is None or (name == "l2" and x.ndim > 4):
        with pytest.raises(ArtifactError):
            POOLS[name](torch.from_numpy(x), **parameters)
        return
    result = POOLS[name](torch.from_numpy(x), **parameters).numpy()
    assert result.dtype == x.dtype
    assert result.shape == answer.shape
    np.testing.assert_allclose(result, answer, *((3e-6, 3e-6) if x.dtype == np.float32 else (1e-12, 1e-12)))
    if name == "max":
        assert set(result.ravel()) <= set(x.ravel())


@pytest.mark.parametrize("rank", [1, 2])
@PROPERTY
@given(size=st.integers(1, 9), kernel=st.integers(1, 5), stride=st.integers(1, 5), data=st.data())
def test_ceil_mode_is_that_of_pytorch_where_no_window_starts_outside(rank: int, size: int, kernel: int, stride: int, data: Any) -> None:
    pad = data.draw(st.integers(0, kernel // 2))
    if size + 2 * pad < kernel:
        return
    x = torch.arange(1.0, size**rank + 1).reshape(1, 1, *(size,) * rank)
    module = [torch.nn.MaxPool1d, torch.nn.MaxPool2d][rank - 1](kernel, stride, pad, ceil_mode=True)
    parameters: dict[str, Any] = {
        "kernel_sizes": (kernel,) * rank,
        "strides": (stride,) * rank,
        "pad_type": "custom",
        "pad": (pad,) * 2 * rank,
    }
    counts = -(-(size + 2 * pad - kernel) // stride) + 1
    if pad == 0 and (counts - 1) * stride >= size:  # Core ML keeps this window, PyTorch does not
        with pytest.raises(ArtifactError, match="covers no element"):
            ops.max_pool(x, **parameters, ceil_mode=True)
    else:
        torch.testing.assert_close(ops.max_pool(x, **parameters, ceil_mode=True), module(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (ops.max_pool, {"pad_type": "same", "ceil_mode": True}, "pad_type same"),
        (ops.max_pool, {"pad_type": "custom", "pad": (0, 1, 0, 0), "ceil_mode": True}, "before and after"),
        (ops.avg_pool, {"x": torch.ones(1, 1, 4, 4, 4), "kernel_sizes": (2, 2, 2), "ceil_mode": True}, "3 spatial axes"),
        (ops.l2_pool, {"x": torch.ones(1, 1, 4, 4, 4), "kernel_sizes": (2, 2, 2)}, "3 spatial axes"),
        (ops.avg_pool, {"kernel_sizes": (2,)}, "do not fit"),
        (ops.avg_pool, {"kernel_sizes": (5, 2)}, "does not fit into"),
        (ops.max_pool, {"pad_type": "custom", "pad": (2, 0, 0, 0)}, "covers no element"),
        (ops.avg_pool, {"pad_type": "custom", "pad": (2, 0, 0, 0), "exclude_padding_from_average": True}, "covers no element"),
        (ops.avg_pool, {"pad_type": "full"}, "pad_type"),
    ],
)
def test_what_does_not_fit_is_refused(function: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        function(**{"x": torch.ones(1, 1, 4, 4), "kernel_sizes": (2, 2), "pad_type": "valid"} | parameters)


def test_padding_never_wins_a_maximum_and_nan_does() -> None:
    x = torch.tensor([-5e30, -math.inf, math.nan]).reshape(1, 1, 3)
    result = ops.max_pool(x, (2,), "custom", pad=(1, 0)).flatten()
    assert result[:2].tolist() == [x[0, 0, 0]] * 2
    assert result[2].isnan()


def test_pad_type_may_be_written_in_capitals() -> None:
    assert ops.max_pool(torch.ones(1, 1, 3), (2,), "SAME").shape == (1, 1, 3)


@pytest.mark.parametrize("pad_type", ["valid", "same_lower", "custom"])
@pytest.mark.parametrize("name", POOLS)
def test_meta_tensors_give_the_real_shape(name: str, pad_type: str) -> None:
    x = torch.ones(2, 3, 7, 5)
    for ceil_mode in (False, True):
        arguments = (3, 2), pad_type, (2, 2), (1, 1, 1, 1)
        real = POOLS[name](x, *arguments, ceil_mode=ceil_mode)
        assert POOLS[name](x.to("meta"), *arguments, ceil_mode=ceil_mode).shape == real.shape
