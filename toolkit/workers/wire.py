"""The one format between a process and its worker, and of answers that are kept on the disk: JSON with arrays after it.

A frame is MAGIC, the length of a head (uint32, little-endian), the head, and the bytes of each array in order. The head is JSON:
{"kind": …, "fields": {…}, "arrays": [[name, dtype, shape], …]}. Nothing in it can run code, and nothing is taken on trust: the
reader checks every length against its bound before it makes room.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]
MAGIC = b"TKW1"
HEAD = struct.Struct("<4sI")
MAX_HEAD_BYTES = 64 << 20
MAX_ARRAY_BYTES = 2 << 30  # of all arrays of a frame together
MAX_ARRAYS, MAX_RANK = 64, 8
KINDS = "biufU"  # of NumPy's dtypes: numbers and text, no objects


class WireError(Exception):
    """Bytes that are no frame: damaged, cut short, or larger than what is allowed."""


@dataclass(frozen=True)
class Message:
    """`fields`: what JSON can hold (NaN and infinity too). `arrays`: numbers or text of any shape."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


def write(stream: IO[bytes], kind: str, message: Message) -> None:
    """Write one frame. Raises ValueError for an array of a type that a frame cannot hold."""
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in message.arrays.items()}
    if alien := [f"{name}: {array.dtype}" for name, array in arrays.items() if array.dtype.kind not in KINDS]:
        raise ValueError(f"a frame holds numbers and text, not {', '.join(alien)}")
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({"kind": kind, "fields": message.fields, "arrays": described}).encode()
    stream.write(HEAD.pack(MAGIC, len(head)) + head)
    for array in arrays.values():
        stream.write(array.reshape(-1).view(np.uint8).data if array.size else b"")
    stream.flush()


def read(stream: IO[bytes], most_bytes: int = MAX_ARRAY_BYTES) -> tuple[str, Message] | None:
    """Read one frame: its kind and message; None at the end of the stream. Raises WireError.

    `most_bytes`: of its arrays together; a larger frame is refused before any room is made for it.
    """
    start = stream.read(HEAD.size)
    if not start:
        return None
    if len(start) < HEAD.size:
        raise WireError(f"{len(start)} bytes where a frame begins")
    magic, length = HEAD.unpack(start)
    if magic != MAGIC or length > MAX_HEAD_BYTES:
        raise WireError(f"a frame does not begin with {start!r}")
    try:
        head = json.loads(_exactly(stream, length))
        kind, fields, arrays = head["kind"], head["fields"], head["arrays"]
        if not (isinstance(kind, str) and isinstance(fields, dict) and isinstance(arrays, list)):
            raise WireError("the head of a frame has other types than it must have")
        described = [_described(*each) for each in arrays]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"the head of a frame cannot be read: {type(error).__name__}: {error}") from error
    total = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in described)
    if total > most_bytes or len(described) > MAX_ARRAYS:
        raise WireError(f"a frame has {len(described)} arrays of {total} bytes; at most {MAX_ARRAYS} of {most_bytes} are read")
    return kind, Message(fields, {name: _array(stream, dtype, shape) for name, dtype, shape in described})


def _described(name: Any, text: Any, shape: Any) -> tuple[str, "np.dtype[Any]", tuple[int, ...]]:
    """Check the description of one array. Raises ValueError, TypeError."""
    if not isinstance(name, str) or not isinstance(text, str) or len(text) > 16 or not isinstance(shape, list):
        raise ValueError("an array is described as [name, dtype, shape]")
    dtype = np.dtype(text)
    if dtype.kind not in KINDS or dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"{name} has dtype {text}")
    sizes = tuple(shape)
    if len(sizes) > MAX_RANK or not all(type(size) is int and 0 <= size < 2**40 for size in sizes):
        raise ValueError(f"{name} has shape {sizes!r:.100}")
    return name, dtype, sizes


def _array(stream: IO[bytes], dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, dtype)
    view, done = array.reshape(-1).view(np.uint8).data if array.size else memoryview(bytearray()), 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]  # of every binary stream in io
        if not count:
            raise WireError(f"a frame ends {len(view) - done} bytes before its end")
        done += count
    return array


def _exactly(stream: IO[bytes], length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise WireError(f"a frame ends {length - len(found)} bytes before its end")
    return found
