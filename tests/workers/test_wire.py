"""What is written is what is read; and whatever the bytes are, reading them ends in a message or a WireError, at no cost."""

import io
import json
import random
import resource

import numpy as np
import pytest

from toolkit.workers import wire
from toolkit.workers.wire import HEAD, MAGIC, Message, WireError

ARRAYS = {
    "f": np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32), "i": np.arange(6, dtype=np.int64).reshape(1, 2, 3), "b": np.array([True]),
    "u": np.array(["ä", "bcd"]), "none": np.empty((0, 10), np.float32), "scalar": np.array(3.5), "turned": np.arange(6).reshape(2, 3).T,
}  # fmt: skip


def written(kind: str, message: Message) -> bytes:
    stream = io.BytesIO()
    wire.write(stream, kind, message)
    return stream.getvalue()


def frame(head: object, body: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return HEAD.pack(MAGIC, len(text)) + text + body


def test_what_is_written_is_what_is_read():
    stream = io.BytesIO(written("a", Message({"x": [1, {"y": None}]}, ARRAYS)) + written("b", Message()))
    kind, found = wire.read(stream)
    assert (kind, found.fields) == ("a", {"x": [1, {"y": None}]})
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert wire.read(stream) == ("b", Message())
    assert wire.read(stream) is None


def test_objects_are_not_written():
    with pytest.raises(ValueError, match="numbers and text, not x: object"):
        wire.write(io.BytesIO(), "a", Message({}, {"x": np.array([object()])}))


@pytest.mark.parametrize("data", [
    b"x", b"TKW1", HEAD.pack(MAGIC, 10) + b"short", HEAD.pack(b"ELSE", 2) + b"{}", HEAD.pack(MAGIC, 2**32 - 1),
    frame(b"not json"), frame([]), frame({}), frame({"kind": 1, "fields": {}, "arrays": []}),
    frame({"kind": "a", "fields": [], "arrays": []}),
    frame(b"[" * 100_000), frame(b'{"kind": "a", "fields": {"n": ' + b"9" * 5000 + b'}, "arrays": []}'), frame(b"\xff\xfe"),
    *(frame({"kind": "a", "fields": {}, "arrays": arrays}) for arrays in (
        {}, [1], [["x"]], [["x", "<f4"]], [["x", "<f4", 3]], [["x", "<f4", [-1]]], [["x", "<f4", [1.5]]], [["x", "<f4", [True]]],
        [["x", "|O", [1]]], [["x", "O8", [1]]], [["x", "<f4,<f4", [1]]], [["x", "<U0", [1]]], [["x", "nothing", [1]]], [[1, "<f4", [1]]],
        [["x", "<f4", [1] * 9]], [["x", "<f4", [2**39] * 8]], [["x", "<f4", [4]]], [["x", "<M8[s]", [1]]], [["x", "|V8", [1]]],
        [["x", "<f4", [2**35]]], [["x", "<U999999999", [4]]], [["x", "<f4", [0]]] * 65,
    )),
])  # fmt: skip
def test_bytes_that_are_no_frame_are_refused_at_no_cost(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WireError):
        wire.read(io.BytesIO(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_frame_that_is_damaged_anywhere_is_a_message_or_a_wire_error():
    whole, chance = written("a", Message({"x": "y" * 50}, ARRAYS)), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            wire.read(io.BytesIO(bytes(damaged)), most_bytes=1 << 20)
        except WireError:
            continue
