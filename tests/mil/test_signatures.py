"""Ops that no opset defines are refused at load; what fp16 beside fp32 leaves open is rounded as declared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mil.raw import Name, write
from toolkit.errors import ArtifactError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.catalogue import rows
from toolkit.mil.ops.table import OPS

X, EYE = Name("x"), np.eye(2, dtype=np.float32)
PAIR = [("x", "fp32", (1, 2))]
FLAG: list[Any] = [("equal", {"x": X, "y": X}, [("flag", "bool", ())])]
SCALAR = [("x", "fp32", ())]
STATE = [("x", "fp16", (2,)), ("s", "state:fp16", (2,))]
ZERO = np.array([0], np.int32)


def branches(pred: str = "flag", count: int = 2, gives: str = "fp32") -> Any:
    """A cond whose blocks give x, in fp32."""
    blocks = [([], [("relu", {"x": X}, [(f"v{index}", "fp32", ())])], [f"v{index}"]) for index in range(count)]
    return ("cond", {"pred": Name(pred)}, [("y", gives, ())], blocks)


def loop(takes: str = "fp32", gives: str = "fp32") -> Any:
    """A while_loop of no round at all."""
    never = ([("v", takes, (2,))], [("less", {"x": ZERO[0], "y": ZERO[0]}, [("c", "bool", ())])], ["c"])
    twice = ([("w", takes, (2,))], [("add", {"x": Name("w"), "y": Name("w")}, [("w2", takes, (2,))])], ["w2"])
    return ("while_loop", {"loop_vars": [X]}, [("y", gives, (2,))], [never, twice])


def read(gives: str) -> Any:
    return ("read_state", {"input": Name("s")}, [("r", gives, (2,))])


WIDE: list[Any] = [("cast", {"x": X, "dtype": "fp32"}, [("wide", "fp32", (2,))])]
UPDATE = {"x": X, "update": np.array([1 / 3], np.float32), "begin": ZERO, "end": ZERO + 1}
REFUSED: dict[str, tuple[Any, Any, str, int, str]] = {
    "matmul": (PAIR, [("matmul", {"x": X, "y": EYE}, [("y", "int32", (1, 2))])], "y", 17, r"op 0 \(matmul.*output int32.*gives fp32"),
    "linear": (PAIR, [("linear", {"x": X, "weight": EYE}, [("y", "bool", (1, 2))])], "y", 17, "declares output bool.*gives fp32"),
    "fill": (PAIR, [("fill", {"shape": ZERO, "value": EYE[0, 0]}, [("y", "int32", (0,))])], "y", 17, "declares output int32.*gives fp32"),
    "update": ([("x", "fp16", (2,))], [("slice_update", UPDATE, [("y", "fp16", (2,))])], "y", 18, "types fp16, fp32; they must share"),
    "scatter": (
        [("x", "fp16", (2,))],
        [("scatter", {"data": X, "indices": ZERO, "updates": ZERO}, [("y", "fp16", (2,))])], "y", 17, "types fp16, int32",
    ),
    "branch": (SCALAR, [*FLAG, branches(gives="int32")], "y", 17, "the output of its first block is fp32, where int32 is wanted"),
    "pred": (SCALAR, [branches("x")], "y", 17, "its 'pred' is fp32, not bool"),
    "three blocks": (SCALAR, [*FLAG, branches(count=3)], "y", 17, "has 3 nested blocks, not two"),
    "loop input": ([("x", "fp32", (2,))], [loop("int32")], "y", 17, "loop_vars is fp32|the input of its first block is int32, where"),
    "loop output": ([("x", "fp32", (2,))], [loop(gives="int32")], "y", 17, "loop_vars is fp32, where int32 is wanted"),
    "read": (STATE, [read("int32")], "r", 18, "declares output int32.*gives fp16"),
    "write": (STATE, [*WIDE, ("write_state", {"input": Name("s"), "data": Name("wide")}, []), read("fp16")], "r", 18, "types fp16, fp32"),
    "age": (
        [("x", "fp32", (2,))], [("slice_update", UPDATE, [("y", "fp32", (2,))])], "y", 15,
        r"op 0 \(slice_update -> y\): opset CoreML5 has no 'slice_update'; it came with CoreML8, iOS18",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_opset_defines_is_refused_at_load(name: str, tmp_path: Path) -> None:
    inputs, ops, output, opset, message = REFUSED[name]
    with pytest.raises(ArtifactError, match=message):
        ReferenceEvaluator(write(tmp_path, inputs, ops, [output], opset))


def test_a_wider_float_that_is_only_moved_is_still_rounded(tmp_path: Path) -> None:
    """A loop of no round hands its fp32 input on as fp16."""
    path = write(tmp_path, [("x", "fp32", (2,))], [loop(gives="fp16")], ["y"])
    third, huge = ReferenceEvaluator(path).predict({"x": np.array([1 / 3, 1e6])})["y"]
    assert third == np.float16(1 / 3)
    assert np.isinf(huge)


def test_a_product_may_mix_float_types(tmp_path: Path) -> None:
    """From iOS17 a constant weight may be of the other type; the result has that of x."""
    path = write(tmp_path, [("x", "fp16", (1, 2))], [("matmul", {"x": X, "y": EYE}, [("y", "fp16", (1, 2))])], ["y"])
    assert ReferenceEvaluator(path).predict({"x": [[1, 2]]})["y"].tolist() == [[1, 2]]


def test_the_age_of_an_op_is_what_its_specification_says() -> None:
    assert {name: op.since for name, op in OPS.items()} == {name: since for name, since, _ in rows()}


@pytest.mark.parametrize(("op", "finite"), [("layer_norm", True), ("log", False), ("rsqrt", False), ("inverse", False)])
@pytest.mark.parametrize("given", [True, False])
def test_epsilon_is_rounded_where_it_is_added_to_x_itself(op: str, finite: bool, given: bool, tmp_path: Path) -> None:
    """1e-12 is no fp16 number: 1 / sqrt(0 + epsilon) is inf there, while a norm adds it to a variance kept in float32."""
    epsilon = np.float32(1e-12)
    parameters = {"x": X} | ({"epsilon": epsilon} if given else {}) | ({"axes": np.array([0], np.int32)} if finite else {})
    path = write(tmp_path, [("x", "fp16", (2,))], [(op, parameters, [("y", "fp16", (2,))])], ["y"])
    result = ReferenceEvaluator(path).predict({"x": np.zeros(2)})["y"]
    wanted = finite or (op == "inverse" and not given)  # its default, 1e-4, is a number in fp16
    assert np.isfinite(result).all() == wanted
