"""An ML Program as plain frozen data, read from a .mlpackage by walking its protobuf (MIL.proto of coremltools).

Deliberately not coremltools' own loader: a judge sees what is in the file, not what a converter infers from it.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.mil.dtypes import BY_PROTO, DTYPES
from toolkit.mil.immediates import fields_of, flat
from toolkit.mil.limits import MAX_OPERATIONS, MAX_RANK, current
from toolkit.mil.package import Package, open_package, read_spec
from toolkit.mil.weights import WeightFile

OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18}  # opset -> the iOS it came with


@dataclass(frozen=True)
class Type:
    """`dtype` is a name of dtypes.py or 'string'; or 'list', 'state', 'dictionary' of `element`.

    An axis of unknown length is None; `shape` itself is None where not even the rank is known.
    """

    dtype: str
    shape: tuple[int | None, ...] | None = ()
    element: "Type | None" = None

    @property
    def fixed(self) -> bool:
        return self.shape is not None and None not in self.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a type that is `fixed`."""
        assert self.shape is not None
        return tuple(size for size in self.shape if size is not None)

    @property
    def elements(self) -> int:
        """How many numbers it holds; 0 where that is not known."""
        return math.prod(self.sizes) if self.fixed and self.dtype in DTYPES else 0

    def allows(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None or self.shape == shape:
            return True
        return len(shape) == len(self.shape) and all(want in (None, size) for want, size in zip(self.shape, shape, strict=True))

    def __str__(self) -> str:
        if self.element is not None:
            return f"{self.dtype} of {self.element}"
        dims = "unknown rank" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{dims}]"


@dataclass(frozen=True)
class Value:
    """What an op, a block or the function's caller defines: a name and its declared type."""

    name: str
    type: Type


@dataclass(frozen=True)
class Constant:
    """A literal: a numpy array (a view of the weight file for weights), a string, or a tuple for a list."""

    type: Type
    value: Any


Argument = str | Constant  # the name of a value, or a literal


@dataclass(frozen=True)
class Block:
    """Operations in order. `inputs` are what a nested block is called with; it may read outer values as well."""

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    operations: "tuple[Operation, ...]"


@dataclass(frozen=True)
class Operation:
    """One op. `position` counts from 0, nested blocks included; `arguments` keeps variadic ones together.

    Most arguments are inputs of the op; those of iOS16's constexpr ops and of const are attributes. Both are here.
    """

    type: str
    position: int
    arguments: dict[str, tuple[Argument, ...]]
    outputs: tuple[Value, ...]
    blocks: tuple[Block, ...] = ()

    def __str__(self) -> str:
        return f"op {self.position} ({self.type} -> {', '.join(value.name for value in self.outputs) or 'nothing'})"


@dataclass(frozen=True)
class Program:
    """One function of an ML Program. `interface` is its FunctionDescription or ModelDescription protobuf.

    files: the path, size in bytes and time of change in ns of the program and of the weight files it reads.
    """

    path: Path
    function: str
    opset: str
    inputs: tuple[Value, ...]
    block: Block
    interface: Any
    files: tuple[tuple[str, int, int], ...] = ()

    @property
    def ios(self) -> int:
        return OPSETS[self.opset]


def load_program(path: str | Path, function: str | None = None) -> Program:
    """Reads `function` (None: the default one) of the package at `path`. Raises ArtifactError for anything damaged."""
    package = open_package(path)
    spec = read_spec(package)
    functions = spec.mlProgram.functions
    function = function or spec.description.defaultFunctionName or "main"
    if function not in functions:
        raise ArtifactError(f"{path}: no function {function!r}; the program has {', '.join(sorted(functions))}.")
    proto = functions[function]
    if proto.opset not in OPSETS:
        raise ArtifactError(f"{path}: function {function!r} has opset {proto.opset!r}; known are {', '.join(OPSETS)}.")
    if proto.opset not in proto.block_specializations:
        found = ", ".join(sorted(proto.block_specializations)) or "none"
        raise ArtifactError(f"{path}: function {function!r} has no block for opset {proto.opset!r}, only {found}.")
    reader = _Reader(package)
    program = Program(
        path=Path(path),
        function=function,
        opset=proto.opset,
        inputs=tuple(reader.value(named, f"input {named.name!r}") for named in proto.inputs),
        block=reader.block(proto.block_specializations[proto.opset]),
        interface=_interface(spec.description, function),
    )
    return replace(program, files=tuple(_seen(each) for each in (package.model, *(each.path for each in reader.weights.values()))))


def _seen(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path.absolute()), found.st_size, found.st_mtime_ns


def _interface(description: Any, function: str) -> Any:
    """Multi-function models (CoreML8) describe each function apart; the others describe the model."""
    return next((each for each in description.functions if each.name == function), description)


class _Reader:
    """Turns protobuf messages into the dataclasses above; holds the package and its weight files, opened once."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.weights: dict[str, WeightFile] = {}
        self.operations = 0
        self.budget = current().budget
        self.held = 0  # elements of constants that are no views of a weight file

    def error(self, message: str) -> ArtifactError:
        return ArtifactError(f"{self.package.root}: {message}")

    def block(self, block: Any) -> Block:
        return Block(
            inputs=tuple(self.value(named, f"block input {named.name!r}") for named in block.inputs),
            outputs=tuple(block.outputs),
            operations=tuple(self.operation(op) for op in block.operations),
        )

    def operation(self, op: Any) -> Operation:
        position, self.operations = self.operations, self.operations + 1
        if self.operations > MAX_OPERATIONS:
            raise self.error(f"more than {MAX_OPERATIONS} ops. The file is damaged, or too large for this evaluator.")
        where = f"op {position} ({op.type})"
        arguments = {
            name: tuple(self.argument(binding, f"{where}, input {name!r}") for binding in argument.arguments)
            for name, argument in op.inputs.items()
        }
        for name, value in op.attributes.items():
            if name in arguments:
                raise self.error(f"{where}: {name!r} is both input and attribute. Export the model again.")
            if name != "name":  # the op's own label, which every op may carry
                arguments[name] = (self.constant(value, f"{where}, attribute {name!r}"),)
        return Operation(
            type=op.type,
            position=position,
            arguments={name: values for name, values in arguments.items() if values},
            outputs=tuple(self.value(named, f"{where}, output {named.name!r}") for named in op.outputs),
            blocks=tuple(self.block(each) for each in op.blocks),
        )

    def argument(self, binding: Any, where: str) -> Argument:
        kind = binding.WhichOneof("binding")
        if kind == "name":
            return str(binding.name)
        if kind == "value":
            return self.constant(binding.value, where)
        raise self.error(f"{where} is bound to nothing. Export the model again.")

    def value(self, named: Any, where: str) -> Value:
        return Value(named.name, self.type(named.type, where))

    def type(self, proto: Any, where: str) -> Type:
        kind = proto.WhichOneof("type")
        if kind == "tensorType":
            return self.tensor_type(proto.tensorType, where)
        if kind == "listType":
            return Type("list", None, self.type(proto.listType.type, where))
        if kind == "stateType":
            wrapped = self.type(proto.stateType.wrappedType, where)
            if not wrapped.fixed or wrapped.dtype not in DTYPES:
                raise self.error(f"{where} is a state of {wrapped}; it must be a tensor of a fixed shape.")
            return Type("state", None, wrapped)
        if kind == "dictionaryType":
            return Type("dictionary", None)
        raise self.error(f"{where} has type {kind or 'missing'}, which no op of an ML Program uses. Export the model again.")

    def tensor_type(self, tensor: Any, where: str) -> Type:
        if tensor.dataType not in BY_PROTO:
            names = ", ".join(BY_PROTO.values())
            raise self.error(f"{where} has data type number {tensor.dataType} of MIL.proto, which is not supported; supported are {names}.")
        dtype = BY_PROTO[tensor.dataType]
        dims = tensor.dimensions
        if any(dim.unknown.variadic for dim in dims if dim.WhichOneof("dimension") == "unknown"):
            return Type(dtype, None)
        shape = tuple(dim.constant.size if dim.WhichOneof("dimension") == "constant" else None for dim in dims)
        if len(shape) > MAX_RANK or math.prod(size for size in shape if size) > self.budget.elements:
            raise self.error(
                f"{where} has shape {list(shape)[:8]}; at most {MAX_RANK} axes and {self.budget.elements} elements are read. "
                "The file is damaged, or too large for this evaluator."
            )
        return Type(dtype, shape)

    def constant(self, value: Any, where: str) -> Constant:
        type_ = self.type(value.type, where)
        if value.WhichOneof("value") == "blobFileValue":
            if type_.dtype not in DTYPES or not type_.fixed:
                raise self.error(f"{where} is {type_}, which cannot lie in a weight file. Export the model again.")
            return Constant(type_, self.blob(value.blobFileValue, type_, where))
        kind = value.immediateValue.WhichOneof("value")
        if type_.dtype == "list" and kind == "list":
            items = [self.constant(item, where) for item in value.immediateValue.list.values]
            return Constant(type_, tuple(_item(item) for item in items))
        if kind != "tensor" or not type_.fixed or type_.element is not None:
            raise self.error(f"{where} is {type_} given as {kind}: not supported.")
        return Constant(type_, self.immediate(value.immediateValue.tensor, type_, where))

    def immediate(self, tensor: Any, type_: Type, where: str) -> Any:
        """A literal written into the program itself: a string, or an array of exactly the declared shape."""
        field = tensor.WhichOneof("value")
        if type_.dtype == "string":
            values = list(tensor.strings.values)
            if type_.shape or len(values) != 1:
                raise self.error(f"{where} is {type_} with {len(values)} strings, not one.")
            return values[0]
        if field is None and type_.elements == 0:
            return np.zeros(type_.sizes, DTYPES[type_.dtype].numpy)
        if field not in fields_of(type_.dtype):
            raise self.error(f"{where} is {type_} but its values are {field}, not {' or '.join(fields_of(type_.dtype))}.")
        self.hold(type_.elements, where)
        array = flat(tensor, field, DTYPES[type_.dtype], type_.elements)
        if array is None or array.size != type_.elements:
            raise self.error(f"{where} is {type_} but holds {'fewer' if array is None else array.size} values.")
        return array.reshape(type_.sizes)

    def blob(self, blob: Any, type_: Type, where: str) -> Any:
        if DTYPES[type_.dtype].packed:
            self.hold(type_.elements, where)
        try:
            if blob.fileName not in self.weights:
                self.weights[blob.fileName] = WeightFile(self.package.blob(blob.fileName))
            flat = self.weights[blob.fileName].read(blob.offset, type_.dtype, type_.elements)
        except ArtifactError as error:
            raise ArtifactError(f"{error} (It is wanted by {where}.)") from error
        return flat.reshape(type_.sizes)

    def hold(self, elements: int, where: str) -> None:
        """A record that is read a thousand times is unpacked a thousand times."""
        self.held += elements
        if self.held > self.budget.live:
            raise self.error(f"{where}: with it, constants of {self.held} elements are unpacked, more than {self.budget.live}. Too large.")


def _item(constant: Constant) -> Any:
    """A list's element as a Python value: class labels are strings or int64."""
    return constant.value.item() if isinstance(constant.value, np.ndarray) and constant.value.size == 1 else constant.value
