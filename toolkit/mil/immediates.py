"""Literals that are written into the program itself: the field of MIL.proto's TensorValue that holds them, and their values."""

from typing import Any

import numpy as np

from toolkit.mil.dtypes import INTEGERS, DType, unpack

_HELD = {"bools": np.bool_, "floats": np.float32, "doubles": np.float64, "ints": np.int32, "longInts": np.int64}


def fields_of(dtype: str) -> tuple[str, ...]:
    """The fields of TensorValue that may hold a type: coremltools writes the small ones as bytes, int16 as ints."""
    plain = {"bool": "bools", "fp32": "floats", "fp64": "doubles", "int64": "longInts"}.get(dtype)
    if plain is None:
        return ("bytes", "ints") if dtype in INTEGERS else ("bytes",)
    return (plain,)


def flat(tensor: Any, field: str, dtype: DType, elements: int) -> np.ndarray[Any, Any] | None:
    """The values of a literal; None where there are too few bytes, an array of another size where there are too many."""
    if field == "bytes":
        raw = np.frombuffer(tensor.bytes.values, np.uint8)
        if raw.size * 8 < elements * dtype.bits or raw.size % max(1, dtype.bits // 8):
            return None
        return unpack(raw, dtype, elements) if dtype.packed else raw.view(dtype.numpy)
    given = getattr(tensor, field).values
    # np.array would make a list of them first, ten times as large.
    values: np.ndarray[Any, Any] = np.fromiter(given, _HELD[field], len(given))
    narrow = values.astype(dtype.numpy, copy=False)
    return narrow if dtype.name not in INTEGERS or np.array_equal(narrow, values) else None
