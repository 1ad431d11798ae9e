"""A program made ready to run: names are slots, constants are decoded, parameters are Python values. And running it.

Three modes say what a number is. `exact`: float64 wherever the program says float. `fp32`: float32 likewise.
`as-typed`: computed in float32, then rounded to the type the program declares; fp16 overflows to inf, as fp16 does.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ArtifactError
from toolkit.mil.dtypes import FLOATS
from toolkit.mil.limits import PER_ELEMENT, PER_KERNEL, Budget, Work, applied
from toolkit.mil.ops.op import Op
from toolkit.mil.ops.types import TensorList
from toolkit.mil.program import Operation, Type

MODES = ("as-typed", "fp32", "exact")
MISFITS = (ArtifactError, RuntimeError, ValueError, IndexError, KeyError, TypeError, ArithmeticError)  # what torch raises for wrong shapes
Wire = int | tuple[int, ...]  # one slot, or those of a variadic argument
_STORED = {
    "bool": torch.bool, "int4": torch.int8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64, "uint1": torch.uint8, "uint2": torch.uint8, "uint3": torch.uint8, "uint4": torch.uint8,
    "uint6": torch.uint8, "uint8": torch.uint8, "uint16": torch.int32, "uint32": torch.int64,
}  # fmt: skip


class Unfused(Exception):
    """A fused step met what it would hide: the plan has to run without fusing."""


def storage(dtype: str, mode: str) -> torch.dtype:
    """The type a value is held in: fp16 in float32, where kernels are fast, and unsigned types in the next wider signed one."""
    if dtype in _STORED:
        return _STORED[dtype]
    return torch.float64 if mode == "exact" or (mode == "as-typed" and dtype == "fp64") else torch.float32


@dataclass(frozen=True)
class Target:
    """Where a value goes, and what becomes of it on the way: `rounded` to fp16 first, then held as `storage`."""

    slot: int
    name: str
    type: Type
    storage: torch.dtype | None
    rounded: bool

    @classmethod
    def of(cls, slot: int, name: str, type_: Type, mode: str, exact: bool = False) -> "Target":
        held = storage(type_.dtype, mode) if type_.dtype in _STORED or type_.dtype in FLOATS else None
        return cls(slot, name, type_, held, mode == "as-typed" and type_.dtype == "fp16" and not exact)

    def settle(self, value: Any) -> Any:
        """`value` as the program declares it."""
        if self.rounded:
            return value.to(torch.float16).to(self.storage)
        return value if self.storage is None or value.dtype == self.storage else value.to(self.storage)


def slots_of(wire: Wire) -> tuple[int, ...]:
    return wire if isinstance(wire, tuple) else (wire,)


@dataclass
class Step:
    """One op, bound. `call` has the literal parameters; `wires` and `late` say which slots feed the others.

    `late` parameters are Python values that the program computes. `checked`: it needs no measuring any more, and takes `operations`.
    """

    operation: Operation
    op: Op
    settings: dict[str, Any]
    call: Callable[..., Any]
    wires: tuple[tuple[str, Wire], ...]
    late: tuple[tuple[str, int, Callable[[Any], Any]], ...]
    blocks: "tuple[Routine, ...]"
    outputs: tuple[Target, ...]
    frees: tuple[int, ...] = ()  # slots that nobody reads after this step
    checked: bool = False
    operations: int = PER_KERNEL

    def reads(self) -> list[int]:
        """The slots it needs, those of nested blocks included."""
        own = [slot for _, wire in self.wires for slot in slots_of(wire)]
        nested = [slot for block in self.blocks for step in block.steps for slot in step.reads()]
        return own + [slot for _, slot, _ in self.late] + nested + [slot for block in self.blocks for slot in block.outputs]


@dataclass
class Routine:
    """A block, bound: its steps in order, what it takes and what it returns. `operations`: of its steps, as far as known at load."""

    inputs: tuple[Target, ...]
    steps: list[Step]
    outputs: tuple[int, ...]
    operations: int = 0


@dataclass
class Plan:
    """What `execute` needs. `slots` holds constants and None; `why_not_batched` is None where batching is proved."""

    path: Path
    mode: str
    budget: Budget = field(default_factory=Budget)
    slots: list[Any] = field(default_factory=list)
    types: list[Type] = field(default_factory=list)
    routine: Routine = field(default_factory=lambda: Routine((), [], ()))
    fast: Routine | None = None  # the same with fewer, fused steps, for when nobody asks for values in between
    states: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)  # everything computed outside nested blocks, for intermediates
    classes: tuple[Any, ...] = ()
    constexpr: set[str] = field(default_factory=set)  # the ops that were decoded at load
    batched: set[int] = field(default_factory=set)  # the slots whose axis 0 grows with the batch
    why_not_batched: str | None = None
    constants: int = 0  # elements of all constants
    peak: int = 0  # most other elements alive at once, for one input
    largest: int = 0  # elements of the largest value that grows with the batch

    def room(self, kept: Iterable[int] = ()) -> int:
        """How many inputs may go through at once so that their values, those in the slots `kept` all along, fit in memory; or 0."""
        each = self.peak + sum(self.types[slot].elements for slot in kept)
        fit = min((self.budget.live - self.constants) // max(1, each), self.budget.elements // max(1, self.largest))
        return min(fit, 1) if self.why_not_batched else fit


def execute(
    plan: Plan, inputs: Mapping[str, Any], batch: int = 1, states: Mapping[str, Any] | None = None, keep: frozenset[int] = frozenset()
) -> list[Any]:
    """Runs every step; returns the slots, of which outputs and `keep` are still filled.

    `batch` is how many inputs are stacked on axis 0; more than 1 only where `why_not_batched` is None.
    Raises ArtifactError, naming the op, for whatever a program does that its definition does not allow.
    """
    if plan.fast is not None and not keep:
        with suppress(Unfused):
            return _run(plan, plan.fast, inputs, batch, states, keep)
    return _run(plan, plan.routine, inputs, batch, states, keep)


def _run(
    plan: Plan, routine: Routine, inputs: Mapping[str, Any], batch: int, states: Mapping[str, Any] | None, keep: frozenset[int]
) -> list[Any]:
    with applied(Work(plan.budget, batch)) as work:
        run = _Run(plan, batch, keep, list(plan.slots), work)
        for name, slot in plan.states.items():
            run.slots[slot] = (states or {})[name]
        for target in plan.routine.inputs:
            run.slots[target.slot] = target.settle(inputs[target.name])
        work.spend(plan.routine.operations)
        run.steps(routine)
        return run.slots


@dataclass
class _Run:
    """One execution: the slots it fills, and what it was asked for."""

    plan: Plan
    batch: int
    keep: frozenset[int]
    slots: list[Any]
    work: Work

    def steps(self, routine: Routine) -> None:
        """The inner loop. What is done here is done some hundred times an image: it stays plain."""
        slots, keep = self.slots, self.keep
        for step in routine.steps:
            arguments = {
                name: slots[wire] if wire.__class__ is int else tuple([slots[each] for each in wire])  # type: ignore[union-attr]
                for name, wire in step.wires
            }
            try:
                if not step.checked or self.batch > 1:
                    self.prepare(step, arguments)
                results = step.call(**arguments)
                for target, result in zip(step.outputs, results if results.__class__ is tuple else (results,), strict=True):
                    slots[target.slot] = self.checked(step, target, result)
                    if not step.checked:
                        self.work.spend(PER_ELEMENT * _count(result))
            except MISFITS as error:
                raise ArtifactError(_at(self.plan, step, error)) from error
            for slot in step.frees:
                if slot not in keep:
                    slots[slot] = None

    def prepare(self, step: Step, arguments: dict[str, Any]) -> None:
        """The rarer things a step may need: computed parameters, nested blocks, a batch, a look at its memory."""
        for name, slot, read in step.late:
            arguments[name] = read(self.slots[slot])
        if step.blocks:
            arguments["blocks"] = tuple(partial(self.block, step, block) for block in step.blocks)
        if self.batch > 1 and step.op.stretch and step.outputs[0].slot in self.plan.batched:
            arguments |= step.op.stretch(step.settings, self.batch, step.outputs[0].type.sizes)
        if step.checked:
            return
        if step.blocks or step.op.dynamic or step.op.bounded:
            self.work.spend(PER_ELEMENT * sum(_count(arguments[name]) for name, _ in step.wires))
            return
        shapes, operations = measure(step, arguments)
        self.work.spend(operations)
        for shape in shapes:
            if shape.numel() > self.plan.budget.elements:
                raise ArtifactError(f"would compute {list(shape)}, more than {self.plan.budget.elements} elements")

    def block(self, step: Step, routine: Routine, *values: Any) -> tuple[Any, ...]:
        """Calls a nested block. Its slots are its own, but it may read those of the blocks around it."""
        if len(values) != len(routine.inputs):
            raise ArtifactError(f"a nested block takes {len(routine.inputs)} values, it is given {len(values)}")
        for target, value in zip(routine.inputs, values, strict=True):
            self.slots[target.slot] = self.checked(step, target, value)
        self.work.spend(PER_KERNEL + routine.operations)
        self.steps(routine)
        return tuple(self.slots[slot] for slot in routine.outputs)

    def checked(self, step: Step, target: Target, result: Any) -> Any:
        """The result in its declared type; raises ArtifactError when its shape or kind is not the declared one."""
        if target.storage is None or not isinstance(result, Tensor):  # a list, or what classify gives
            if isinstance(result, TensorList):
                self.check_memory(result)
            return result
        shape = target.type.shape
        if self.batch > 1 and target.slot in self.plan.batched:
            shape = (self.batch, *target.type.sizes[1:])
        if result.shape != shape:
            if shape is not None and not Type(target.type.dtype, shape).allows(tuple(result.shape)):
                raise ArtifactError(misfit(result.shape, target.type))
            if result.numel() > self.plan.budget.elements >> 8:  # of a shape that the program leaves open
                self.check_memory(result)
        return target.settle(result)

    def check_memory(self, result: Any) -> None:
        """Refuses what would not fit beside all that is alive. Lists share elements, so those are only told apart where it matters."""
        most = self.plan.budget.live
        alive = [*self.slots, result]
        self.work.spend(PER_ELEMENT * len(alive))
        if (
            sum(value.numel() if isinstance(value, Tensor) else value.elements for value in alive if isinstance(value, Tensor | TensorList))
            <= most
        ):
            return
        tensors = [value for value in alive if isinstance(value, Tensor)]
        tensors += [each for value in alive if isinstance(value, TensorList) for each in value.items if each is not None]
        total = sum({id(each): each.numel() for each in tensors}.values())
        if total > most:
            raise ArtifactError(f"{total} elements alive, more than {most}. The file is damaged, or too large")


def misfit(shape: torch.Size, declared: Type) -> str:
    return f"computes shape {list(shape)}, the program declares {declared}. The file is damaged or was made by a faulty converter"


def _at(plan: Plan, step: Step, error: Exception) -> str:
    """Where it happened, before what; only the innermost op of nested ones names itself."""
    message = str(error) if isinstance(error, ArtifactError) else f"{type(error).__name__}: {error}"
    return message if message.startswith(f"{plan.path}: ") else f"{plan.path}: {step.operation}: {message.rstrip('.')}."


def _count(value: Any) -> int:
    """Numbers of a tensor, items of a list, of all values of a variadic argument."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, TensorList):
        return len(value.items)
    return sum(_count(each) for each in value) if isinstance(value, tuple | list) else 0


def measure(step: Step, arguments: Mapping[str, Any]) -> tuple[tuple[torch.Size, ...], int]:
    """The shapes of the step's results and the operations it takes, found at no cost in memory. Raises what the op itself would raise."""
    from toolkit.mil.meter import Meter, without_data

    if step.op.elementwise:
        shape = torch.broadcast_shapes(*(value.shape for value in arguments.values() if isinstance(value, Tensor)))
        return (shape,), PER_KERNEL + PER_ELEMENT * (shape.numel() + _count(tuple(arguments.values())))
    with torch.inference_mode(False), torch.no_grad(), Meter() as meter:  # in inference mode PyTorch shows a convolution as one unknown op
        results = step.call(**{name: without_data(value) for name, value in arguments.items()})
    return tuple(result.shape for result in (results if isinstance(results, tuple) else (results,))), meter.operations
