"""Faults of numbers: weights, biases, and the batch-norm folded into them. The graph stays as it is."""

from collections.abc import Callable

import numpy as np

from toolkit.checkpoint import Checkpoint
from toolkit.faults.fault import Plant, Planted, in_file
from toolkit.faults.origin import Folded, folded, module_of, tensors
from toolkit.faults.surgery import Array, Layer, NotApplicable, Surgery

Change = Callable[[Array], Array]


def pick(surgery: Surgery, kind: str, depth: float) -> Layer:
    """The layer of that kind at a share of the way, 0 the first and 1 the last."""
    found = surgery.layers(kind)
    if not found:
        raise NotApplicable(f"the network has no {kind}")
    return found[round(depth * (len(found) - 1))]


def planted(layer: Layer, checkpoint: Checkpoint, *words: str) -> Planted:
    """Named by its value in the file, or by its module in the checkpoint."""
    return Planted.at(layer.name, module_of(layer, tensors(checkpoint))[0], *words)


def weights(kind: str, depth: float, change: Change, *words: str, bias: Change | None = None) -> Plant:
    """Changes the weights (float64 in, rounded to the stored type after) of one layer, and its bias where `bias` is given."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        layer = pick(surgery, kind, depth)
        found = planted(layer, checkpoint, *words)
        old = layer.weight()
        new = change(old.astype(np.float64)).astype(old.dtype)
        if bias is not None:
            layer.set_bias(bias(layer.bias().astype(np.float64)))
        elif np.array_equal(old, new):
            raise NotApplicable(f"the weights of {layer.name} stay the same")
        layer.set_weight(new)
        return found

    return plant


def all_weights(change: Change, *words: str) -> Plant:
    """Changes the weights of every convolution and linear layer. It lies in the first one, and in all others."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        layers = [*surgery.layers("conv"), *surgery.layers("linear")]
        changed = False
        for layer in layers:
            old = layer.weight()
            new = change(old.astype(np.float64)).astype(old.dtype)
            changed = changed or not np.array_equal(old, new)
            layer.set_weight(new)
        if not changed:
            raise NotApplicable("the weights stay the same")
        return Planted.at(layers[0].name, *(layer.name for layer in layers), *words)

    return plant


def swap_channels(weight: Array) -> Array:
    """The output channel with the largest weights, and the one that is farthest from it."""
    one, other = _far_apart(weight)
    swapped = weight.copy()
    swapped[[one, other]] = weight[[other, one]]
    return swapped


def _far_apart(weight: Array) -> tuple[int, int]:
    flat = weight.reshape(len(weight), -1)
    one = int((flat**2).sum(1).argmax())
    return one, int(((flat - flat[one]) ** 2).sum(1).argmax())


def transpose_one_kernel(weight: Array) -> Array:
    """The kernel (h, w) for which it matters most."""
    if weight.shape[2] != weight.shape[3] or weight.shape[2] == 1:
        raise NotApplicable(f"a kernel of {weight.shape[2]}×{weight.shape[3]} has no other side")
    changed, turned = weight.copy(), weight.transpose(0, 1, 3, 2)
    where = np.unravel_index(((weight - turned) ** 2).sum((2, 3)).argmax(), weight.shape[:2])
    changed[where] = turned[where]
    return changed


def negate_one_channel(weight: Array) -> Array:
    changed = weight.copy()
    changed[_far_apart(weight)[0]] *= -1
    return changed


def largest_becomes(times: float) -> Change:
    """The largest single weight, times a factor. In the first layer: in others, what it is multiplied with may always be 0."""

    def change(weight: Array) -> Array:
        changed = weight.copy()
        changed.flat[np.abs(changed).argmax()] *= times
        return changed

    return change


def times(factor: float) -> Change:
    return lambda weight: weight * factor


def one_value(value: float) -> Change:
    def change(array: Array) -> Array:
        changed = array.copy()
        changed.flat[0] = value
        return changed

    return change


def through_fp16(weight: Array) -> Array:
    return weight.astype(np.float16).astype(np.float64)


def through_bf16(weight: Array) -> Array:
    """Eight significant bits, to nearest even."""
    bits = weight.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded: Array = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def through_int(weight: Array) -> Array:
    return np.trunc(weight)


def through_four_bits(weight: Array) -> Array:
    scale = np.abs(weight).max() / 7
    return np.asarray(np.round(weight / scale) * scale)


def without_zero_point(weight: Array) -> Array:
    """uint8, affine; read back as q · scale instead of (q - zero point) · scale."""
    scale = (weight.max() - weight.min()) / 255
    zero_point = np.round(-weight.min() / scale)
    return np.asarray(np.clip(np.round(weight / scale) + zero_point, 0, 255) * scale)


def saturated(weight: Array) -> Array:
    """int8, with a scale four times too small: what is larger than a quarter of the largest weight is cut off."""
    scale = np.abs(weight).max() / 127 / 4
    return np.asarray(np.clip(np.round(weight / scale), -128, 127) * scale)


@in_file
def exchange_two(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """The weights of the last two convolutions of one shape."""
    layers = surgery.layers("conv")[::-1]
    for index, one in enumerate(layers):
        for other in layers[index + 1 :]:
            if one.weight().shape == other.weight().shape:
                mine, theirs = one.weight(), other.weight()
                one.set_weight(theirs)
                other.set_weight(mine)
                return Planted.at(other.name, one.name)
    raise NotApplicable("no two convolutions have the same shape")


def refolded(epsilon: float | None, *words: str) -> Plant:
    """Every folded convolution with another epsilon; None: one convolution, in the middle, without its batch-norm at all."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        stored = tensors(checkpoint)
        layers = surgery.layers("conv") if epsilon is not None else [pick(surgery, "conv", 0.5)]
        if not layers:
            raise NotApplicable("the network has no conv")
        origins: list[Folded] = [folded(layer, checkpoint, stored) for layer in layers]
        for layer, origin in zip(layers, origins, strict=True):
            weight, bias = (origin.weight, origin.bias) if epsilon is None else origin.refold(epsilon)
            layer.set_weight(weight)
            layer.set_bias(bias)
        return Planted.at(layers[0].name, *(layer.name for layer in layers), *(origin.module for origin in origins), *words)

    return plant


@in_file
def forget_bias(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "conv", 0.75)
    layer.set_bias(np.zeros_like(layer.bias()))
    return planted(layer, checkpoint, "bias")


@in_file
def infinite_bias(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "conv", 0.25)
    bias = layer.bias()
    bias[0] = np.inf
    layer.set_bias(bias)
    return planted(layer, checkpoint, "Inf", "NaN")
