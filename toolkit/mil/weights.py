"""Reads weight.bin: 64-byte records that say where raw little-endian values lie.

Format: coremltools `mlmodel/src/MILBlob/Blob/StorageFormat.hpp` and `BlobDataType.hpp`. The file starts with a header
(uint32 count, uint32 version 2). A record is, little-endian: uint32 sentinel 0xDEADBEEF, uint32 data type, uint64 size
in bytes, uint64 offset of the data, uint64 padding bits (for sub-byte types only).
"""

import mmap
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError
from toolkit.files import opened
from toolkit.mil.dtypes import BY_BLOB, DTYPES, unpack

_RECORD = struct.Struct("<IIQQQ")
_RECORD_BYTES = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_AGAIN = "The file is cut or belongs to another program: export the model again, or copy the whole folder again."


class WeightFile:
    """One weight.bin, memory-mapped. The arrays `read` returns are views of the file where they can be: copy what is to be kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path, sys.maxsize, raises=ArtifactError, advice=_AGAIN) as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size < _RECORD_BYTES:
                raise ArtifactError(f"{path}: {self.size} bytes, less than its header of {_RECORD_BYTES}. {_AGAIN}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        version = struct.unpack_from("<II", self._map)[1]
        if version != _VERSION:
            raise ArtifactError(f"{path}: storage version {version}, only {_VERSION} is known. {_AGAIN}")
        self._records: set[int] = set()
        self._claimed_bytes = 0

    def read(self, offset: int, dtype: str, elements: int) -> np.ndarray[Any, Any]:
        """`elements` values of `dtype` from the record at `offset`. Raises ArtifactError when the record disagrees."""
        where = f"{self.path}: weight record at {offset}"
        wanted = DTYPES.get(dtype)
        if wanted is None or wanted.blob is None:
            raise ArtifactError(f"{where}: type {dtype} cannot lie in a weight file. {_AGAIN}")
        if not 0 <= offset <= self.size - _RECORD_BYTES:
            raise ArtifactError(f"{where} lies outside the file of {self.size} bytes. {_AGAIN}")
        sentinel, blob_dtype, size, start, spare_bits = _RECORD.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise ArtifactError(f"{where}: starts with {sentinel:#010x}, not {_SENTINEL:#010x}. {_AGAIN}")
        if blob_dtype != wanted.blob:
            found = BY_BLOB.get(blob_dtype, f"number {blob_dtype} of BlobDataType.hpp")
            raise ArtifactError(f"{where}: holds type {found}, the program says {dtype}. {_AGAIN}")
        expected = -(-elements * wanted.bits // 8)
        if size != expected or (wanted.packed and size * 8 - spare_bits != elements * wanted.bits):
            raise ArtifactError(f"{where}: {size} bytes, {spare_bits} spare bits; the program's shape needs {expected} bytes. {_AGAIN}")
        if start + size > self.size:
            raise ArtifactError(f"{where}: data up to {start + size} in a file of {self.size} bytes. {_AGAIN}")
        self._claim(where, offset, size)
        if wanted.packed:
            return unpack(np.frombuffer(self._map, np.uint8, size, start), wanted, elements)
        return np.frombuffer(self._map, wanted.numpy, elements, start)

    def _claim(self, where: str, offset: int, size: int) -> None:
        """Refuses records that overlap: they could ask for far more memory than the file is large."""
        if offset not in self._records:
            self._records.add(offset)
            self._claimed_bytes += size
        if self._claimed_bytes > self.size:
            raise ArtifactError(f"{where}: the records claim more than the {self.size} bytes of the file. {_AGAIN}")
