"""Mixed precision without converting anew: what an fp16 program would compute if some of its ops were kept in fp32.

An op that is kept computes and gives float32. An op that is not still reads fp16, as the converter casts between the two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from toolkit.mil.plan import Plan, Step, slots_of


@dataclass(frozen=True)
class _Narrowed:
    """A call some of whose arguments come from ops in fp32."""

    call: Callable[..., Any]
    narrow: frozenset[str]

    def __call__(self, **arguments: Any) -> Any:
        return self.call(**{name: _rounded(value) if name in self.narrow else value for name, value in arguments.items()})


def keep_fp32(plan: Plan, names: frozenset[str]) -> None:
    """Changes `plan` in place, for `as-typed` mode. `names`: values computed outside nested blocks. Raises ValueError for others."""
    if unknown := sorted(names - plan.values.keys()):
        raise ValueError(f"the program computes no {', '.join(unknown)}")
    kept = {plan.values[name] for name in names}
    plan.routine.steps[:] = [_step(step, kept) for step in plan.routine.steps]


def readers(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Value -> the first outputs of the ops that read it."""
    found: dict[str, list[str]] = {name: [] for name in plan.values}
    names = {slot: name for name, slot in plan.values.items()}
    for step in plan.routine.steps:
        for slot in dict.fromkeys(step.reads()):
            if slot in names and step.outputs:
                found[names[slot]].append(step.outputs[0].name)
    return {name: tuple(each) for name, each in found.items()}


def _step(step: Step, kept: set[int]) -> Step:
    if any(target.slot in kept for target in step.outputs):
        return replace(step, outputs=tuple(replace(target, rounded=False) for target in step.outputs))
    narrow = frozenset(name for name, wire in step.wires if kept.intersection(slots_of(wire)))
    return replace(step, call=_Narrowed(step.call, narrow)) if narrow else step


def _rounded(value: Any) -> Any:
    """To fp16 and back: past 65504 it is inf, as the converter's cast makes it."""
    if isinstance(value, tuple):
        return tuple(_rounded(each) for each in value)
    return value.to(torch.float16).to(value.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
