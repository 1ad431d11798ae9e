"""Whether fp16 itself is what is wrong with an op: its constants do not fit, or its result loses too many digits."""

from contextlib import suppress
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.debug.align import plain
from toolkit.debug.explain import twin
from toolkit.debug.localise import layers
from toolkit.debug.program import Op
from toolkit.debug.reference import Node, Reference
from toolkit.debug.result import Layer
from toolkit.debug.trace import trace
from toolkit.errors import ExportError
from toolkit.gates import UNIT_ROUNDOFF

Array = np.ndarray[Any, Any]
NORMAL = 2.0**-14  # smaller numbers have fewer digits in fp16
UNFIT = 4.0  # times the unit roundoff, over a whole constant: what merely rounds stays below one


def unfit(found: list[Op], precise: list[Op]) -> dict[str, str]:
    """Op → what becomes of a constant that fp16 cannot hold. `precise`: the same program in fp32."""
    wanted, rows = {plain(op.name): op for op in precise}, dict[str, str]()
    for op in found:
        for name, value in op.constants.items():
            exact = wanted[plain(op.name)].constants.get(name) if plain(op.name) in wanted else None
            if exact is not None and exact.shape == value.shape and value.dtype == np.float16 and (text := _lost(exact)):
                rows.setdefault(op.name, f"{name} {text}")
    return rows


def _lost(exact: Array) -> str:
    """What fp16 does to a constant beyond rounding it; empty where it does nothing more."""
    with np.errstate(over="ignore"):
        error = float(np.linalg.norm(exact.astype(np.float16).astype(np.float64) - exact))
    size = float(np.linalg.norm(exact.astype(np.float64)))
    if error <= UNFIT * UNIT_ROUNDOFF["fp16"] * size:
        return ""
    small = float((np.abs(exact[exact != 0]) < NORMAL).mean())
    return f"is off by {100 * error / size:.2g} % in fp16, which has fewer digits below 6.1e-05, where {100 * small:.0f} % of it lies"


def lost_digits(
    artifact: Artifact, checkpoint: Checkpoint, ops: list[Op], guilty: Layer, pictures: Array, nodes: dict[str, Node], reference: Reference
) -> str:  # fmt: skip
    """A sentence, where fp16 and nothing else puts `guilty` out of its band: in float32 it is inside. Otherwise empty."""
    if (artifact.format, artifact.manifest.precision) != ("coreml", "fp16"):
        return ""
    with suppress(ExportError):
        lost = unfit(ops, twin(artifact, checkpoint, "fp32"))
        if guilty.name in lost:
            return f"fp16 cannot hold its constants: {lost[guilty.name]}"
    values = trace(artifact, ops, pictures, exact=True)
    rows = layers(ops, values, nodes, reference, "fp16", checkpoint.recipe.preprocess.size)
    precise = next(row for row in rows if row.name == guilty.name)
    return f"fp16 loses digits here: its error is {guilty.own:.2g}, and computed in float32 {precise.own:.2g}" if precise.inside else ""
