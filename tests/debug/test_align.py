"""Alignment by names, then by kind, shape and order; counters of different exporters are not mistaken for names."""

import numpy as np

from toolkit.debug.align import align, plain
from toolkit.debug.program import Op
from toolkit.debug.reference import Node

SMALL, LARGE = np.zeros((2, 3)), np.zeros((2, 5))


def node(index: int, name: str, kind: str, value: np.ndarray = SMALL, *more: str) -> Node:
    return Node(index, (name, *more), kind, "", "", 0, value)


def op(position: int, kind: str, name: str, *inputs: str) -> Op:
    return Op(position, kind, name, inputs)


def names(ops, nodes, values) -> dict[str, str]:
    return {name: found.names[0] for name, found in align(ops, nodes, values).items()}


def test_what_fp16_conversion_appends_is_no_part_of_a_name():
    assert [plain(name) for name in ("relu_1_cast_fp16", "x_to_fp16", "a_cast_fp16_to_fp32", "cast_fp16x")] == [
        "relu_1",
        "x",
        "a",
        "cast_fp16x",
    ]


def test_names_and_aliases_are_found_and_casts_may_repeat_a_value():
    nodes = [node(0, "getitem_3", "batch_norm", SMALL, "_native_batch_norm_1"), node(1, "linear", "linear", SMALL, "logits")]
    ops = [op(0, "conv", "_native_batch_norm_1_cast_fp16"), op(1, "linear", "linear_0_cast_fp16"), op(2, "cast", "logits")]
    values = {each.name: SMALL for each in ops}
    assert names(ops, nodes, values) == {
        "_native_batch_norm_1_cast_fp16": "getitem_3", "linear_0_cast_fp16": "linear", "logits": "linear",
    }  # fmt: skip


def test_an_add_that_is_called_as_another_mul_is_not_taken_for_it():
    """Without a name of its own it is the next of its kind."""
    nodes = [node(0, "add_2", "add"), node(1, "mul_2", "mul")]
    ops = [op(0, "Add", "mul_2"), op(1, "Mul", "add_2")]
    assert names(ops, nodes, {"add_2": SMALL, "mul_2": SMALL}) == {"mul_2": "add_2", "add_2": "mul_2"}


def test_between_two_sure_ones_kind_shape_and_order_decide():
    nodes = [node(0, "a", "conv"), node(1, "sub", "sub", LARGE), node(2, "sub_1", "sub"), node(3, "sub_2", "sub"), node(4, "z", "conv")]
    ops = [op(0, "Conv", "a"), op(1, "Sub", "one"), op(2, "Sub", "two"), op(3, "Sub", "three"), op(4, "Conv", "z")]
    values = {each.name: SMALL for each in ops}
    assert names(ops, nodes, values) == {"a": "a", "one": "sub_1", "two": "sub_2", "z": "z"}


def test_a_name_counts_even_where_the_shape_is_wrong():
    assert names([op(0, "Conv", "a")], [node(0, "a", "conv", LARGE)], {"a": SMALL}) == {"a": "a"}
