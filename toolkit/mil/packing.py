"""What makes a plan fast without changing what it computes: convolutions packed and fused for oneDNN, once, at load.

F.conv2d lays its weights out anew for every image; packed they lie ready, and the kernel applies a following ReLU, or an
addition and a ReLU, while its result is still in cache. Where PyTorch is built without oneDNN (macOS), in exact mode,
and for anything but a plain 2-D convolution, the plan stays as it is.

oneDNN's fused ReLU makes 0 of NaN, which would hide an overflow from everybody. So a fused step refuses inputs that are not
all finite (Unfused), and the plan is run again without fusing.
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
    then: str = "none"

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, other: Tensor | None = None) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise
        if self.then != "none" and not (_finite(x) and (other is None or _finite(other))):
            raise Unfused
        if other is None:
            return convolve(x, self.weight, self.bias, *self.geometry, self.then, [], "")  # type: ignore[no-any-return]
        return convolve.binary(x, other, self.weight, self.bias, *self.geometry, "add", 1.0, self.then, [], "")  # type: ignore[no-any-return]


def _finite(x: Tensor) -> bool:
    """One read of x: a sum with NaN or Inf in it is none. A sum that overflows by itself only costs the slower way."""
    return math.isfinite(x.sum().item())


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
    if not _finite(weight) or not (bias is None or _finite(bias)):
        return None
    geometry = ([before for before, _ in pads], list(strides), list(dilations), settings.get("groups", 1))
    with torch.inference_mode():
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        packed = reorder(weight.to_mkldnn(), *geometry, list(shape.sizes))
    return _Packed(packed, bias, geometry)
