"""Constants of an ML Program as NumPy arrays and back: literals in the protobuf, and records in weight.bin.

Formats: coremltools' MIL.proto and `mlmodel/src/MILBlob/Blob/StorageFormat.hpp` (see toolkit/mil/weights.py).
"""

import struct
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.faults.surgery import Array
from toolkit.mil._proto import model_pb2
from toolkit.mil.dtypes import BY_PROTO, DTYPES
from toolkit.mil.package import Package

RECORD = struct.Struct("<IIQQQ")  # sentinel, data type, bytes, offset of the data, padding bits
STRING = next(number for number, name in BY_PROTO.items() if name == "string")
FIELDS = {"bool": "bools", "fp32": "floats", "int32": "ints", "fp16": "bytes"}  # of TensorValue, for the types written here


class Weights:
    """The weight files of a package, in memory. `view` is writable; `save` writes the files that were asked for."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.files: dict[str, bytearray] = {}

    def view(self, blob: Any, dtype: str, shape: tuple[int, ...]) -> Array:
        """The tensor at a BlobFileValue, as a view of the bytes in memory."""
        if blob.fileName not in self.files:
            self.files[blob.fileName] = bytearray(self.package.blob(blob.fileName).read_bytes())
        raw = self.files[blob.fileName]
        start = RECORD.unpack_from(raw, blob.offset)[3]
        return np.frombuffer(raw, DTYPES[dtype].numpy, int(np.prod(shape)), start).reshape(shape)

    def save(self) -> None:
        for name, raw in self.files.items():
            self.package.blob(name).write_bytes(raw)


def shape_of(type_: Any) -> tuple[int | None, ...]:
    dims = type_.tensorType.dimensions
    return tuple(dim.constant.size if dim.WhichOneof("dimension") == "constant" else None for dim in dims)


def set_shape_of(type_: Any, shape: tuple[int | None, ...]) -> None:
    for dim, size in zip(type_.tensorType.dimensions, shape, strict=True):
        if size is not None:
            dim.constant.size = size


def read(value: Any, weights: Weights) -> Any:
    """A number, array, bool or string of a Value; a writable view where it lies in a weight file."""
    dtype, shape = BY_PROTO[value.type.tensorType.dataType], tuple(size or 0 for size in shape_of(value.type))
    if value.WhichOneof("value") == "blobFileValue":
        return weights.view(value.blobFileValue, dtype, shape)
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if dtype == "string":
        return tensor.strings.values[0]
    if field == "bytes":
        return np.frombuffer(tensor.bytes.values, DTYPES[dtype].numpy).reshape(shape)
    return np.array(getattr(tensor, field).values, DTYPES[dtype].numpy).reshape(shape)


def literal(content: Any, dtype: str) -> Any:
    """A Value that holds a string, or an array of `dtype`, in the program itself."""
    value = type(model_pb2().Model().mlProgram.attributes["any"])()  # the class of MIL_pb2, without a second way to import it
    tensor = value.immediateValue.tensor
    if dtype == "string":
        value.type.tensorType.dataType = STRING
        tensor.strings.values.append(content)
        return value
    if dtype not in FIELDS:
        raise ArtifactError(f"a literal of type {dtype} is not written here; only {', '.join(FIELDS)} are")
    array = np.asarray(content).astype(DTYPES[dtype].numpy)
    value.type.tensorType.dataType, value.type.tensorType.rank = DTYPES[dtype].proto, array.ndim
    for size in array.shape:
        value.type.tensorType.dimensions.add().constant.size = size
    if FIELDS[dtype] == "bytes":
        tensor.bytes.values = array.tobytes()
    else:
        getattr(tensor, FIELDS[dtype]).values.extend(array.ravel().tolist())
    return value
