"""From a Program to a Plan: binds every argument of every op, and refuses whatever is unknown, before anything runs."""

from collections import ChainMap, Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.mil import signatures
from toolkit.mil.dtypes import DTYPES, NUMBERS
from toolkit.mil.limits import current
from toolkit.mil.literals import computed_value, literal, tensor
from toolkit.mil.ops.op import Op
from toolkit.mil.ops.table import OPS
from toolkit.mil.ops.types import Array, Blocks, Cell, Items, Labels, Tensor, TensorList, Tensors, Values
from toolkit.mil.plan import MODES, Plan, Routine, Step, Target, Wire, slots_of
from toolkit.mil.program import Argument, Block, Constant, Operation, Program, Type
from toolkit.mil.signatures import defaults, parameters

_WIRED = (Tensor, Tensors, Values, TensorList, Cell)
_RESERVED = ("ios", "blocks")
_SUMS = ("inverse", "log", "rsqrt")  # the ops that add epsilon to x itself


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

    slots: MutableMapping[str, int]
    constants: MutableMapping[str, Constant]

    def nested(self) -> "_Scope":
        """What is defined in there is not seen outside; a copy of all names for each block would take too long."""
        return _Scope(ChainMap({}, self.slots), ChainMap({}, self.constants))

    def __contains__(self, name: str) -> bool:
        return name in self.slots or name in self.constants


class _Binder:
    """Walks the program once."""

    def __init__(self, program: Program, mode: str) -> None:
        self.program = program
        self.plan = Plan(program.path, mode, current().budget)
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
        try:
            signatures.check_age(operation, op, self.program.opset)
        except ArtifactError as error:
            raise self.error(operation, str(error)) from error
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
        found = self.found(op, wires)
        self.check(operation, op, settings, found)
        self.round_epsilon(operation, op, settings)
        if operation.blocks and Blocks not in kinds.values():
            raise self.error(operation, f"has {len(operation.blocks)} nested blocks")
        blocks = self.nested(operation, found, scope) if Blocks in kinds.values() else ()
        read = [dtype for each in found.values() for dtype in each] + [
            self.plan.types[slot].dtype for each in blocks for slot in each.outputs
        ]
        outputs = tuple(
            self.define(scope, value.name, value.type, operation, nested, signatures.only_moves(op, value.type.dtype, read))
            for value in operation.outputs
        )
        if operation.type == "classify":
            self.plan.classes = self.classes(operation, settings["classes"], self.plan.types[slots_of(wires["probabilities"])[0]])
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

    def found(self, op: Op, wires: dict[str, Wire]) -> dict[str, list[str]]:
        """Parameter -> the types of its tensors; 'first': those of the first there is."""
        types = self.plan.types
        kinds = parameters(op.function)
        found = {
            name: [signatures.held(types[slot]) if kinds[name] in (TensorList, Cell) else types[slot].dtype for slot in slots_of(wire)]
            for name, wire in wires.items()
        }
        first = next((found[name] for name in kinds if found.get(name)), None)
        return found if first is None else found | {"first": first}

    def check_parameters(self, operation: Operation, op: Op) -> None:
        known = [name for name in parameters(op.function) if name not in _RESERVED]
        unknown = sorted(set(operation.arguments) - set(known))
        if unknown:
            raise self.error(operation, f"parameters that its function in toolkit/mil/ops does not take: {', '.join(unknown)}")
        missing = [name for name in known if name not in operation.arguments and name not in defaults(op.function)]
        if missing:
            raise self.error(operation, f"required parameters are missing: {', '.join(missing)}")

    def classes(self, operation: Operation, labels: tuple[Any, ...], probabilities: Type) -> tuple[Any, ...]:
        """The labels of `classify`: each once, or a dictionary would lose a probability; and one for each probability."""
        if not all(isinstance(each, str | int) for each in labels):
            raise self.error(operation, "a class label is neither text nor a whole number")
        if twice := [label for label, count in Counter(labels).items() if count > 1]:
            raise self.error(operation, f"label {twice[0]!r} stands for several classes")
        if probabilities.fixed and probabilities.elements != len(labels):
            raise self.error(operation, f"{probabilities.elements} probabilities for {len(labels)} class labels")
        return labels

    def check(self, operation: Operation, op: Op, settings: dict[str, Any], found: signatures.Found) -> None:
        try:
            signatures.check_types(operation, op, found, defaults(op.function) | settings)
        except ArtifactError as error:
            raise self.error(operation, str(error)) from error

    def nested(self, operation: Operation, found: signatures.Found, scope: _Scope) -> tuple[Routine, ...]:
        """Binds the blocks of an op that has some."""
        blocks = tuple(self.block(each, scope.nested()) for each in operation.blocks)
        types = self.plan.types
        try:
            described = [([each.type for each in block.inputs], [types[slot] for slot in block.outputs]) for block in blocks]
            signatures.check_blocks(operation, found, described)
        except ArtifactError as error:
            raise self.error(operation, str(error)) from error
        return blocks

    def round_epsilon(self, operation: Operation, op: Op, settings: dict[str, Any]) -> None:
        """x + epsilon is one fp16 sum, whatever type epsilon has: log(0 + 1e-45) is -inf there. Norms add theirs to a wider sum."""
        if operation.type in _SUMS and self.plan.mode == "as-typed" and operation.outputs[0].type.dtype == "fp16":
            settings["epsilon"] = float(np.float16(settings.get("epsilon", defaults(op.function)["epsilon"])))

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
        if self.decoded > (most := self.plan.budget.live):
            raise ArtifactError(f"{self.program.path}: constants of {self.decoded} elements, more than {most}. Too large.")

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
