"""An ML Program as plain frozen data, read from a .mlpackage by walking its protobuf (MIL.proto of coremltools).

Deliberately not coremltools' own loader: a judge sees what is in the file, not what a converter infers from it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.mil.package import Package, open_package, read_spec
from toolkit.mil.weights import WeightFile

MAX_ELEMENTS = 1 << 28  # of one value: 1 GiB as float32
MAX_RANK = 5  # MIL's own limit for tensors

# MIL.proto DataType -> our name. Types that are not here raise a clear error.
_DTYPES = {
    1: "bool", 2: "string", 10: "fp16", 11: "fp32", 12: "fp64", 21: "int8", 22: "int16", 23: "int32", 24: "int64",
    31: "uint8",
}  # fmt: skip
# our name -> (field of TensorValue that holds immediate values, numpy type)
_IMMEDIATE = {
    "bool": ("bools", "?"),
    "fp16": ("bytes", "<f2"),
    "fp32": ("floats", "<f4"),
    "fp64": ("doubles", "<f8"),
    "int8": ("bytes", "i1"),
    "uint8": ("bytes", "u1"),
    "int16": ("bytes", "<i2"),
    "int32": ("ints", "<i4"),
    "int64": ("longInts", "<i8"),
}


@dataclass(frozen=True)
class Type:
    """`dtype` is 'fp16', 'int32', 'string' …, or 'list' and 'dictionary', which have no shape."""

    dtype: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Value:
    """What an op or the function's caller defines: a name and its declared type."""

    name: str
    type: Type


@dataclass(frozen=True)
class Constant:
    """A literal: a numpy array (a view of the weight file for weights), a string, or a tuple for a list."""

    type: Type
    value: Any


Argument = str | Constant  # the name of a value, or a literal


@dataclass(frozen=True)
class Operation:
    """One op. `position` counts from 0 in the program; `inputs` keeps variadic arguments together."""

    type: str
    position: int
    inputs: dict[str, tuple[Argument, ...]]
    attributes: dict[str, Constant]
    outputs: tuple[Value, ...]

    def __str__(self) -> str:
        return f"op {self.position} ({self.type} -> {', '.join(value.name for value in self.outputs)})"


@dataclass(frozen=True)
class Program:
    """One function of an ML Program. `interface` is its FunctionDescription or ModelDescription protobuf."""

    path: Path
    opset: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    interface: Any


def load_program(path: str | Path, function: str = "main") -> Program:
    """Reads `function` of the package at `path`. Raises ArtifactError for anything damaged or not supported."""
    package = open_package(path)
    spec = read_spec(package)
    functions = spec.mlProgram.functions
    if function not in functions:
        raise ArtifactError(f"{path}: no function {function!r}; the program has {', '.join(sorted(functions))}.")
    proto = functions[function]
    if proto.opset not in proto.block_specializations:
        found = ", ".join(sorted(proto.block_specializations)) or "none"
        raise ArtifactError(f"{path}: function {function!r} has no block for opset {proto.opset!r}, only {found}.")
    block = proto.block_specializations[proto.opset]
    reader = _Reader(package)
    return Program(
        path=Path(path),
        opset=proto.opset,
        inputs=tuple(reader.value(named, f"input {named.name!r}") for named in proto.inputs),
        outputs=tuple(block.outputs),
        operations=tuple(reader.operation(position, op) for position, op in enumerate(block.operations)),
        interface=_interface(spec.description, function),
    )


def _interface(description: Any, function: str) -> Any:
    """Multi-function models (CoreML8) describe each function apart; the others describe the model."""
    return next((each for each in description.functions if each.name == function), description)


class _Reader:
    """Turns protobuf messages into the dataclasses above; holds the package and its weight files, opened once."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.weights: dict[str, WeightFile] = {}

    def operation(self, position: int, op: Any) -> Operation:
        where = f"op {position} ({op.type})"
        if len(op.blocks):
            raise ArtifactError(f"{self.package.root}: {where} has nested blocks, which are not supported yet.")
        return Operation(
            type=op.type,
            position=position,
            inputs={
                name: tuple(self.argument(binding, f"{where}, input {name!r}") for binding in argument.arguments)
                for name, argument in op.inputs.items()
            },
            attributes={
                name: self.constant(value, f"{where}, attribute {name!r}")
                for name, value in op.attributes.items()
                if name != "name"  # the op's own label, which every op may carry
            },
            outputs=tuple(self.value(named, f"{where}, output {named.name!r}") for named in op.outputs),
        )

    def argument(self, binding: Any, where: str) -> Argument:
        kind = binding.WhichOneof("binding")
        if kind == "name":
            return str(binding.name)
        if kind == "value":
            return self.constant(binding.value, where)
        raise ArtifactError(f"{self.package.root}: {where} is bound to nothing. Export the model again.")

    def value(self, named: Any, where: str) -> Value:
        return Value(named.name, self.type(named.type, where))

    def type(self, proto: Any, where: str) -> Type:
        kind = proto.WhichOneof("type")
        if kind in ("listType", "dictionaryType"):
            return Type(kind.removesuffix("Type"))
        if kind != "tensorType":
            raise ArtifactError(f"{self.package.root}: {where} has type {kind}, which is not supported yet.")
        tensor = proto.tensorType
        if tensor.dataType not in _DTYPES:
            raise ArtifactError(
                f"{self.package.root}: {where} has data type number {tensor.dataType} of MIL.proto, which is not "
                f"supported yet; supported are {', '.join(_DTYPES.values())}."
            )
        if any(dim.WhichOneof("dimension") != "constant" for dim in tensor.dimensions):
            raise ArtifactError(f"{self.package.root}: {where} has a flexible shape. Export it with a fixed shape.")
        shape = tuple(dim.constant.size for dim in tensor.dimensions)
        if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
            raise ArtifactError(
                f"{self.package.root}: {where} has shape {list(shape)[:8]}; at most {MAX_RANK} axes and "
                f"{MAX_ELEMENTS} elements are read. The file is damaged, or too large for this evaluator."
            )
        return Type(_DTYPES[tensor.dataType], shape)

    def constant(self, value: Any, where: str) -> Constant:
        type_ = self.type(value.type, where)
        if value.WhichOneof("value") == "blobFileValue":
            return Constant(type_, self.blob(value.blobFileValue, type_, where))
        kind = value.immediateValue.WhichOneof("value")
        if type_.dtype == "list" and kind == "list":
            items = [self.constant(item, where) for item in value.immediateValue.list.values]
            return Constant(type_, tuple(_item(item) for item in items))
        if kind != "tensor" or type_.dtype in ("list", "dictionary"):
            raise ArtifactError(f"{self.package.root}: {where} is a {type_.dtype} given as {kind}: not supported.")
        return Constant(type_, self.immediate(value.immediateValue.tensor, type_, where))

    def immediate(self, tensor: Any, type_: Type, where: str) -> Any:
        """A literal written into the program itself: a string, or an array of exactly the declared shape."""
        elements = math.prod(type_.shape)
        if type_.dtype == "string":
            values = list(tensor.strings.values)
            if type_.shape or len(values) != 1:
                raise ArtifactError(f"{self.package.root}: {where} is {type_} with {len(values)} strings, not one.")
            return values[0]
        field, numpy_dtype = _IMMEDIATE[type_.dtype]
        if tensor.WhichOneof("value") != field:
            found = tensor.WhichOneof("value")
            raise ArtifactError(f"{self.package.root}: {where} is {type_} but its values are {found}, not {field}.")
        raw = tensor.bytes.values if field == "bytes" else getattr(tensor, field).values
        itemsize = np.dtype(numpy_dtype).itemsize if field == "bytes" else 1
        if len(raw) != elements * itemsize:
            raise ArtifactError(f"{self.package.root}: {where} is {type_} but holds {len(raw) / itemsize:g} values.")
        array = np.frombuffer(raw, numpy_dtype) if field == "bytes" else np.array(raw, numpy_dtype)
        return array.reshape(type_.shape)

    def blob(self, blob: Any, type_: Type, where: str) -> Any:
        try:
            if blob.fileName not in self.weights:
                self.weights[blob.fileName] = WeightFile(self.package.blob(blob.fileName))
            flat = self.weights[blob.fileName].read(blob.offset, type_.dtype, math.prod(type_.shape))
        except ArtifactError as error:
            raise ArtifactError(f"{error} (It is wanted by {where}.)") from error
        return flat.reshape(type_.shape)


def _item(constant: Constant) -> Any:
    """A list's element as a Python value: class labels are strings or int64."""
    return constant.value.item() if isinstance(constant.value, np.ndarray) else constant.value
