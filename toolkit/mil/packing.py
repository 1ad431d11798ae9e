"""What makes a plan fast without changing what it computes: convolutions packed and fused for oneDNN, once, at load.

F.conv2d lays its weights out anew for every image; packed they lie ready, and the kernel applies a following ReLU, or an
addition and a ReLU, while its result is still in cache. Where PyTorch is built without oneDNN (macOS), in exact mode,
and for anything but a plain 2-D convolution, the plan stays as it is.

oneDNN's fused ReLU makes 0 of NaN, which would hide an overflow from everybody. So a fused step refuses (Unfused) where its sums
might leave float32's range, and the plan is run again without fusing. It knows by a bound on the magnitude of its result,
max|x| · max over outputs of Σ|weight| + max|bias|, which the result carries along: only where nothing is carried, or the carried
bound has grown too loose, are the values themselves looked at.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from toolkit.mil.ops.activation import relu
from toolkit.mil.ops.conv import conv
from toolkit.mil.ops.elementwise_binary import add
from toolkit.mil.ops.geometry import padding
from toolkit.mil.plan import Plan, Routine, Step, Unfused
from toolkit.mil.prove import add_liveness


@dataclass(frozen=True)
class _Packed:
    """A convolution that oneDNN can run from its own layout; called with the arguments of ops.conv.conv."""

    weight: Tensor
    bias: Tensor | None
    geometry: tuple[Any, ...]  # padding, strides, dilations, groups
    gain: float  # of the largest magnitude: max over outputs of Σ|weight|
    offset: float  # max|bias|
    then: str = "none"

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, other: Tensor | None = None) -> Tensor:
        bound = self._bound(_carried(x), 0.0 if other is None else _carried(other))
        if self.then != "none" and not bound < _LARGEST:
            bound = self._bound(_magnitude(x), 0.0 if other is None else _magnitude(other))
            if not bound < _LARGEST:  # NaN is not smaller either
                raise Unfused
        convolve = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            result: Tensor = convolve(x, self.weight, self.bias, *self.geometry, self.then, [], "")
        else:
            result = convolve.binary(x, other, self.weight, self.bias, *self.geometry, "add", 1.0, self.then, [], "")
        setattr(result, _BOUND, bound)
        return result

    def _bound(self, x: float, other: float) -> float:
        return self.gain * x + self.offset + other


_LARGEST = 1e38  # a third of float32's: what rounding adds to a sum does not matter
_BOUND = "_magnitude_bound"


def _carried(x: Tensor) -> float:
    """The bound that came with x; a value made of it, rounded to fp16 for one, carries none."""
    return getattr(x, _BOUND, math.inf)


def _magnitude(x: Tensor) -> float:
    """max|x|, NaN where there is one; a read of x."""
    least, most = torch.aminmax(x)
    return torch.maximum(-least, most).item()


def pack(plan: Plan) -> None:
    """Gives the plan a `fast` routine where that can be done; `routine`, with every intermediate value, stays."""
    if plan.mode == "exact" or plan.states or not torch.backends.mkldnn.is_available():
        return  # what writes a state cannot be run twice
    steps: list[Step | None] = [replace(each, call=_packed(plan, each) or each.call) for each in plan.routine.steps]
    outputs = set(plan.routine.outputs)
    readers: dict[int, list[int]] = {}
    for index, each in enumerate(plan.routine.steps):
        for slot in each.reads():
            readers.setdefault(slot, []).append(index)

    def only_reader(step: Step, function: Any) -> int | None:
        """The one step that reads this one's result, if it is a call of `function` and nobody else can see the value."""
        slot = step.outputs[0].slot
        index = readers.get(slot, [-1])[0]
        alone = len(readers.get(slot, ())) == 1 and slot not in outputs
        reader = steps[index] if alone else None
        return index if reader is not None and reader.op.function is function else None

    for index, step in enumerate(list(steps)):
        if step is None or steps[index] is not step or not isinstance(step.call, _Packed) or step.call.then != "none":
            continue
        place, other = index, None
        if not step.outputs[0].rounded and (added := only_reader(step, add)) is not None:
            other = _other(plan, plan.routine.steps[added], step)
            place = index if other is None else added
        activated = only_reader(plan.routine.steps[place], relu)
        if activated is None:
            continue
        final = replace(plan.routine.steps[activated].outputs[0], rounded=step.outputs[0].rounded)
        wires = step.wires if other is None else (*step.wires, ("other", other))
        steps[index] = steps[activated] = None
        steps[place] = replace(step, call=replace(step.call, then="relu"), wires=wires, outputs=(final,))
    plan.fast = Routine(plan.routine.inputs, [step for step in steps if step is not None], plan.routine.outputs)
    add_liveness(plan, plan.fast)


def _other(plan: Plan, added: Step, step: Step) -> int | None:
    """The slot that is added to the convolution's result, where it has the very same shape."""
    slots = [wire for _, wire in added.wires if isinstance(wire, int) and wire != step.outputs[0].slot]
    same = len(slots) == 1 and plan.types[slots[0]] == step.outputs[0].type and plan.slots[slots[0]] is None
    return slots[0] if same else None


def _packed(plan: Plan, step: Step) -> _Packed | None:
    """None where the convolution is not of the plain kind."""
    settings = step.settings
    wires: dict[str, Any] = dict(step.wires)
    if step.op.function is not conv or step.late:
        return None
    shape, weight = plan.types[wires["x"]], plan.slots[wires["weight"]]
    bias = plan.slots[wires["bias"]] if "bias" in wires else None
    if not shape.fixed or len(shape.sizes) != 4 or weight is None or (bias is None and "bias" in wires):
        return None
    strides, dilations = settings.get("strides") or (1, 1), settings.get("dilations") or (1, 1)
    pads = padding(settings.get("pad_type", "valid"), settings.get("pad"), shape.sizes[2:], tuple(weight.shape[2:]), strides, dilations)
    if any(before != after for before, after in pads) or 0 in shape.sizes or weight.numel() == 0:
        return None
    gain = weight.abs().flatten(1).sum(1, dtype=torch.float64).max().item()
    offset = 0.0 if bias is None else _magnitude(bias)
    if not (gain < _LARGEST and offset < _LARGEST):  # not finite, or so large that nothing can be proved
        return None
    geometry = ([before for before, _ in pads], list(strides), list(dilations), settings.get("groups", 1))
    with torch.inference_mode():
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        packed = reorder(weight.to_mkldnn(), *geometry, list(shape.sizes))
    return _Packed(packed, bias, geometry, gain, offset)
