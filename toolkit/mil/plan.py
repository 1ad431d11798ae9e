"""A program made ready to run: names become slots, constants are decoded once, every op and parameter is checked.

Three modes say what a number is. `exact`: float64 wherever the program says float. `fp32`: float32 likewise.
`as-typed`: computed in float32, then rounded to the type the program declares; fp16 overflows to inf, as fp16 does.
"""

import math
import types
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from toolkit.errors import ArtifactError
from toolkit.mil import ops
from toolkit.mil.batching import Call, Operand
from toolkit.mil.geometry import Ints
from toolkit.mil.program import Constant, Operation, Type

MODES = ("as-typed", "fp32", "exact")
MAX_LIVE_ELEMENTS = 1 << 30  # of all values alive at once: 4 GiB as float32
Wire = int | tuple[int, ...]  # one slot, or those of a variadic argument
_INTEGERS = {
    "bool": torch.bool, "int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64,
}  # fmt: skip


def storage(dtype: str, mode: str) -> torch.dtype:
    """The type a value is held in. as-typed holds fp16 values in float32, where kernels are fast and they fit."""
    if dtype in _INTEGERS:
        return _INTEGERS[dtype]
    if mode == "exact" or (mode == "as-typed" and dtype == "fp64"):
        return torch.float64
    return torch.float32


def settle(value: Tensor, dtype: str, mode: str) -> Tensor:
    """`value` as the program declares it: rounded to fp16 in as-typed mode, then held in its storage type."""
    if mode == "as-typed" and dtype == "fp16":
        value = value.to(torch.float16)
    return value.to(storage(dtype, mode))


@dataclass(frozen=True)
class Step:
    """One op, bound: `settings` are its literal parameters, `wires` say which slots feed the others."""

    operation: Operation
    op: ops.Op
    settings: dict[str, Any]
    wires: dict[str, Wire]
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()  # slots that nobody reads after this step


@dataclass
class Plan:
    """What `execute` needs. `slots` holds constants and None; `why_not_batched` is None where batching is proved."""

    path: Path
    mode: str
    slots: list[Any] = field(default_factory=list)
    types: list[Type] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)  # everything computed, for intermediates
    classes: tuple[Any, ...] = ()
    batched: set[int] = field(default_factory=set)  # the slots whose axis 0 grows with the batch
    why_not_batched: str | None = None


def execute(
    plan: Plan,
    inputs: dict[str, Tensor],
    batch: int = 1,
    keep: frozenset[int] = frozenset(),
    caught: tuple[type[Exception], ...] = (ArtifactError,),
) -> list[Any]:
    """Runs every step; returns the slots, of which outputs and `keep` are still filled.

    `batch` is how many inputs are stacked on axis 0; more than 1 only where `why_not_batched` is None.
    Errors of the kinds `caught` become an ArtifactError that names the op.
    """
    slots = list(plan.slots)
    for name, slot in plan.inputs.items():
        slots[slot] = settle(inputs[name], plan.types[slot].dtype, plan.mode)
    for step in plan.steps:
        arguments = dict(step.settings)
        for name, wire in step.wires.items():
            arguments[name] = slots[wire] if isinstance(wire, int) else tuple(slots[each] for each in wire)
        if batch > 1 and step.op.shape_parameter and step.outputs[0] in plan.batched:
            arguments[step.op.shape_parameter] = (batch, *plan.types[step.outputs[0]].shape[1:])
        try:
            results = step.op.function(**arguments)
        except caught as error:
            raise ArtifactError(f"{plan.path}: {step.operation}: {error}.") from error
        for slot, result in zip(step.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            slots[slot] = _checked(plan, step, slot, result, batch)
        for slot in step.frees:
            if slot not in keep:
                slots[slot] = None
    return slots


def _checked(plan: Plan, step: Step, slot: int, result: Any, batch: int) -> Any:
    """The result in its declared type; raises ArtifactError when its shape or kind is not the declared one."""
    declared = plan.types[slot]
    if declared.dtype == "dictionary":
        shape: tuple[int, ...] = (batch, len(plan.classes))
    elif isinstance(result, Tensor):
        shape = (batch, *declared.shape[1:]) if slot in plan.batched else declared.shape
    else:
        return result  # the class labels
    if tuple(result.shape) != shape:
        raise ArtifactError(
            f"{plan.path}: {step.operation} computes shape {list(result.shape)}, the program declares {list(shape)}. "
            "The file is damaged or was made by a faulty converter."
        )
    return result if declared.dtype == "dictionary" else settle(result, declared.dtype, plan.mode)


@cache
def parameters(function: Any) -> dict[str, Any]:
    """Parameter -> its type, `X | None` taken as X."""
    hints = {name: hint for name, hint in get_type_hints(function).items() if name != "return"}
    unions = {name: get_args(hint)[0] for name, hint in hints.items() if isinstance(hint, types.UnionType)}
    return hints | unions


def defaults(function: Any) -> dict[str, Any]:
    """Parameter -> default, for those that have one. Our op functions have plain positional parameters."""
    values = function.__defaults__ or ()
    return dict(zip(list(parameters(function))[-len(values) :], values, strict=True)) if values else {}


def literal(constant: Constant, kind: Any) -> Any:
    """A constant as the Python value a parameter of type `kind` takes. Raises ArtifactError when it is not one."""
    value, dtype, rank = constant.value, constant.type.dtype, len(constant.type.shape)
    if kind is str and dtype == "string":
        return value
    if kind == ops.Labels and dtype == "list":
        return value
    if kind is bool and dtype == "bool" and rank == 0:
        return bool(value)
    if kind is int and dtype.startswith(("int", "uint")) and rank == 0:
        return int(value)
    if kind is float and isinstance(value, np.ndarray) and dtype != "bool" and rank == 0:
        return float(value)
    if kind == Ints and dtype.startswith(("int", "uint")) and rank == 1:
        return tuple(int(each) for each in value)
    raise ArtifactError(f"a constant {constant.type} cannot be its {getattr(kind, '__name__', kind)}")


def tensor(constant: Constant, mode: str) -> Tensor:
    """A constant as a tensor in the mode's storage type: always a copy, so that the weight file can go."""
    if not isinstance(constant.value, np.ndarray):
        raise ArtifactError(f"a constant {constant.type} is no tensor")
    dtype = storage(constant.type.dtype, mode)
    return torch.from_numpy(constant.value.astype(constant.value.dtype.newbyteorder("="))).to(dtype)


def slots_of(wire: Wire) -> tuple[int, ...]:
    return wire if isinstance(wire, tuple) else (wire,)


def wired(wires: dict[str, Wire]) -> list[int]:
    """The slots an op reads."""
    return [slot for wire in wires.values() for slot in slots_of(wire)]


def batchable(step: Step, plan: Plan) -> bool:
    """Whether the op's rule allows its batched operands; ops that none of them reaches need no permission."""
    operands = {
        name: tuple(Operand(plan.types[slot].shape, slot in plan.batched) for slot in slots_of(wire)) for name, wire in step.wires.items()
    }
    call = Call(operands, defaults(step.op.function) | step.settings, plan.types[step.outputs[0]].shape)
    return step.op.batch_rule(call)


def add_liveness(plan: Plan) -> None:
    """Fills in `frees`, and refuses programs whose values would not fit in memory together."""
    last: dict[int, int] = {}
    for index, step in enumerate(plan.steps):
        last.update(dict.fromkeys((*wired(step.wires), *step.outputs), index))
    kept = set(plan.outputs.values()) | {slot for slot, value in enumerate(plan.slots) if value is not None}
    sizes = [math.prod(type_.shape) for type_ in plan.types]
    live = sum(sizes[slot] for slot in plan.inputs.values())
    for index, step in enumerate(plan.steps):
        live += sum(sizes[slot] for slot in step.outputs)
        if live > MAX_LIVE_ELEMENTS:
            raise ArtifactError(
                f"{plan.path}: {live} elements alive at {step.operation}, more than {MAX_LIVE_ELEMENTS}. "
                "The file is damaged, or too large for this evaluator."
            )
        frees = tuple(slot for slot, at in last.items() if at == index and slot not in kept)
        live -= sum(sizes[slot] for slot in frees)
        plan.steps[index] = replace(step, frees=frees)
