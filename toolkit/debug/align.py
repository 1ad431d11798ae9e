"""Which value of a file is which value of PyTorch's graph: by the names that conversion keeps, then by kind, shape and order."""

import re
from typing import Any

import numpy as np

from toolkit.debug.program import NEUTRAL, Op
from toolkit.debug.reference import Node

_DRESSED = re.compile(r"(_cast_fp(16|32)|_to_fp(16|32))+$")


def plain(name: str) -> str:
    """A Core ML value's name without what the fp16 pass appends."""
    return _DRESSED.sub("", name)


def align(ops: list[Op], nodes: list[Node], values: dict[str, "np.ndarray[Any, Any]"]) -> dict[str, Node]:
    """Op's name → node. A name counts even where the shape is another: that is a fault, and not another value.

    Between two that are sure, the k-th op of a kind is the k-th node of that kind.
    """
    named = {name: node for node in nodes for name in node.names}
    found = {op.name: named[plain(op.name)] for op in ops if plain(op.name) in named and _may(op, named[plain(op.name)])}
    taken = {found[op.name].index for op in ops if op.name in found and op.kind not in NEUTRAL}  # a cast may repeat a value
    previous = -1
    for place, op in enumerate(ops):
        if op.name in found:
            previous = max(previous, found[op.name].index)
            continue
        if op.kind in NEUTRAL or op.name not in values:
            continue
        following = min((found[each.name].index for each in ops[place + 1 :] if each.name in found), default=len(nodes))
        shape = values[op.name].shape
        fits = [
            node for node in nodes
            if previous < node.index <= following and node.index not in taken and node.kind == op.kind and node.value.shape == shape
        ]  # fmt: skip
        if fits:
            found[op.name] = fits[0]
            taken.add(fits[0].index)
            previous = fits[0].index
    return found


def _may(op: Op, node: Node) -> bool:
    """Not by name alone where exporters count differently: one's `add_2` may be another's `mul_2` no more than its `add_4`."""
    return op.kind == node.kind or op.kind in NEUTRAL or node.kind not in {"add", "sub", "mul"}
