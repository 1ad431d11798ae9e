"""Kind 7: ML Programs that ask for much with little. Each is refused in words, in seconds, and takes no memory worth mentioning."""

import resource
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mil.raw import Name, write
from toolkit.errors import ArtifactError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.limits import Budget

SECONDS, KIB = 20, 500_000
BUDGET = Budget(memory_bytes=16 << 30, operations=1e10)
LITTLE = Budget(memory_bytes=256 << 20, operations=1e10)
SMALL = ("y", "fp32", (1,))
X = [("x", "fp32", (1,))]
Op = tuple[Any, ...]


def i32(*values: int) -> Any:
    return np.array(values, np.int32)


def number(value: int) -> Any:
    return np.int32(value)


def filled(name: str, *shape: int) -> Op:
    """An op that makes `shape` of nothing."""
    return ("fill", {"shape": i32(*shape), "value": np.float32(1)}, [(name, "fp32", shape)])


def summed(name: str, rank: int) -> Op:
    """y, of one number, so that nothing large comes out."""
    axes = i32(*range(rank))
    return ("reduce_sum", {"x": Name(name), "axes": axes, "keep_dims": np.bool_(False)}, [("y", "fp32", ())])


def product(a: str, b: str, name: str, size: int) -> Op:
    parameters = {"x": Name(a), "y": Name(b), "transpose_x": np.bool_(False), "transpose_y": np.bool_(False)}
    return ("matmul", parameters, [(name, "fp32", (size, size))])


def large_product(folder: Path) -> Path:
    return write(folder, X, [filled("a", 2**14, 2**14), product("a", "a", "b", 2**14), summed("b", 2)], ["y"])


def many_products(folder: Path) -> Path:
    chain = [product("a0", f"a{n}", f"a{n + 1}", 4096) for n in range(100)]
    return write(folder, X, [filled("a0", 4096, 4096), *chain, summed("a100", 2)], ["y"])


def loop(condition: list[Op], body: list[Op], again: str = "again", after: str = "after") -> Op:
    """while, over one int32 `i`."""
    i, out = [("i", "int32", ())], [("end", "int32", ())]
    return ("while_loop", {"loop_vars": [Name("zero")]}, out, [(i, condition, [again]), ([("j", "int32", ())], body, [after])])


ZERO: Op = ("const", {"val": number(0)}, [("zero", "int32", ())])
LESS: Op = ("less", {"x": Name("i"), "y": number(2**31 - 1)}, [("again", "bool", ())])
ALWAYS: Op = ("logical_not", {"x": np.bool_(False)}, [("again", "bool", ())])
NEXT: Op = ("add", {"x": Name("j"), "y": number(1)}, [("after", "int32", ())])
END: Op = ("cast", {"x": Name("end"), "dtype": "fp32"}, [("y", "fp32", ())])


def endless(folder: Path) -> Path:
    return write(folder, X, [ZERO, loop([ALWAYS], [NEXT]), END], ["y"])


def two_thousand_million_rounds(folder: Path) -> Path:
    return write(folder, X, [ZERO, loop([LESS], [NEXT]), END], ["y"])


def loops_in_loops(folder: Path) -> Path:
    nested: Op = (
        "while_loop",
        {"loop_vars": [Name("zero")]},
        [("inner", "int32", ())],
        [
            ([("i2", "int32", ())], [("less", {"x": Name("i2"), "y": number(1000)}, [("again2", "bool", ())])], ["again2"]),
            ([("j2", "int32", ())], [("add", {"x": Name("j2"), "y": number(1)}, [("after2", "int32", ())])], ["after2"]),
        ],
    )
    rounds: Op = ("less", {"x": Name("i"), "y": number(100_000)}, [("again", "bool", ())])
    return write(folder, X, [ZERO, loop([rounds], [nested, NEXT]), END], ["y"])


def empty_messages(folder: Path) -> Path:
    """1.5 million inputs without anything in them, in 3 MiB: 150 MiB once they are objects."""
    path = write(folder, X, [("relu", {"x": Name("x")}, [SMALL])], ["y"])
    path.write_bytes(path.read_bytes() + wrapped(502, wrapped(2, b"\x0a\x01m\x12" + varint(3 << 20) + b"\x0a\x00" * (3 << 19))))
    return path


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def wrapped(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def long_name(folder: Path) -> Path:
    return write(folder, X, [("relu", {"x": Name("x")}, [("y" * (2 << 20), "fp32", (1,))])], ["y" * (2 << 20)])


def many_time_steps(folder: Path) -> Path:
    steps = 2**18
    weights = {"weight_ih": np.ones((4, 1), np.float32), "weight_hh": np.ones((4, 1), np.float32)}
    state = {"initial_h": np.zeros((1, 1), np.float32), "initial_c": np.zeros((1, 1), np.float32)}
    outputs = [("h", "fp32", (steps, 1, 1)), ("last", "fp32", (1, 1)), ("c", "fp32", (1, 1))]
    lstm: Op = ("lstm", {"x": Name("a"), **state, **weights, "output_sequence": np.bool_(True)}, outputs)
    return write(folder, X, [filled("a", steps, 1, 1), lstm, summed("h", 3)], ["y"])


def made_list(name: str) -> Op:
    parameters = {"init_length": number(1), "dynamic_length": np.bool_(True), "elem_shape": [*i32(1)], "dtype": "fp32"}
    return ("make_list", parameters, [(name, "list:fp32", (1,))])


INDICES: Op = ("range_1d", {"start": number(0), "end": number(10**6), "step": number(1)}, [("indices", "int32", (10**6,))])


def many_items(folder: Path) -> Path:
    """A million tensors of one number in each of 40 lists: 24 GB."""
    lists = [
        ("list_scatter", {"ls": Name("l"), "indices": Name("indices"), "value": Name("a")}, [(f"l{n}", "list:fp32", (1,))])
        for n in range(40)
    ]
    lengths = [("list_length", {"ls": Name(f"l{n}")}, [(f"n{n}", "int32", ())]) for n in range(40)]
    last: Op = ("cast", {"x": Name("n39"), "dtype": "fp32"}, [("y", "fp32", ())])
    return write(folder, X, [made_list("l"), INDICES, filled("a", 10**6, 1), *lists, *lengths, last], ["y"])


def many_pieces(folder: Path) -> Path:
    cut: Op = ("split", {"x": Name("a"), "axis": number(0), "num_splits": number(2**26)}, [("b", "fp32", (1,)), ("c", "fp32", (1,))])
    return write(folder, X, [filled("a", 2**26), cut, ("add", {"x": Name("b"), "y": Name("c")}, [SMALL])], ["y"])


def wide_norm(folder: Path) -> Path:
    """The channels are padded by half of the size on each side: 4 GiB for 16 numbers."""
    parameters = {"size": number(2**30), "alpha": np.float32(1e-4), "beta": np.float32(0.75), "k": np.float32(1)}
    norm: Op = ("local_response_norm", {"x": Name("a"), **parameters}, [("b", "fp32", (1, 4, 2, 2))])
    return write(folder, X, [filled("a", 1, 4, 2, 2), norm, summed("b", 4)], ["y"])


def pool(kernel: tuple[int, ...], name: str) -> dict[str, Any]:
    parameters = {
        "kernel_sizes": i32(*kernel),
        "strides": i32(*(1,) * len(kernel)),
        "pad_type": "valid",
        "pad": i32(*(0,) * 2 * len(kernel)),
    }
    flags = {"exclude_padding_from_average": np.bool_(False), "ceil_mode": np.bool_(False)}
    return {"x": Name(name), **parameters, **flags}


def many_windows(folder: Path) -> Path:
    pooled: Op = ("avg_pool", pool((2,), "a"), [("b", "fp32", (1, 1, 2**27 - 1))])
    return write(folder, X, [filled("a", 1, 1, 2**27), pooled, summed("b", 3)], ["y"])


def large_windows(folder: Path) -> Path:
    pooled: Op = ("avg_pool", pool((4096, 4096), "a"), [("b", "fp32", (1, 1, 4097, 4097))])
    return write(folder, X, [filled("a", 1, 1, 8192, 8192), pooled, summed("b", 4)], ["y"])


def large_kernel(folder: Path) -> Path:
    """PyTorch lays out float64 images as a matrix: 69 GB."""
    conv = {"x": Name("a"), "weight": Name("w"), "strides": i32(1, 1), "pad_type": "valid", "pad": i32(0, 0, 0, 0)}
    conv |= {"dilations": i32(1, 1), "groups": number(1)}
    ops: list[Op] = [filled("a", 1, 1, 512, 512), filled("w", 1, 1, 256, 256), ("conv", conv, [("b", "fp32", (1, 1, 257, 257))])]
    return write(folder, X, [*ops, summed("b", 4)], ["y"])


def large_default(folder: Path) -> Path:
    """An optional input of 2^40 numbers, of which the file gives one."""

    def edit(spec: Any) -> None:
        array = spec.description.input[0].type.multiArrayType
        array.ClearField("shape")
        array.enumeratedShapes.shapes.add(shape=[2**20, 2**20])
        array.floatDefaultValue = 1.0

    return write(folder, [("x", "fp32", None)], [("relu", {"x": Name("x")}, [("y", "fp32", None)])], ["y"], edit=edit)


def twice_the_last_label(folder: Path) -> Path:
    labels = [f"{n}" for n in range(30_000)] + ["29999"]
    op: Op = ("classify", {"probabilities": Name("a"), "classes": labels}, [("label", "string", ()), ("p", "dictionary", ())])
    return write(folder, X, [filled("a", len(labels)), op, ("relu", {"x": Name("x")}, [SMALL])], ["y"])


def many_boxes(folder: Path) -> Path:
    """A quarter of a million boxes of which none overlaps another: every one is compared with all."""
    count = 2**18
    numbers: Op = ("range_1d", {"start": np.float32(0), "end": np.float32(count), "step": np.float32(1)}, [("n", "fp32", (count,))])
    column: Op = ("reshape", {"x": Name("n"), "shape": i32(1, count, 1)}, [("column", "fp32", (1, count, 1))])
    boxes: Op = (
        "concat",
        {"values": [Name("column"), Name("column"), Name("ones"), Name("ones")], "axis": number(-1), "interleave": np.bool_(False)},
        [("boxes", "fp32", (1, count, 4))],
    )
    parameters = {"iou_threshold": np.float32(0.5), "score_threshold": np.float32(0.1), "max_boxes": number(count)}
    kept: Op = (
        "non_maximum_suppression",
        {"boxes": Name("boxes"), "scores": Name("ones"), **parameters, "per_class_suppression": np.bool_(False)},
        [("b", "fp32", (1, count, 4)), ("s", "fp32", (1, count, 1)), ("i", "int32", (1, count)), ("c", "int32", (1,))],
    )
    ops = [numbers, column, filled("ones", 1, count, 1), boxes, kept, summed("s", 3)]
    return write(folder, X, ops, ["y"], opset=15)


def sorted_again_and_again(folder: Path) -> Path:
    size, one = 2**24, {"axis": number(0), "ascending": np.bool_(True)}
    ops: list[Op] = [("argsort", {"x": Name("a"), **one}, [(f"s{n}", "int32", (size,))]) for n in range(100)]
    return write(folder, X, [filled("a", size), *ops, summed("a", 1)], ["y"])


def many_numbers_as_one_tuple(folder: Path) -> Path:
    """`reps` of 2^22 numbers: a tuple of Python numbers is ten times as large."""
    tiled: Op = ("tile", {"x": Name("x"), "reps": np.zeros(2**22, np.int32)}, [SMALL])
    return write(folder, X, [tiled], ["y"])


def nested_blocks_in_a_long_program(folder: Path) -> Path:
    """Each of 1,000 conditions sees the names of all ops before it: 8 million copies of names."""
    one: list[Op] = [("logical_not", {"x": np.bool_(False)}, [("yes", "bool", ())])]
    for n in range(1_000):
        blocks = [([], [("relu", {"x": Name("x")}, [(f"{side}{n}", "fp32", (1,))])], [f"{side}{n}"]) for side in "ab"]
        one += [("relu", {"x": Name("x")}, [(f"r{n}k{k}", "fp32", (1,))]) for k in range(4)]
        one.append(("cond", {"pred": Name("yes")}, [(f"c{n}", "fp32", (1,))], blocks))
    return write(folder, X, [*one, ("unknown", {}, [SMALL])], ["y"])


def a_record_read_a_thousand_times(folder: Path) -> Path:
    """512 KiB of one-bit weights, 4 million of them, unpacked by each of a thousand constants: 4 GB."""
    (folder / "weights").mkdir(exist_ok=True)
    record = struct.pack("<IIQQQ", 0xDEADBEEF, 9, 512 << 10, 128, 0)
    header = struct.pack("<II", 1, 2).ljust(64, b"\0")
    (folder / "weights/weight.bin").write_bytes(header + record.ljust(64, b"\0") + bytes(512 << 10))

    def edit(spec: Any) -> None:
        block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
        for n in range(1000):
            op = block.operations.add(type="const")
            value = op.attributes["val"]
            value.type.tensorType.dataType = 37
            value.type.tensorType.rank = 1
            value.type.tensorType.dimensions.add().constant.size = 4 << 20
            value.blobFileValue.fileName, value.blobFileValue.offset = "@model_path/weights/weight.bin", 64
            op.outputs.add(name=f"w{n}").type.CopyFrom(value.type)

    return write(folder, X, [("relu", {"x": Name("x")}, [SMALL])], ["y"], edit=edit)


# name → (builder, what is said)
PROGRAMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a product of 2^14 by 2^14": (large_product, "operations or more; 1.0e.10 are allowed.*TOOLKIT_WORK_LIMIT"),
    "a hundred products": (many_products, "operations or more"),
    "a loop that never ends": (endless, "operations or more"),
    "a loop of 2^31 rounds": (two_thousand_million_rounds, "operations or more"),
    "loops in loops": (loops_in_loops, "operations or more"),
    "millions of empty messages": (empty_messages, "more than .* fields"),
    "a name of 2 MiB": (long_name, "a text of 2097152 bytes"),
    "a recurrent layer of 2^18 steps": (many_time_steps, "operations or more"),
    "lists of a million items": (many_items, "elements alive"),
    "a tensor cut into 2^26 pieces": (many_pieces, "67108864 pieces"),
    "a norm over 2^30 channels": (wide_norm, r"size 1073741824 of \[1, 4, 2, 2\]: more than"),
    "a pool of 2^27 windows": (many_windows, "windows, more than"),
    "a pool of large windows": (large_windows, "operations or more"),
    "a convolution laid out as a matrix": (large_kernel, "would lay out its input"),
    "an optional input of 2^40 numbers": (large_default, "elements are made up"),
    "a label twice among 30,000": (twice_the_last_label, "label '29999' stands for several"),
    "boxes that do not overlap": (many_boxes, "operations or more"),
    "a hundred sorts": (sorted_again_and_again, "operations or more"),
    "a tuple of 2^22 numbers": (many_numbers_as_one_tuple, "a constant int32"),
    "thousands of nested blocks": (nested_blocks_in_a_long_program, "does not know 'unknown'"),
    "a record read a thousand times": (a_record_read_a_thousand_times, "are unpacked, more than"),
}


@pytest.fixture
def alarmed() -> Iterator[None]:
    """What takes too long ends, where Python has a word in it."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def run(path: Path, mode: str, budget: Budget) -> None:
    evaluator = ReferenceEvaluator(path, mode, budget=budget)
    evaluator.predict({each.name: np.ones(each.type.sizes, np.float32) for each in evaluator.features if each.default is None})


@pytest.mark.usefixtures("alarmed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_asks_for_too_much(name: str, tmp_path: Path) -> None:
    build, says = PROGRAMS[name]
    budget = LITTLE if build in (empty_messages, many_items, a_record_read_a_thousand_times) else BUDGET
    path = build(tmp_path)
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ArtifactError, match=says):
        run(path, "exact" if build is large_kernel else "as-typed", budget)
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KIB
