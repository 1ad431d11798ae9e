"""MIL's data types: how the file numbers them, how NumPy holds them, how many bits each takes.

Sources: MIL.proto `DataType`; `mlmodel/src/MILBlob/Blob/BlobDataType.hpp`. Sub-byte integers are packed in the file, the
first value in the lowest bits, and are held here one to a byte.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DType:
    """`proto` and `blob` are the numbers in the program and in weight.bin; `numpy` holds one element."""

    name: str
    proto: int
    blob: int | None
    bits: int
    numpy: str

    @property
    def packed(self) -> bool:
        return self.bits < 8


_ALL = (
    DType("bool", 1, None, 8, "?"),
    DType("fp16", 10, 1, 16, "<f2"),
    DType("fp32", 11, 2, 32, "<f4"),
    DType("fp64", 12, None, 64, "<f8"),
    DType("int4", 25, 8, 4, "i1"),
    DType("int8", 21, 4, 8, "i1"),
    DType("int16", 22, 6, 16, "<i2"),
    DType("int32", 23, 14, 32, "<i4"),
    DType("int64", 24, None, 64, "<i8"),
    DType("uint1", 37, 9, 1, "u1"),
    DType("uint2", 36, 10, 2, "u1"),
    DType("uint3", 39, 12, 3, "u1"),
    DType("uint4", 35, 11, 4, "u1"),
    DType("uint6", 38, 13, 6, "u1"),
    DType("uint8", 31, 3, 8, "u1"),
    DType("uint16", 32, 7, 16, "<u2"),
    DType("uint32", 33, 15, 32, "<u4"),
)
DTYPES = {each.name: each for each in _ALL}
BY_PROTO = {each.proto: each.name for each in _ALL} | {2: "string"}
BY_BLOB = {each.blob: each.name for each in _ALL if each.blob is not None}
FLOATS = frozenset({"fp16", "fp32", "fp64"})
INTEGERS = frozenset(DTYPES) - FLOATS - {"bool"}
NUMBERS = frozenset(DTYPES)


def unpack(raw: np.ndarray[Any, Any], dtype: DType, elements: int) -> np.ndarray[Any, Any]:
    """`elements` sub-byte integers out of `raw` bytes, one to a byte, sign-extended for signed types."""
    bits = np.unpackbits(raw, bitorder="little")[: elements * dtype.bits].reshape(elements, dtype.bits)
    values = np.packbits(bits, axis=1, bitorder="little").reshape(elements)
    if dtype.name.startswith("uint"):
        return values
    sign = 1 << (dtype.bits - 1)
    return ((values ^ sign).astype(np.int16) - sign).astype(np.int8)
