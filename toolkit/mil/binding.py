"""From a Program to a Plan: binds every argument of every op, and refuses whatever is unknown, before anything runs."""

from dataclasses import replace
from typing import Any

import torch

from toolkit.errors import ArtifactError
from toolkit.mil import ops
from toolkit.mil.plan import (
    MODES,
    Plan,
    Step,
    Wire,
    add_liveness,
    batchable,
    defaults,
    execute,
    literal,
    parameters,
    storage,
    tensor,
    wired,
)
from toolkit.mil.program import Argument, Constant, Operation, Program, Type


def bind(program: Program, mode: str) -> Plan:
    """The plan of `program`, proved by a run without data. Raises ArtifactError naming the op that is wrong."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    binder = _Binder(program, mode)
    for operation in program.operations:
        binder.bind(operation)
    plan = binder.finish()
    add_liveness(plan)
    _prove_batching(plan)
    _dry_run(plan)
    return plan


class _Binder:
    """Walks the program once. `scope` maps each name to its slot; constants get one when first used as a tensor."""

    def __init__(self, program: Program, mode: str) -> None:
        self.program = program
        self.plan = Plan(program.path, mode)
        self.scope: dict[str, int] = {}
        self.constants: dict[str, Constant] = {}
        self.defined_at = {value.name: each for each in program.operations for value in each.outputs}
        for value in program.inputs:
            self.plan.inputs[value.name] = self.define(value.name, value.type, None)

    def error(self, operation: Operation, message: str) -> ArtifactError:
        return ArtifactError(f"{self.program.path}: {operation}: {message}.")

    def slot(self, type_: Type, value: object = None) -> int:
        self.plan.slots.append(value)
        self.plan.types.append(type_)
        return len(self.plan.slots) - 1

    def define(self, name: str, type_: Type, operation: Operation | None) -> int:
        """A new value. Only the dictionary of `classify` may take an existing name: coremltools writes it so."""
        if (name in self.scope or name in self.constants) and type_.dtype != "dictionary":
            raise ArtifactError(f"{self.program.path}: {operation or 'the inputs'}: {name!r} is defined twice.")
        self.scope[name] = self.slot(type_)
        self.plan.values.setdefault(name, self.scope[name])
        return self.scope[name]

    def bind(self, operation: Operation) -> None:
        if operation.type == "const":
            self.bind_const(operation)
            return
        if operation.type not in ops.OPS:
            raise self.error(
                operation,
                f"opset {self.program.opset}: the evaluator does not know {operation.type!r}; add a function to OPS in toolkit/mil/ops.py",
            )
        op = ops.OPS[operation.type]
        self.check_parameters(operation, op)
        settings: dict[str, Any] = {}
        wires: dict[str, Wire] = {}
        for name, kind in parameters(op.function).items():
            arguments = operation.inputs.get(name, ())
            if not arguments:
                continue
            if kind == ops.Tensors:
                wires[name] = tuple(self.wire(operation, argument) for argument in arguments)
            elif len(arguments) != 1:
                raise self.error(operation, f"input {name!r} has {len(arguments)} values, not one")
            elif kind is torch.Tensor:
                wires[name] = self.wire(operation, arguments[0])
            else:
                settings[name] = self.setting(operation, name, arguments[0], kind)
        if operation.type == "classify":
            self.plan.classes = settings["classes"]
        self.check_types(operation, op, settings, wires)
        outputs = tuple(self.define(value.name, value.type, operation) for value in operation.outputs)
        self.plan.steps.append(Step(operation, op, settings, wires, outputs))

    def bind_const(self, operation: Operation) -> None:
        """const: its value is the attribute `val`. iOS15/control_flow.py"""
        given = operation.attributes.get("val")
        if given is None or set(operation.attributes) != {"val"} or operation.inputs or len(operation.outputs) != 1:
            raise self.error(operation, "a const has one output and its value in the attribute 'val', nothing else")
        value = operation.outputs[0]
        if value.type != given.type:
            raise self.error(operation, f"declares {value.type}, its value is {given.type}")
        if value.name in self.scope or value.name in self.constants:
            raise self.error(operation, f"{value.name!r} is defined twice")
        self.constants[value.name] = given

    def check_parameters(self, operation: Operation, op: ops.Op) -> None:
        known = parameters(op.function)
        unknown = (set(operation.inputs) | set(operation.attributes)) - set(known)
        if unknown or set(operation.attributes):
            names = ", ".join(sorted(unknown | set(operation.attributes)))
            raise self.error(operation, f"parameters that its function in toolkit/mil/ops.py does not take: {names}")
        missing = [name for name in known if not operation.inputs.get(name) and name not in defaults(op.function)]
        if missing:
            raise self.error(operation, f"required parameters are missing: {', '.join(missing)}")

    def check_types(self, operation: Operation, op: ops.Op, settings: dict[str, Any], wires: dict[str, Wire]) -> None:
        """Tensors of one op share a type, and the output has it, unless a parameter names another."""
        found = {self.plan.types[slot].dtype for slot in wired(wires)}
        if len(found) != 1 or found & {"string", "list", "dictionary"}:
            raise self.error(operation, f"its tensors have types {', '.join(sorted(found))}; they must share one")
        if operation.type == "classify":
            kinds = [value.type.dtype for value in operation.outputs]
            if len(kinds) != 2 or kinds[0] not in ("string", "int64") or kinds[1] != "dictionary":
                raise self.error(operation, f"its outputs are {kinds}, not a label and a dictionary")
            return
        expected = settings[op.dtype_parameter] if op.dtype_parameter else found.pop()
        declared = [value.type.dtype for value in operation.outputs]
        if declared != [expected]:
            raise self.error(operation, f"declares outputs {declared}, its function gives [{expected!r}]")

    def wire(self, operation: Operation, argument: Argument) -> int:
        """The slot of a tensor argument; a constant is decoded when first wired, once."""
        if isinstance(argument, str) and argument in self.scope:
            return self.scope[argument]
        constant = self.lookup(operation, argument)
        try:
            slot = self.slot(constant.type, tensor(constant, self.plan.mode))
        except ArtifactError as error:
            raise self.error(operation, f"{argument if isinstance(argument, str) else 'a literal'}: {error}") from error
        if isinstance(argument, str):
            self.scope[argument] = slot
        return slot

    def setting(self, operation: Operation, name: str, argument: Argument, kind: object) -> object:
        if isinstance(argument, str) and argument in self.scope and argument not in self.constants:
            raise self.error(operation, f"input {name!r} is computed ({argument!r}); only constants are supported")
        try:
            return literal(self.lookup(operation, argument), kind)
        except ArtifactError as error:
            raise self.error(operation, f"input {name!r}: {error}") from error

    def lookup(self, operation: Operation, argument: Argument) -> Constant:
        if isinstance(argument, Constant):
            return argument
        if argument in self.constants:
            return self.constants[argument]
        later = self.defined_at.get(argument)
        why = f"only defined by {later}: a cycle, or out of order" if later else "defined nowhere"
        raise self.error(operation, f"uses {argument!r}, which is {why}. The file is damaged")

    def finish(self) -> Plan:
        for name in self.program.outputs:
            if name in self.constants and name not in self.scope:
                self.scope[name] = self.slot(self.constants[name].type, tensor(self.constants[name], self.plan.mode))
            if name not in self.scope:
                raise ArtifactError(f"{self.program.path}: output {name!r} is defined nowhere. The file is damaged.")
            self.plan.outputs[name] = self.scope[name]
        return self.plan


def _prove_batching(plan: Plan) -> None:
    """Follows batched values from the inputs to the outputs; the first op that forbids it becomes the reason."""
    plan.batched = {slot for slot in plan.inputs.values() if plan.types[slot].shape[:1] == (1,)}
    plan.why_not_batched = _why_not(plan)
    if plan.why_not_batched:
        plan.batched = set()


def _why_not(plan: Plan) -> str | None:
    if len(plan.batched) != len(plan.inputs) or not plan.inputs:
        return "an input has no leading axis of length 1"
    for step in plan.steps:
        if plan.batched.isdisjoint(wired(step.wires)):
            continue
        if not batchable(step, plan):
            return f"{step.operation} is not provably the same for stacked inputs"
        plan.batched.update(step.outputs)
    if not plan.batched.issuperset(plan.outputs.values()):
        return "an output does not depend on the inputs"
    return None


def _dry_run(plan: Plan) -> None:
    """Runs every op on tensors without data: shapes that do not fit are found at load, at no cost in memory."""
    without_data = [value.to("meta") if isinstance(value, torch.Tensor) else value for value in plan.slots]
    inputs = {
        name: torch.empty(plan.types[slot].shape, dtype=storage(plan.types[slot].dtype, plan.mode), device="meta")
        for name, slot in plan.inputs.items()
    }
    misfits = (ArtifactError, RuntimeError, ValueError, IndexError, KeyError, TypeError)  # what torch raises for them
    with torch.inference_mode():
        execute(replace(plan, slots=without_data), inputs, caught=misfits)
