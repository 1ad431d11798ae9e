"""Counts what a protobuf file holds before protobuf makes an object of each: an empty message has 2 bytes in the file, 100 in memory.

The wire format is protobuf's own (https://protobuf.dev/programming-guides/encoding): a field is a number (its place in the message and
its kind) and what follows. Which fields are messages, and so hold fields themselves, is read from protobuf's descriptors.
"""

from functools import cache
from typing import Any

from toolkit.errors import ArtifactError
from toolkit.mil.limits import MAX_DEPTH, MAX_TEXT_BYTES

_VARINT, _EIGHT, _LENGTH, _GROUP, _END, _FOUR = range(6)
_TEXT = "text"


def check(data: bytes, descriptor: Any, most: int) -> int:
    """How many fields `data`, a message of that kind, holds, those of messages within messages included.

    Raises ArtifactError for more than `most`, for more than MAX_DEPTH levels, a text of more than MAX_TEXT_BYTES, and damaged data.
    """
    at, end, known = 0, len(data), _known(descriptor)
    around: list[tuple[int, dict[int, Any]]] = []  # of the messages around this one: where it ends, what it may hold
    seen = 0
    try:
        while True:
            while at == end:
                if not around:
                    return seen
                end, known = around.pop()
            seen += 1
            if seen > most:
                raise ArtifactError(f"more than {most} fields, which would take too much memory. The file is damaged, or too large")
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _number(data, at - 1)
            kind = tag & 7
            if kind == _VARINT:
                _, at = _number(data, at)
            elif kind == _LENGTH:
                length, at = _number(data, at)
                if length > end - at:
                    raise IndexError
                inside = known.get(tag >> 3)
                if inside is _TEXT and length > MAX_TEXT_BYTES:
                    raise ArtifactError(f"a text of {length} bytes, more than {MAX_TEXT_BYTES}. The file is damaged")
                if inside is None or inside is _TEXT:
                    at += length
                    continue
                if len(around) == MAX_DEPTH:
                    raise ArtifactError(f"messages within messages, more than {MAX_DEPTH} levels. The file is damaged")
                around.append((end, known))
                end, known = at + length, _known(inside)
            else:
                at += {_EIGHT: 8, _FOUR: 4, _GROUP: 0, _END: 0}[kind]
            if at > end:
                raise IndexError
    except (IndexError, KeyError) as error:
        raise ArtifactError(f"no Core ML protobuf: damaged at byte {at} of {len(data)}") from error


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number of variable length at `at`, and where it ends."""
    number, shift = data[at], 7
    at += 1
    if number < 128:
        return number, at
    number &= 127
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise IndexError


@cache
def _known(descriptor: Any) -> dict[int, Any]:
    """Field number -> the descriptor of the message it holds, or _TEXT; nothing for numbers and bytes."""
    return {
        field.number: field.message_type or _TEXT for field in descriptor.fields if field.message_type or field.type == field.TYPE_STRING
    }
