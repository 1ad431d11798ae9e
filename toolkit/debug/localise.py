"""Which layer: every op is judged on its own inputs, so that an error further up cannot hide one further down."""

import math
from typing import Any

import numpy as np

from toolkit.debug.program import NEUTRAL, Op
from toolkit.debug.reference import Node, Reference
from toolkit.debug.result import Layer
from toolkit.gates import SUMS, UNIT_ROUNDOFF

Array = np.ndarray[Any, Any]
SAFETY = 6.0  # times the roundoff of one op; good models stay below a fifth of it, one weight off by 1 % is far above
CHANNEL = 0.3  # a channel smaller than this share of the average one is judged as if it were that large


def band(node: Node, precision: str, resized: int) -> float:
    """How far one op may be off, relative: what it stores and its weights round, its sums round, a resize computes places."""
    unit = UNIT_ROUNDOFF[precision]
    places = resized if node.kind == "resize" else 0
    return SAFETY * math.sqrt(2 * unit**2 + (node.sums + places**2) * SUMS**2)


def layers(ops: list[Op], values: dict[str, Array], nodes: dict[str, Node], reference: Reference, precision: str, size: int) -> list[Layer]:
    """One row an op that computes numbers, in the file's order."""
    known = {}
    for op in ops:
        node = nodes.get(op.name)
        if node is not None and op.name in values and values[op.name].size == node.value.size and node.names[0] not in known:
            known[node.names[0]] = values[op.name].reshape(node.value.shape)
    return [_layer(op, values[op.name], nodes.get(op.name), known, reference, precision, size) for op in ops if op.name in values]


def _layer(
    op: Op, value: Array, node: Node | None, known: dict[str, Array], reference: Reference, precision: str, size: int
) -> Layer:  # fmt: skip
    finite = value[np.isfinite(value)]
    row: dict[str, Any] = {
        "position": op.position, "op": op.type, "name": op.name, "non_finite": int(value.size - finite.size),
        "largest": float(np.abs(finite).max(initial=0.0)),
    }  # fmt: skip
    if node is None:
        nothing = dict.fromkeys(("own", "band", "total", "snr_db"), math.nan)
        return Layer(**row, **nothing, reference=None, module="", source="", inside=not row["non_finite"])
    row |= {"reference": node.names[0], "module": node.module, "source": node.source, "band": band(node, precision, size)}
    if value.size != node.value.size:
        return Layer(**row, own=math.inf, total=math.inf, snr_db=-math.inf, inside=False)
    found = value.reshape(node.value.shape)
    with np.errstate(all="ignore"):
        own = _distance(found, reference.local(node, known), worst=True)
        total = _distance(found, node.value, worst=False)
        snr = float(-20 * np.log10(np.float64(total)))
    return Layer(**row, own=own, total=total, snr_db=snr, inside=own <= row["band"])


def _distance(found: Array, wanted: Array, worst: bool) -> float:
    """‖found - wanted‖ / ‖wanted‖; `worst`: of the worst channel (axis 1), if that is more. NaN counts as infinitely far."""
    difference, size = float(np.linalg.norm(found - wanted)), float(np.linalg.norm(wanted))
    distance = difference / size if size else (math.inf if difference else 0.0)
    if worst and found.ndim > 1 and found.shape[1] > 1:
        axes = tuple(axis for axis in range(found.ndim) if axis != 1)
        sizes = np.sqrt((wanted**2).sum(axes))
        floor = CHANNEL * size / math.sqrt(found.shape[1])
        errors = np.sqrt(((found - wanted) ** 2).sum(axes)) / np.maximum(np.maximum(sizes, floor), 1e-300)
        distance = max(distance, float(errors.max()) / 2)  # the worst of many: allowed twice as much
    return distance if math.isfinite(distance) else math.inf


def culprit(ops: list[Op], rows: list[Layer], nodes: dict[str, Node]) -> Layer | None:
    """The first layer that is wrong on right inputs; an op that PyTorch does not have, if it stands right before it."""
    by_name = {row.name: row for row in rows}
    for op in ops:
        row = by_name.get(op.name)
        if row is None or row.inside:
            continue
        strange = _inserted(op, {each.name: each for each in ops}, nodes)
        return by_name.get(strange.name, row) if strange is not None else row
    return None


def _inserted(op: Op, ops: dict[str, Op], nodes: dict[str, Node]) -> Op | None:
    """The first op between `op` and what is known to be right that no layer of PyTorch corresponds to, and that computes something."""
    found, left = None, [op]
    while left:
        each = left.pop()
        for name in each.inputs:
            before = ops.get(name)
            if before is not None and name not in nodes:
                found = before if before.kind not in NEUTRAL else found
                left.append(before)
    return found
