"""Convolutions against sums over kernel elements in NumPy, in float64; the transposed one also against the dot product."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import conv as ops
from toolkit.mil.ops.geometry import padding

Array = Any
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
PAD_TYPES = ["valid", "custom", "same", "same_lower"]


@st.composite
def calls(draw: Any, pad_types: list[str]) -> dict[str, Any]:
    """Channels, sizes and settings that fit together, 1 to 3 spatial axes."""
    axes = draw(st.integers(1, 3))
    several = lambda least, most: tuple(draw(st.integers(least, most)) for _ in range(axes))  # noqa: E731
    return {
        "groups": draw(st.integers(1, 3)),
        "inputs": draw(st.integers(1, 2)),
        "outputs": draw(st.integers(1, 2)),
        "batch": draw(st.integers(1, 2)),
        "size": several(1, 6 if axes < 3 else 4),
        "kernel": several(1, 3),
        "strides": several(1, 3),
        "dilations": several(1, 2),
        "pad_type": draw(st.sampled_from(pad_types)),
        "pad": tuple(draw(st.integers(0, 2)) for _ in range(2 * axes)),
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "rng": np.random.default_rng(draw(st.integers(0, 2**32))),
    }


def pads_of(call: dict[str, Any], size: tuple[int, ...]) -> list[tuple[int, int]]:
    """same: the smallest padding with which the windows starting at 0, stride, 2·stride, … < size all fit."""
    if call["pad_type"] == "valid":
        return [(0, 0)] * len(size)
    if call["pad_type"] == "custom":
        return [call["pad"][2 * i : 2 * i + 2] for i in range(len(size))]
    result = []
    for i, k, s, d in zip(size, call["kernel"], call["strides"], call["dilations"], strict=True):
        total = next(t for t in itertools.count() if (len(range(0, i, s)) - 1) * s + d * (k - 1) + 1 <= i + t)
        result.append((total // 2, (total + 1) // 2)[:: 1 if call["pad_type"] == "same" else -1])
    return result


def terms(call: dict[str, Any], size: tuple[int, ...], pads: list[tuple[int, int]]) -> Any:
    """The output's size, and for each kernel element the part of the padded input it meets."""
    span = [i + sum(p) - (k - 1) * d for i, p, k, d in zip(size, pads, call["kernel"], call["dilations"], strict=True)]
    assume(min(span) > 0)
    out = tuple((i - 1) // s + 1 for i, s in zip(span, call["strides"], strict=True))
    slices = {
        k: tuple(slice(j * d, j * d + (n - 1) * s + 1, s) for j, d, n, s in zip(k, call["dilations"], out, call["strides"], strict=True))
        for k in np.ndindex(*call["kernel"])
    }
    return out, slices


def settings_of(call: dict[str, Any]) -> dict[str, Any]:
    return {name: call[name] for name in ("strides", "pad_type", "pad", "dilations", "groups")}


def agree(result: torch.Tensor, expected: Array, dtype: torch.dtype) -> None:
    assert result.dtype == dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, *((2e-5, 2e-5) if dtype == torch.float32 else (1e-12, 1e-12)))


def tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(array).to(dtype)


def expected_conv(call: dict[str, Any], x: Array, weight: Array, bias: Array) -> Array:
    pads = pads_of(call, call["size"])
    out, slices = terms(call, call["size"], pads)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    groups = np.split(padded, call["groups"], axis=1)
    result = np.zeros((call["batch"], weight.shape[0], *out)) + bias.reshape(-1, *(1,) * len(out))
    for k, part in slices.items():
        each = [
            np.einsum("nc...,oc->no...", g[:, :, *part], w[:, :, *k]) for g, w in zip(groups, np.split(weight, len(groups)), strict=True)
        ]
        result += np.concatenate(each, axis=1)
    return result


@PROPERTY
@given(call=calls(PAD_TYPES))
def test_conv_is_the_sum_over_its_kernel(call: dict[str, Any]) -> None:
    rng, channels = call["rng"], call["outputs"] * call["groups"]
    x = rng.normal(size=(call["batch"], call["inputs"] * call["groups"], *call["size"]))
    weight = rng.normal(size=(channels, call["inputs"], *call["kernel"]))
    bias = rng.normal(size=channels) * call["bias"]
    expected, dtype = expected_conv(call, x, weight, bias), call["dtype"]
    result = ops.conv(tensor(x, dtype), tensor(weight, dtype), tensor(bias, dtype) if call["bias"] else None, **settings_of(call))
    agree(result, expected, dtype)


@PROPERTY
@given(call=calls(PAD_TYPES), per_channel=st.booleans())
def test_conv_quantized_is_conv_with_scaled_weights(call: dict[str, Any], per_channel: bool) -> None:
    rng, channels = call["rng"], call["outputs"] * call["groups"]
    x = rng.normal(size=(call["batch"], call["inputs"] * call["groups"], *call["size"]))
    weight = rng.integers(0, 256, size=(channels, call["inputs"], *call["kernel"]), dtype=np.uint8)
    scale, offset = rng.normal(size=(2, channels if per_channel else 1))
    real = np.stack([w * s + o for w, s, o in zip(weight, np.resize(scale, channels), np.resize(offset, channels), strict=True)])
    expected = expected_conv(call, x, real, np.zeros(channels))
    result = ops.conv_quantized(
        tensor(x, torch.float64), torch.from_numpy(weight), "linear", torch.from_numpy(scale), torch.from_numpy(offset), **settings_of(call)
    )
    np.testing.assert_allclose(result.numpy(), expected, 1e-10, 1e-9)


@PROPERTY
@given(call=calls(["valid", "custom", "same"]), with_shape=st.booleans())
def test_conv_transpose_scatters_what_conv_gathers(call: dict[str, Any], with_shape: bool) -> None:
    """`size` is the size of the output; that of x is what conv makes of it."""
    size = call["size"]
    d_in, slices = terms(call, size, pads_of(call, size))
    if not with_shape:  # then the definition's size must be this one
        size = tuple(i * s for i, s in zip(d_in, call["strides"], strict=True))
        if call["pad_type"] != "same":
            full = [
                (i - 1) * s + (k - 1) * d + 1 for i, s, k, d in zip(d_in, call["strides"], call["kernel"], call["dilations"], strict=True)
            ]
            size = tuple(f - sum(p) for f, p in zip(full, pads_of(call, size), strict=True))
        assume(min(size) > 0)
    pads = pads_of(call, size)
    rng, groups, dtype = call["rng"], call["groups"], call["dtype"]
    x = rng.normal(size=(call["batch"], call["inputs"] * groups, *d_in))
    weight = rng.normal(size=(call["inputs"] * groups, call["outputs"], *call["kernel"]))
    bias = rng.normal(size=call["outputs"] * groups) * call["bias"]
    padded = np.zeros((call["batch"], call["outputs"] * groups, *(i + sum(p) for i, p in zip(size, pads, strict=True))))
    for k, part in slices.items():
        each = [
            np.einsum("nc...,co->no...", g, w[:, :, *k]) for g, w in zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True)
        ]
        padded[:, :, *part] += np.concatenate(each, axis=1)
    expected = padded[:, :, *(slice(b, b + i) for (b, _), i in zip(pads, size, strict=True))] + bias.reshape(-1, *(1,) * len(size))
    result = ops.conv_transpose(
        tensor(x, dtype),
        tensor(weight, dtype),
        tensor(bias, dtype) if call["bias"] else None,
        output_shape=(call["batch"], call["outputs"] * groups, *size) if with_shape else None,
        **settings_of(call),
    )
    agree(result, expected, dtype)


@PROPERTY
@given(call=calls(["valid", "custom", "same"]))
def test_conv_transpose_is_the_gradient_of_conv(call: dict[str, Any]) -> None:
    """<conv(u), v> = <u, conv_transpose(v)> for the same weights."""
    rng, groups = call["rng"], call["groups"]
    out, _ = terms(call, call["size"], pads_of(call, call["size"]))
    u = tensor(rng.normal(size=(call["batch"], call["inputs"] * groups, *call["size"])), torch.float64)
    v = tensor(rng.normal(size=(call["batch"], call["outputs"] * groups, *out)), torch.float64)
    weight = tensor(rng.normal(size=(call["outputs"] * groups, call["inputs"], *call["kernel"])), torch.float64)
    back = ops.conv_transpose(v, weight, output_shape=tuple(u.shape), **settings_of(call))
    torch.testing.assert_close((ops.conv(u, weight, **settings_of(call)) * v).sum(), (u * back).sum())


def test_stack_of_inputs_gives_the_stack_of_results() -> None:
    x, weight = torch.randn(3, 2, 5, 5), torch.randn(2, 2, 3, 3)
    for function in (ops.conv, ops.conv_transpose):
        torch.testing.assert_close(function(x, weight), torch.cat([function(each[None], weight) for each in x]))


X, W = torch.ones(1, 4, 5, 5), torch.ones(6, 2, 3, 3)


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (ops.conv, {"groups": 3}, "groups 3"),
        (ops.conv, {"groups": 1}, "groups 1"),
        (ops.conv, {"groups": 2, "bias": torch.ones(5)}, "bias of shape"),
        (ops.conv, {"groups": 2, "strides": (0, 1)}, "positive"),
        (ops.conv, {"groups": 2, "strides": (1,)}, "do not fit"),
        (ops.conv, {"groups": 2, "dilations": (3, 1)}, "does not fit into"),
        (ops.conv, {"groups": 2, "pad_type": "custom", "pad": (1, 1)}, "4 numbers"),
        (ops.conv, {"groups": 2, "pad_type": "custom", "pad": (1, 1, 1, -1)}, "none negative"),
        (ops.conv, {"groups": 2, "pad_type": "full"}, "none of valid"),
        (ops.conv, {"weight": torch.ones(6, 2, 3)}, "rank"),
        (ops.conv_transpose, {}, "input channels"),
        (ops.conv_transpose, {"weight": torch.ones(4, 1, 3, 3), "pad_type": "same_lower"}, "none of valid, custom, same"),
        (ops.conv_transpose, {"weight": torch.ones(4, 1, 3, 3), "output_shape": (1, 1, 8, 7)}, "does not belong"),
        (ops.conv_transpose, {"weight": torch.ones(4, 1, 3, 3), "output_shape": (2, 1, 7, 7)}, "output_shape"),
        (ops.conv_transpose, {"weight": torch.ones(4, 1, 3, 3), "pad_type": "custom", "pad": (4, 4, 0, 0)}, "does not belong"),
        (ops.conv_transpose, {"weight": torch.ones(4, 1, 3, 3), "strides": (1,)}, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(function: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        function(**{"x": X, "weight": W} | parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"quantization_type": "lut"}, "lut"),
        ({"bias": torch.ones(2)}, "uint8"),
        ({"nbits": 9}, "nbits"),
        ({"quant_scale": torch.ones(3)}, "3 values"),
    ],
)
def test_quantisation_without_a_formula_is_refused(parameters: dict[str, Any], message: str) -> None:
    call = {"x": X, "weight": torch.ones(2, 4, 1, 1, dtype=torch.uint8), "quantization_type": "linear"}
    with pytest.raises(ArtifactError, match=message):
        ops.conv_quantized(**call | {"quant_scale": torch.ones(1), "quant_bias": torch.ones(1)} | parameters)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "same", "same_lower"),
    [(4, 2, 1, (0, 1), (1, 0)), (7, 3, 2, (1, 1), (1, 1)), (6, 3, 2, (0, 1), (1, 0)), (5, 1, 3, (0, 0), (0, 0)), (6, 4, 4, (1, 1), (1, 1))],
)
def test_same_puts_the_odd_element_after_and_same_lower_before(
    size: int, kernel: int, stride: int, same: tuple[int, int], same_lower: tuple[int, int]
) -> None:
    for pad_type, expected in (("same", same), ("same_lower", same_lower)):
        assert padding(pad_type, None, (size,), (kernel,), (stride,), (1,)) == [expected]


@pytest.mark.parametrize("pad_type", ["valid", "same", "custom"])
@pytest.mark.parametrize("function", [ops.conv, ops.conv_transpose])
def test_meta_tensors_give_the_real_shape(function: Any, pad_type: str) -> None:
    x, weight, bias = torch.ones(2, 4, 6), torch.ones(4, 4, 3), torch.ones(4)
    parameters = {"strides": (2,), "pad_type": pad_type, "pad": (0, 1), "dilations": (1,)}
    real = function(x, weight, bias, **parameters)
    assert function(x.to("meta"), weight.to("meta"), bias.to("meta"), **parameters).shape == real.shape


def test_meta_tensors_give_the_real_shape_of_conv_quantized() -> None:
    arguments = torch.ones(1, 2, 4), torch.ones(3, 2, 2, dtype=torch.uint8), torch.ones(3), torch.ones(1)
    x, weight, scale, offset = (each.to("meta") for each in arguments)
    assert ops.conv_quantized(x, weight, "linear", scale, offset).shape == (1, 3, 3)
