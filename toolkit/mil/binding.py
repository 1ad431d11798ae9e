"""From a Program to a Plan: binds every argument of every op, and refuses whatever is unknown, before anything runs."""

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from toolkit.errors import ArtifactError
from toolkit.mil.dtypes import DTYPES, FLOATS, INTEGERS, NUMBERS
from toolkit.mil.limits import MAX_LIVE_ELEMENTS
from toolkit.mil.ops.op import Op
from toolkit.mil.ops.table import OPS
from toolkit.mil.ops.types import Array, Blocks, Bools, Cell, Ints, Items, Labels, Rows, Tensor, TensorList, Tensors, Values
from toolkit.mil.plan import MODES, Plan, Routine, Step, Target, Wire, slots_of, storage
from toolkit.mil.program import Argument, Block, Constant, Operation, Program, Type

_WIRED = (Tensor, Tensors, Values, TensorList, Cell)
_RESERVED = ("ios", "blocks")
_ALIKE = (("x", "y"), ("a", "b"), ("values",))  # tensors that share one type, in elementwise ops and those of `values`


def bind(program: Program, mode: str) -> Plan:
    """The plan of `program`. Raises ArtifactError naming the op that is wrong."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    binder = _Binder(program, mode)
    scope = _Scope({}, {})
    binder.plan.routine = binder.block(program.block, scope, nested=False)
    for name in program.block.outputs:
        binder.plan.outputs[name] = scope.slots[name]
    return binder.plan


@dataclass
class _Scope:
    """What the ops of one block can name: values in slots, and constants, which get a slot when first used as a tensor."""

    slots: dict[str, int]
    constants: dict[str, Constant]

    def nested(self) -> "_Scope":
        return _Scope(dict(self.slots), dict(self.constants))

    def __contains__(self, name: str) -> bool:
        return name in self.slots or name in self.constants


class _Binder:
    """Walks the program once."""

    def __init__(self, program: Program, mode: str) -> None:
        self.program = program
        self.plan = Plan(program.path, mode)
        self.decoded = 0  # elements of all constants so far
        self.defined_at = dict(_definitions(program.block))

    def error(self, operation: Operation, message: str) -> ArtifactError:
        return ArtifactError(f"{self.program.path}: {operation}: {message}.")

    def slot(self, type_: Type, value: object = None) -> int:
        self.plan.slots.append(value)
        self.plan.types.append(type_)
        return len(self.plan.slots) - 1

    def block(self, block: Block, scope: _Scope, nested: bool = True) -> Routine:
        """Binds a block's inputs, ops and outputs; `scope` then holds its names."""
        inputs = []
        for value in block.inputs if nested else self.program.inputs:
            target = self.define(scope, value.name, value.type, None, nested)
            if value.type.dtype == "state":
                self.plan.states[value.name] = target.slot
            else:
                inputs.append(target)
        steps = [step for each in block.operations if (step := self.bind(each, scope, nested)) is not None]
        for name in block.outputs:
            if name not in scope:
                raise ArtifactError(f"{self.program.path}: output {name!r} is defined nowhere. The file is damaged.")
        return Routine(tuple(inputs), steps, tuple(self.wire(None, name, scope) for name in block.outputs))

    def define(self, scope: _Scope, name: str, type_: Type, operation: Operation | None, nested: bool, exact: bool = False) -> Target:
        """A new value. Only the dictionary of `classify` may take an existing name: coremltools writes it so."""
        if name in scope and type_.dtype != "dictionary":
            raise ArtifactError(f"{self.program.path}: {operation or 'the inputs'}: {name!r} is defined twice.")
        scope.slots[name] = self.slot(type_)
        if not nested and type_.dtype != "state":
            self.plan.values.setdefault(name, scope.slots[name])
        return Target.of(scope.slots[name], name, type_, self.plan.mode, exact)

    def bind(self, operation: Operation, scope: _Scope, nested: bool) -> Step | None:
        if operation.type == "const":
            self.bind_const(operation, scope)
            return None
        if operation.type not in OPS:
            raise self.error(
                operation,
                f"opset {self.program.opset}: the evaluator does not know {operation.type!r}; "
                "add a function to toolkit/mil/ops and a line to OPS in toolkit/mil/ops/table.py",
            )
        op = OPS[operation.type]
        self.check_parameters(operation, op)
        kinds = parameters(op.function)
        if Array in kinds.values():
            self.decode(operation, op, scope)
            return None
        settings: dict[str, Any] = {"ios": self.program.ios} if "ios" in kinds else {}
        wires: dict[str, Wire] = {}
        late: list[tuple[str, int, Callable[[Any], Any]]] = []
        for name, arguments in operation.arguments.items():
            kind = kinds[name]
            if kind in (Tensors, Values):
                wires[name] = tuple(self.operand(operation, name, kind, argument, scope) for argument in arguments)
            elif kind == Items:
                settings[name] = tuple(_item(self.lookup(operation, argument, scope).value) for argument in arguments)
            elif len(arguments) != 1:
                raise self.error(operation, f"input {name!r} has {len(arguments)} values, not one")
            elif kind in _WIRED:
                wires[name] = self.operand(operation, name, kind, arguments[0], scope)
            elif (computed := self.computed(arguments[0], scope)) is not None:
                late.append((name, computed, self.reader(operation, name, kind, self.plan.types[computed])))
            else:
                settings[name] = self.setting(operation, name, arguments[0], kind, scope)
        self.check_types(operation, op, settings, wires)
        self.round_epsilon(operation, settings)
        blocks = tuple(self.block(each, scope.nested()) for each in operation.blocks)
        if bool(blocks) != (Blocks in kinds.values()):
            raise self.error(operation, f"has {len(blocks)} nested blocks")
        outputs = tuple(self.define(scope, value.name, value.type, operation, nested, op.exact) for value in operation.outputs)
        if operation.type == "classify":
            self.plan.classes = settings["classes"]
        ordered = sorted(wires.items(), key=lambda item: list(kinds).index(item[0]))
        return Step(operation, op, settings, partial(op.function, **settings), tuple(ordered), tuple(late), blocks, outputs)

    def bind_const(self, operation: Operation, scope: _Scope) -> None:
        """const: its value is the attribute `val`. iOS15/control_flow.py"""
        given = operation.arguments.get("val", ())
        if set(operation.arguments) != {"val"} or len(operation.outputs) != 1 or not isinstance(given[0], Constant):
            raise self.error(operation, "a const has one output and its value in the attribute 'val', nothing else")
        self.define_constant(operation, 0, given[0], scope)

    def define_constant(self, operation: Operation, index: int, constant: Constant, scope: _Scope) -> None:
        declared = operation.outputs[index]
        if declared.type != constant.type:
            raise self.error(operation, f"declares {declared.type}, its value is {constant.type}")
        if declared.name in scope:
            raise self.error(operation, f"{declared.name!r} is defined twice")
        scope.constants[declared.name] = constant

    def decode(self, operation: Operation, op: Op, scope: _Scope) -> None:
        """constexpr_*: compressed weights become constants now, in their own types; nothing is left to do at run time."""
        kinds = parameters(op.function)
        given: dict[str, Any] = {"ios": self.program.ios} if "ios" in kinds else {}
        for name, arguments in operation.arguments.items():
            constant = self.lookup(operation, arguments[0], scope)
            if len(arguments) != 1 or (kinds[name] == Array and not isinstance(constant.value, np.ndarray)):
                raise self.error(operation, f"input {name!r} is {constant.type}, not an array")
            given[name] = constant.value if kinds[name] == Array else literal(constant, kinds[name])
        for value in operation.outputs:
            self.count(value.type.elements)
        try:
            decoded = op.function(**given)
        except (ArtifactError, ValueError, IndexError, TypeError) as error:
            raise self.error(operation, str(error).rstrip(".")) from error
        self.plan.constexpr.add(operation.type)
        arrays = decoded if isinstance(decoded, tuple) else (decoded,)
        if len(arrays) != len(operation.outputs):
            raise self.error(operation, f"has {len(operation.outputs)} outputs, its function gives {len(arrays)}")
        for index, (value, array) in enumerate(zip(operation.outputs, arrays, strict=True)):
            dtype = DTYPES.get(value.type.dtype)
            if dtype is None or array.shape != value.type.shape or array.dtype != np.dtype(dtype.numpy):
                raise self.error(operation, f"decodes to {array.dtype}{list(array.shape)}, the program declares {value.type}")
            self.define_constant(operation, index, Constant(value.type, array), scope)

    def check_parameters(self, operation: Operation, op: Op) -> None:
        known = [name for name in parameters(op.function) if name not in _RESERVED]
        unknown = sorted(set(operation.arguments) - set(known))
        if unknown:
            raise self.error(operation, f"parameters that its function in toolkit/mil/ops does not take: {', '.join(unknown)}")
        missing = [name for name in known if name not in operation.arguments and name not in defaults(op.function)]
        if missing:
            raise self.error(operation, f"required parameters are missing: {', '.join(missing)}")

    def check_types(self, operation: Operation, op: Op, settings: dict[str, Any], wires: dict[str, Wire]) -> None:
        """Every output has the type its rule gives; x and y, a and b, and all of `values` share one."""
        found = {name: [self.plan.types[slot].dtype for slot in slots_of(wire)] for name, wire in wires.items()}
        for group in _ALIKE if op.elementwise else _ALIKE[2:]:
            dtypes = sorted({dtype for name in group for dtype in found.get(name, ())})
            if len(dtypes) > 1:
                raise self.error(operation, f"its tensors have types {', '.join(dtypes)}; they must share one")
        found["first"] = next((found[name] for name in parameters(op.function) if found.get(name)), ["any"])
        rules = op.gives * len(operation.outputs) if len(op.gives) == 1 else op.gives
        if len(rules) < len(operation.outputs) or bool(op.gives) != bool(operation.outputs):
            raise self.error(operation, f"has {len(operation.outputs)} outputs, its function gives {len(op.gives)}")
        for rule, value in zip(rules, operation.outputs, strict=False):  # some ops give fewer outputs when asked to
            expected = _expected(rule, found, defaults(op.function) | settings)
            if value.type.dtype not in expected:
                raise self.error(operation, f"declares output {value.type}, its function gives {' or '.join(sorted(expected))}")

    def round_epsilon(self, operation: Operation, settings: dict[str, Any]) -> None:
        """From iOS17 an fp16 op may carry an fp32 epsilon, which an fp16 sum would not see: log(0 + 1e-45) is -inf there."""
        if self.plan.mode == "as-typed" and "epsilon" in settings and operation.outputs[0].type.dtype == "fp16":
            settings["epsilon"] = float(np.float16(settings["epsilon"]))

    def wire(self, operation: Operation | None, argument: Argument, scope: _Scope) -> int:
        """The slot of a tensor argument; a constant is decoded when first wired, once."""
        if isinstance(argument, str) and argument in scope.slots:
            return scope.slots[argument]
        constant = self.lookup(operation, argument, scope)
        self.count(constant.type.elements)
        slot = self.slot(constant.type, tensor(constant, self.plan.mode))
        if isinstance(argument, str):
            scope.slots[argument] = slot
        return slot

    def operand(self, operation: Operation, name: str, kind: Any, argument: Argument, scope: _Scope) -> int:
        """The slot of an argument of an op that takes tensors, a list or a state."""
        slot = self.wire(operation, argument, scope)
        dtype = self.plan.types[slot].dtype
        fits = {TensorList: dtype == "list", Cell: dtype == "state", Values: dtype in NUMBERS | {"list"}}.get(kind, dtype in NUMBERS)
        if not fits:
            raise self.error(operation, f"input {name!r} is {self.plan.types[slot]}")
        return slot

    def count(self, elements: int) -> None:
        self.decoded += elements
        if self.decoded > MAX_LIVE_ELEMENTS:
            raise ArtifactError(f"{self.program.path}: constants of {self.decoded} elements, more than {MAX_LIVE_ELEMENTS}. Too large.")

    def computed(self, argument: Argument, scope: _Scope) -> int | None:
        """The slot of an argument that is no constant."""
        return scope.slots.get(argument) if isinstance(argument, str) and argument not in scope.constants else None

    def setting(self, operation: Operation, name: str, argument: Argument, kind: object, scope: _Scope) -> object:
        try:
            return literal(self.lookup(operation, argument, scope), kind)
        except ArtifactError as error:
            raise self.error(operation, f"input {name!r}: {error}") from error

    def reader(self, operation: Operation, name: str, kind: Any, type_: Type) -> Callable[[Any], Any]:
        if kind in (str, Labels) or type_.dtype not in NUMBERS:
            raise self.error(operation, f"input {name!r} is computed, as {type_}, where a constant is wanted or numbers are")
        return partial(computed_value, name=name, kind=kind)

    def lookup(self, operation: Operation | None, argument: Argument, scope: _Scope) -> Constant:
        if isinstance(argument, Constant):
            return argument
        if argument in scope.constants:
            return scope.constants[argument]
        where = f"{self.program.path}: {operation or 'the outputs'}"
        if argument in scope.slots:
            raise ArtifactError(f"{where}: {argument!r} is computed; only a constant will do.")
        later = self.defined_at.get(argument)
        why = f"only defined by {later}: a cycle, or out of order" if later else "defined nowhere"
        raise ArtifactError(f"{where}: uses {argument!r}, which is {why}. The file is damaged.")


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _definitions(block: Block) -> Any:
    for operation in block.operations:
        yield from ((value.name, operation) for value in operation.outputs)
        for nested in operation.blocks:
            yield from _definitions(nested)


def _expected(rule: str, found: dict[str, list[str]], settings: dict[str, Any]) -> frozenset[str]:
    """The types a rule of op.py allows."""
    groups = {"any": frozenset(DTYPES) | {"string", "list", "dictionary"}, "int": INTEGERS, "float": FLOATS, "bool": frozenset({"bool"})}
    if rule.startswith("="):
        return frozenset({settings[rule[1:]]})
    dtypes = frozenset(found.get(rule, ("any",)))
    return groups[rule] if rule in groups else groups["any"] if "any" in dtypes else dtypes


@cache
def parameters(function: Any) -> dict[str, Any]:
    """Parameter -> its type, `X | None` taken as X."""
    hints = {name: hint for name, hint in get_type_hints(function).items() if name != "return"}
    unions = {name: get_args(hint)[0] for name, hint in hints.items() if isinstance(hint, types.UnionType)}
    return hints | unions


@cache
def defaults(function: Any) -> dict[str, Any]:
    """Parameter -> default, for those that have one."""
    given = inspect.signature(function).parameters.items()
    return {name: each.default for name, each in given if each.default is not inspect.Parameter.empty}


def literal(constant: Constant, kind: Any) -> Any:
    """A constant as the Python value a parameter of type `kind` takes. Raises ArtifactError when it is not one."""
    value, dtype = constant.value, constant.type.dtype
    if (kind is str and dtype == "string") or (kind == Labels and dtype == "list"):
        return value
    if isinstance(value, np.ndarray):
        family = "bool" if dtype == "bool" else "int" if dtype in INTEGERS else "float"
        rank = value.ndim
        if rank == 0 and (kind.__name__ == family or (kind is float and family == "int")):
            return kind(value)
        if rank == 2 and (kind, family) == (Rows, "int"):
            return tuple(tuple(row) for row in value.tolist())
        if rank == 1 and (kind, family) in ((Ints, "int"), (Bools, "bool")):
            return tuple(value.tolist())
    raise ArtifactError(f"a constant {constant.type} cannot be its {getattr(kind, '__name__', kind)}")


def computed_value(value: Tensor, name: str, kind: Any) -> Any:
    """What `literal` does, for a parameter that the program computes."""
    family = bool if value.dtype == torch.bool else float if value.is_floating_point() else int
    wanted, rank = {Ints: (int, 1), Bools: (bool, 1)}.get(kind, (kind, 0))
    if value.ndim == rank and (wanted is family or (wanted is float and family is int)):
        return tuple(value.tolist()) if rank else kind(value.item())
    raise ArtifactError(f"input {name!r} is computed as {value.dtype}{list(value.shape)}, which cannot be its {wanted.__name__}")


def tensor(constant: Constant, mode: str) -> Any:
    """A constant as a tensor in the mode's storage type: always a copy, so that the weight file can go."""
    if not isinstance(constant.value, np.ndarray):
        return constant.value
    array = constant.value.astype(constant.value.dtype.newbyteorder("="))
    wider = {"uint16": np.int32, "uint32": np.int64}.get(constant.type.dtype)
    return torch.from_numpy(array if wider is None else array.astype(wider)).to(storage(constant.type.dtype, mode))
