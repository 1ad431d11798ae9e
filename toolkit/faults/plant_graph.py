"""Faults of the graph: activations, strides, padding, residuals, pooling, and what leaves the network."""

import math
from pathlib import Path

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.faults.fault import Plant, Planted, in_file, read_manifest, sign
from toolkit.faults.origin import module_of, relu_peaks, tensors
from toolkit.faults.plant_weights import pick, planted
from toolkit.faults.surgery import Layer, NotApplicable, Surgery, open_surgery
from toolkit.tensors import LOGITS, PROBABILITIES

CLIP = 6.0  # of ReLU6
HEADROOM = 32768.0  # largest weight of a layer made too large for fp16: half of 65504


def activation(kind: str, depth: float, *words: str, **constants: float) -> Plant:
    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        layer = pick(surgery, "relu", depth)
        layer.replace(kind, **constants)
        return Planted.at(layer.name, *words)

    return plant


def relu6(copy: Path, checkpoint: Checkpoint) -> Planted:
    """Where activations on the golden images exceed 6 by most. Raises NotApplicable where none does."""
    manifest = read_manifest(copy)
    surgery = open_surgery(copy, manifest)
    layers = surgery.layers("relu")
    peaks = relu_peaks(checkpoint, Artifact(copy, manifest).golden()[0])
    if len(peaks) != len(layers):
        raise NotApplicable(f"{len(layers)} relu in the file, {len(peaks)} calls of nn.ReLU in the network")
    if not peaks or max(peaks) <= CLIP:
        raise NotApplicable(f"no activation exceeds {CLIP:g}; the largest is {max(peaks, default=0):.3g}")
    layer = layers[int(np.argmax(peaks))]
    layer.replace("clip", low=0.0, high=CLIP)
    surgery.save()
    sign(copy)
    return Planted.at(layer.name, "relu6", "ReLU6", "clip")


def _reader(surgery: Surgery, value: str, kind: str) -> Layer | None:
    """The one layer that reads `value`, if it is of that kind and no add or other convolution reads it as well."""
    readers = [layer for each in ("conv", "add", "relu", "pool") for layer in surgery.layers(each) if value in layer.inputs]
    return readers[0] if len(readers) == 1 and readers[0].kind == kind else None


def _pairs(surgery: Surgery) -> list[tuple[Layer, Layer, Layer]]:
    """(convolution, its relu, the next convolution) wherever nothing else reads what lies between."""
    found = []
    for one in surgery.layers("conv"):
        relu = _reader(surgery, one.name, "relu")
        other = _reader(surgery, relu.name, "conv") if relu else None
        if relu and other:
            found.append((one, relu, other))
    return found


@in_file
def overflow(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """A layer times 2^k and, after its relu, 2^-k: the same function in exact arithmetic, Inf in fp16."""
    pairs = _pairs(surgery)
    if not pairs or pairs[0][0].weight().dtype != np.float16:
        raise NotApplicable("needs fp16 weights, and a convolution with a relu of its own after it")
    layer, relu, _ = pairs[len(pairs) // 2]
    found = planted(layer, checkpoint, relu.name, "overflow", "Inf", "NaN")
    weight, bias = layer.weight().astype(np.float64), layer.bias().astype(np.float64)
    power = 2.0 ** math.floor(math.log2(HEADROOM / max(np.abs(weight).max(), np.abs(bias).max())))
    layer.set_weight(weight * power)
    layer.set_bias(bias * power)
    surgery.insert_after(relu.name, 1 / power, 0.0)
    return found


@in_file
def padding_off_by_one(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """All rows and columns at the end: TensorFlow's SAME for a stride of 2, where PyTorch pads both sides."""
    for layer in _from_the_middle(surgery):
        top, bottom, left, right = layer.attribute("pads")
        if top and left:
            found = planted(layer, checkpoint, "pads", "padding")
            layer.set_attribute("pads", (top - 1, bottom + 1, left - 1, right + 1))
            return found
    raise NotApplicable("no convolution pads")


def _from_the_middle(surgery: Surgery) -> list[Layer]:
    layers = surgery.layers("conv")
    return layers[len(layers) // 2 :] + layers[: len(layers) // 2]


@in_file
def stride(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """One more, with padding so that the result has the size it had: (out - 1)·stride + kernel - in."""
    layer = pick(surgery, "conv", 0.0)
    found = planted(layer, checkpoint, "stride", "strides")
    steps = tuple(step + 1 for step in layer.attribute("strides"))
    pads: list[int] = []
    for step, size, made, kernel in zip(
        steps, surgery.shape(layer.inputs[0])[2:], surgery.shape(layer.name)[2:], layer.weight().shape[2:], strict=True
    ):
        if size is None or made is None:
            raise NotApplicable("the file does not say how large the picture is here")
        whole = max(0, (made - 1) * step + kernel - size)
        pads += [whole // 2, whole - whole // 2]
    layer.set_attribute("strides", steps)
    layer.set_attribute("pads", tuple(pads))
    return found


@in_file
def strides_swapped(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """Of two convolutions in a row: the second halves the picture instead of the first."""
    for one, relu, other in _pairs(surgery):
        mine, theirs = one.attribute("strides"), other.attribute("strides")
        if mine == theirs:
            continue
        shape = surgery.shape(one.name)
        larger = tuple(size and size * a // b for size, a, b in zip(shape[2:], mine, theirs, strict=True))
        one.set_attribute("strides", theirs)
        other.set_attribute("strides", mine)
        for value in (one.name, relu.name):
            surgery.set_shape(value, (*shape[:2], *larger))
        return planted(one, checkpoint, other.name, "stride", "strides")
    raise NotApplicable("no two convolutions in a row have different strides")


@in_file
def dilation(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """2, with padding so that the result has the size it had."""
    for layer in _from_the_middle(surgery):
        kernel = layer.weight().shape[2:]
        if min(kernel) >= 3 and all(each % 2 for each in kernel):
            found = planted(layer, checkpoint, "dilation", "dilations")
            top, bottom, left, right = layer.attribute("pads")
            more_high, more_wide = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
            layer.set_attribute("dilations", (2, 2))
            layer.set_attribute("pads", (top + more_high, bottom + more_high, left + more_wide, right + more_wide))
            return found
    raise NotApplicable("no kernel is 3×3 or larger")


@in_file
def residual_dropped(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """The add in the middle passes on what the convolutions computed, and nothing of what went round them."""
    layer = pick(surgery, "add", 0.5)
    convolutions = {each.name for each in surgery.layers("conv")}
    if layer.inputs[0] not in convolutions:
        layer.rewire(0, layer.inputs[1])
    layer.replace("identity")
    return Planted.at(layer.name, "residual")


@in_file
def residual_of_itself(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """The last add adds the convolutions' result to itself."""
    layer = pick(surgery, "add", 1.0)
    layer.rewire(1, layer.inputs[0])
    return Planted.at(layer.name, "residual")


@in_file
def max_pool(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "pool", 1.0)
    layer.replace("max_pool")
    return Planted.at(layer.name, "pool")


@in_file
def flatten_order(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """Columns of the linear layer in the order (h, w, c), for features that come in the order (c, h, w)."""
    layer, shape = pick(surgery, "linear", 0.0), surgery.shape(pick(surgery, "pool", 1.0).name)
    channels, places = shape[1] or 0, math.prod(size or 0 for size in shape[2:])
    weight = layer.weight()
    if places < 2 or weight.shape[1] != channels * places:
        raise NotApplicable("each channel is one number before the linear layer, so there is no order to mistake")
    found = planted(layer, checkpoint, "order", "flatten")
    layer.set_weight(weight.reshape(-1, channels, places).transpose(0, 2, 1).reshape(weight.shape))
    return found


@in_file
def softmax_axis(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "softmax", 1.0)
    layer.set_attribute("axis", 0)
    return Planted.at(layer.name, "softmax", "probabilities")


@in_file
def softmax_missing(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """Probabilities that are the scores: `probabilities` is computed by an affine op of 1 on the softmax's own input."""
    layer = pick(surgery, "softmax", 1.0)
    source, name = layer.inputs[0], layer.name
    surgery.insert_after(name, 1.0, 0.0)
    scale = next(each for each in surgery.layers("mul") if any(value.startswith(name) for value in each.inputs))
    scale.rewire(0, source)
    return Planted.at(name, "softmax", "probabilities")


@in_file
def softmax_twice(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "linear", 1.0)
    name = layer.name
    surgery.insert("softmax", name)
    return Planted.at(name, "softmax")


@in_file
def logits_scaled(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """A temperature of 2 left in: the same classes, other probabilities."""
    layer = pick(surgery, "linear", 1.0)
    name = layer.name
    surgery.insert_after(name, 0.5, 0.0)
    return Planted.at(name, "scale of the last layer", "multiplied by")


@in_file
def outputs_swapped(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.swap_outputs(LOGITS, PROBABILITIES)
    return Planted.at(LOGITS, "softmax", "probabilities are given as logits", "swapped")


@in_file
def constant_output(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = pick(surgery, "linear", 1.0)
    module, _ = module_of(layer, tensors(checkpoint))
    layer.set_weight(np.zeros_like(layer.weight()))
    return Planted.at(layer.name, module, "constant", "same logits", "last layer")
