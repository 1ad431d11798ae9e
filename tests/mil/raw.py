"""ML Programs written field by field: files that coremltools would not write, for tests of what must be refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.mil._proto import model_pb2
from toolkit.mil.dtypes import DTYPES

Typed = tuple[str, str, tuple[int, ...] | None]  # name, type ("list:fp32", "state:fp16", "string", "dictionary"), shape
ARRAYS = {"fp16": 65552, "fp32": 65568, "int32": 131104}  # ArrayFeatureType.ArrayDataType


class Name(str):
    """An argument that names a value, where a plain str is a literal text."""


def write(
    folder: Path,
    inputs: Sequence[Typed],
    ops: Sequence[tuple[Any, ...]],
    outputs: Sequence[str],
    opset: int = 17,
    colors: dict[str, tuple[int, int, int]] | None = None,
    edit: Callable[[Any], None] = lambda spec: None,
) -> Path:
    """A .mlmodel of one function. An op is (type, {parameter: value}, [output, …], [block, …]), a block (inputs, ops, outputs).

    colors: pictures among inputs and outputs, name -> (colour space, width, height). edit: changes the whole before it is written.
    """
    spec = model_pb2().Model(specificationVersion=opset - 9)
    function = spec.mlProgram.functions["main"]
    function.opset = f"CoreML{opset - 10}"
    for name, dtype, shape in inputs:
        _value(function.inputs.add(), name, dtype, shape)
        state = dtype.startswith("state:")
        described = (spec.description.state if state else spec.description.input).add(name=name)
        array = described.type.stateType.arrayType if state else described.type.multiArrayType
        if name in (colors or {}):
            _picture(described, (colors or {})[name])
        else:
            array.dataType = ARRAYS.get(dtype.removeprefix("state:"), ARRAYS["fp32"])
            array.shape.extend(shape or ())
    block = function.block_specializations[function.opset]
    _block(block, ops, outputs)
    for name in outputs:
        described = spec.description.output.add(name=name)
        described.type.multiArrayType.dataType = 0
        if name in (colors or {}):
            _picture(described, (colors or {})[name])
    edit(spec)
    path = folder / f"raw{len(list(folder.iterdir()))}.mlmodel"
    path.write_bytes(spec.SerializeToString())
    return path


def _picture(described: Any, color: tuple[int, int, int]) -> None:
    image = described.type.imageType
    image.colorSpace, image.width, image.height = color


def _block(block: Any, ops: Sequence[tuple[Any, ...]], outputs: Sequence[str]) -> None:
    for kind, parameters, results, *nested in ops:
        op = block.operations.add(type=kind)
        for name, value in parameters.items():
            for each in value if isinstance(value, list) and isinstance(value[0], Name) else [value]:
                argument = op.inputs[name].arguments.add()
                if isinstance(each, Name):
                    argument.name = each
                else:
                    _literal(argument.value, each)
        for result in results:
            _value(op.outputs.add(), *result)
        for takes, body, gives in nested[0] if nested else ():
            inner = op.blocks.add()
            for value in takes:
                _value(inner.inputs.add(), *value)
            _block(inner, body, gives)
    block.outputs.extend(outputs)


def _value(named: Any, name: str, dtype: str, shape: tuple[int, ...] | None) -> None:
    named.name = name
    _type(named.type, dtype, shape)


def _type(proto: Any, dtype: str, shape: tuple[int, ...] | None) -> None:
    wrapper, _, inner = dtype.partition(":")
    if inner:
        _type(proto.stateType.wrappedType if wrapper == "state" else proto.listType.type, inner, shape)
    elif dtype == "dictionary":
        proto.dictionaryType.keyType.tensorType.dataType = 2
        proto.dictionaryType.valueType.tensorType.dataType = DTYPES["fp32"].proto
    else:
        tensor = proto.tensorType
        tensor.dataType = 2 if dtype == "string" else DTYPES[dtype].proto
        tensor.rank = -1 if shape is None else len(shape)
        if shape is None:
            tensor.dimensions.add().unknown.variadic = True
        for size in shape or ():
            tensor.dimensions.add().constant.size = size


def _literal(proto: Any, value: Any) -> None:
    """A text, a list of texts, or an array in its own NumPy type."""
    if isinstance(value, list):
        _type(proto.type.listType.type, "string", ())
        proto.type.listType.length.constant.size = len(value)
        for each in value:
            _literal(proto.immediateValue.list.values.add(), each)
        return
    tensor = proto.immediateValue.tensor
    if isinstance(value, str):
        _type(proto.type, "string", ())
        tensor.strings.values.append(value)
        return
    array = np.asarray(value)
    dtype = {"float16": "fp16", "float32": "fp32"}.get(array.dtype.name, array.dtype.name)
    _type(proto.type, dtype, array.shape)
    field = {"fp32": "floats", "int32": "ints", "bool": "bools"}.get(dtype)
    if field is None:
        tensor.bytes.values = array.tobytes()
    else:
        getattr(tensor, field).values.extend(array.ravel().tolist())
