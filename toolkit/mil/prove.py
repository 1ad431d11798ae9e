"""What is proved of a plan at load, before it ever runs: its shapes, its memory, and whether inputs may be stacked."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ArtifactError
from toolkit.mil.batching import Call, Operand
from toolkit.mil.dtypes import DTYPES
from toolkit.mil.limits import PER_ELEMENT, current
from toolkit.mil.plan import MISFITS, Plan, Routine, Step, measure, misfit, slots_of, storage
from toolkit.mil.signatures import defaults


def prove(plan: Plan) -> None:
    """Fills in `frees`, `checked`, `why_not_batched` and the sizes. Raises ArtifactError for shapes that do not fit, or not into memory."""
    add_liveness(plan, plan.routine)
    kept = _constants(plan)
    plan.constants = sum(plan.types[slot].elements for slot in kept)
    states = sum(type_.element.elements for type_ in (plan.types[slot] for slot in plan.states.values()) if type_.element is not None)
    inputs = sum(target.type.elements for target in plan.routine.inputs)
    plan.peak = _peak(plan, plan.routine, plan.constants + states + inputs) - plan.constants
    _check(plan, plan.routine)
    plan.batched = {target.slot for target in plan.routine.inputs if (target.type.shape or ())[:1] == (1,)}
    plan.why_not_batched = _why_not_batched(plan)
    if plan.why_not_batched:
        plan.batched = set()
    plan.largest = max((plan.types[slot].elements for slot in plan.batched), default=0)


def _constants(plan: Plan) -> set[int]:
    return {slot for slot, value in enumerate(plan.slots) if value is not None}


def add_liveness(plan: Plan, routine: Routine) -> None:
    """Fills in `frees` of every step of a function's routine."""
    _add_liveness(routine, _constants(plan) | set(plan.outputs.values()))


def _add_liveness(routine: Routine, kept: set[int]) -> None:
    """After which step each slot is free. A nested block frees only what it defines itself: it may run again."""
    last: dict[int, int] = {}
    own = {target.slot for target in routine.inputs}
    for index, step in enumerate(routine.steps):
        for block in step.blocks:
            _add_liveness(block, kept | set(block.outputs))
        outputs = [target.slot for target in step.outputs]
        own.update(outputs)
        last.update(dict.fromkeys((*step.reads(), *outputs), index))
    frees: dict[int, list[int]] = {}
    for slot, index in last.items():
        if slot in own and slot not in kept and slot not in routine.outputs:
            frees.setdefault(index, []).append(slot)
    for index, step in enumerate(routine.steps):
        step.frees = tuple(frees.get(index, ()))


def _peak(plan: Plan, routine: Routine, live: int) -> int:
    """The most elements alive at once. Values of unknown length are counted when they exist. Raises ArtifactError for too many."""
    peak = _fits(plan, live, "the start")
    for step in routine.steps:
        live += sum(target.type.elements for target in step.outputs)
        peak = max(peak, _fits(plan, live, str(step.operation)))
        for block in step.blocks:
            peak = max(peak, _peak(plan, block, live + sum(target.type.elements for target in block.inputs)))
        live -= sum(plan.types[slot].elements for slot in step.frees)
    return peak


def _fits(plan: Plan, live: int, where: str) -> int:
    if live > plan.budget.live:
        raise ArtifactError(
            f"{plan.path}: {live} elements alive at {where}, more than {plan.budget.live}. "
            "The file is damaged, or too large for this evaluator."
        )
    return live


def _check(plan: Plan, routine: Routine) -> None:
    """Measures each op that could ask for more than it is given, on tensors that have the declared shapes and no data.

    Where a shape is only known later the op is measured each time it runs. What all take together is counted: see limits.py.
    """
    for step in routine.steps:
        for block in step.blocks:
            _check(plan, block)
        arguments = _declared_arguments(plan, step)
        try:
            if arguments is not None and step.op.bounded:
                step.operations += PER_ELEMENT * sum(target.type.elements for target in step.outputs)
                step.operations += PER_ELEMENT * sum(plan.types[slot].elements for _, wire in step.wires for slot in slots_of(wire))
            elif arguments is not None:
                shapes, step.operations = measure(step, arguments)
                for target, shape in zip(step.outputs, shapes, strict=True):
                    if target.type.dtype in DTYPES and not target.type.allows(tuple(shape)):
                        raise ArtifactError(misfit(shape, target.type))
            current().spend(step.operations)
        except MISFITS as error:
            raise ArtifactError(f"{plan.path}: {step.operation}: {str(error).rstrip('.')}.") from error
        step.checked = arguments is not None
    routine.operations = sum(step.operations for step in routine.steps)


def _declared_arguments(plan: Plan, step: Step) -> dict[str, Any] | None:
    """The step's tensor arguments, without data, in their declared types; None where those do not say enough."""
    if step.late or step.blocks or step.op.dynamic:
        return None
    arguments: dict[str, Any] = {}
    for name, wire in step.wires:
        slots = slots_of(wire)
        if not all(plan.types[slot].fixed and plan.types[slot].dtype in DTYPES for slot in slots):
            return None
        tensors = tuple(_empty(plan, slot) for slot in slots)
        arguments[name] = tensors if isinstance(wire, tuple) else tensors[0]
    return arguments


def _empty(plan: Plan, slot: int) -> Tensor:
    type_ = plan.types[slot]
    return torch.empty(type_.sizes, dtype=storage(type_.dtype, plan.mode), device="meta")


def _why_not_batched(plan: Plan) -> str | None:
    """Follows batched values from the inputs to the outputs; the first op that forbids it becomes the reason."""
    inputs = {target.slot for target in plan.routine.inputs}
    if plan.states:
        return "the model has state: each input may change what the next one sees"
    if plan.batched != inputs or not inputs:
        return "an input has no leading axis of length 1"
    if drawn := next((step for step in _steps(plan.routine) if step.operation.type.startswith("random_")), None):
        return f"{drawn.operation} draws anew for each input"
    for step in plan.routine.steps:
        if plan.batched.isdisjoint(step.reads()):
            continue
        if not _batchable(step, plan):
            return f"{step.operation} is not provably the same for stacked inputs"
        plan.batched.update(target.slot for target in step.outputs)
    if not plan.batched.issuperset(plan.outputs.values()):
        return "an output does not depend on the inputs"
    return None


def _steps(routine: Routine) -> Iterator[Step]:
    """All of them, nested blocks included."""
    for step in routine.steps:
        yield step
        for block in step.blocks:
            yield from _steps(block)


def _batchable(step: Step, plan: Plan) -> bool:
    """Whether the op's rule allows its batched operands; ops that none of them reaches need no permission."""
    if step.late or not all(target.type.fixed or target.type.dtype == "dictionary" for target in step.outputs):
        return False  # rules look at parameters and shapes
    operands = {name: tuple(Operand(plan.types[slot].sizes, slot in plan.batched) for slot in slots_of(wire)) for name, wire in step.wires}
    outputs = tuple(target.type.sizes for target in step.outputs if step.operation.type != "classify")
    if any(sizes[:1] != (1,) for sizes in outputs):
        return False
    return step.op.batch(Call(operands, defaults(step.op.function) | step.settings, outputs))
