"""Reads weight.bin: 64-byte records that say where raw little-endian values lie.

Format: coremltools `mlmodel/src/MILBlob/Blob/StorageFormat.hpp` and `BlobDataType.hpp`. The file starts with a header
(uint32 count, uint32 version 2). A record is, little-endian: uint32 sentinel 0xDEADBEEF, uint32 data type, uint64 size
in bytes, uint64 offset of the data, uint64 padding bits (for sub-byte types only).
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError

_RECORD = struct.Struct("<IIQQQ")
_RECORD_BYTES = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_BLOB_DTYPES = {1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 14: "int32"}  # BlobDataType.hpp
_NUMPY = {"fp16": "<f2", "fp32": "<f4", "uint8": "u1", "int8": "i1", "int16": "<i2", "int32": "<i4"}
_AGAIN = "The file is cut or belongs to another program: export the model again, or copy the whole folder again."


class WeightFile:
    """One weight.bin, memory-mapped. The arrays `read` returns are views of the file: copy what is to be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        if self.size < _RECORD_BYTES:
            raise ArtifactError(f"{path}: {self.size} bytes, less than its header of {_RECORD_BYTES}. {_AGAIN}")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        version = struct.unpack_from("<II", self._map)[1]
        if version != _VERSION:
            raise ArtifactError(f"{path}: storage version {version}, only {_VERSION} is known. {_AGAIN}")
        self._records: set[int] = set()
        self._claimed_bytes = 0

    def read(self, offset: int, dtype: str, elements: int) -> np.ndarray[Any, Any]:
        """`elements` values of `dtype` from the record at `offset`. Raises ArtifactError when the record disagrees."""
        where = f"{self.path}: weight record at {offset}"
        if dtype not in _NUMPY:
            raise ArtifactError(f"{where}: type {dtype} is not supported yet, only {', '.join(_NUMPY)}.")
        if not 0 <= offset <= self.size - _RECORD_BYTES:
            raise ArtifactError(f"{where} lies outside the file of {self.size} bytes. {_AGAIN}")
        sentinel, blob_dtype, size, start, _ = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise ArtifactError(f"{where}: starts with {sentinel:#010x}, not {_SENTINEL:#010x}. {_AGAIN}")
        if _BLOB_DTYPES.get(blob_dtype) != dtype:
            found = _BLOB_DTYPES.get(blob_dtype, f"number {blob_dtype} of BlobDataType.hpp")
            raise ArtifactError(f"{where}: holds type {found}, the program says {dtype}. {_AGAIN}")
        numpy_dtype = np.dtype(_NUMPY[dtype])
        if size != elements * numpy_dtype.itemsize:
            expected = elements * numpy_dtype.itemsize
            raise ArtifactError(f"{where}: {size} bytes, the program's shape needs {expected}. {_AGAIN}")
        if start + size > self.size:
            raise ArtifactError(f"{where}: data up to {start + size} in a file of {self.size} bytes. {_AGAIN}")
        self._claim(where, offset, size)
        return np.frombuffer(self._map, numpy_dtype, elements, start)

    def _claim(self, where: str, offset: int, size: int) -> None:
        """Refuses records that overlap: they could ask for far more memory than the file is large."""
        if offset not in self._records:
            self._records.add(offset)
            self._claimed_bytes += size
        if self._claimed_bytes > self.size:
            raise ArtifactError(f"{where}: the records claim more than the {self.size} bytes of the file. {_AGAIN}")
