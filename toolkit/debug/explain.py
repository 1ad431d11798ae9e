"""What is wrong with a layer: it overflows, or it differs from what the converter writes today for the same checkpoint, and how."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import KEPT, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.debug.program import Op, read
from toolkit.export.formats import EXPORTERS, Options, Source
from toolkit.networks import WithProbabilities, from_checkpoint

Array = np.ndarray[Any, Any]
MOST_TWINS = 4
_TWINS: dict[Any, list[Op]] = {}  # a conversion takes longer than all that is asked of it; faults are looked into one by one
SAME = {"fp16": 1e-3, "fp32": 1e-6}  # relative: two roundings of one number


@dataclass(frozen=True)
class Difference:
    """`kind`: constant, operation or wiring."""

    op: str
    kind: str
    text: str


def twin(artifact: Artifact, checkpoint: Checkpoint, precision: str | None = None) -> list[Op]:
    """The ops of a fresh conversion of the checkpoint, in the artifact's format, and its precision if no other is given.

    Raises ExportError.
    """
    manifest, exporter = artifact.manifest, EXPORTERS[artifact.format]
    precision = precision or manifest.precision
    route = _noted(manifest.notes, "made by route ")
    route = route if route in exporter.routes else exporter.routes[0]
    kept = _noted(manifest.notes, KEPT) if precision == "fp16" else ""
    options = Options(
        precision=precision, input_kind=manifest.input_kind if artifact.format == "coreml" else "image",
        keep_fp32=tuple(kept.split(", ")) if kept else (),
    )  # fmt: skip
    key = (checkpoint.card.weights_sha256, checkpoint.card.recipe_hash, artifact.format, route, options)
    if key not in _TWINS:
        source = Source(
            checkpoint=checkpoint, model=WithProbabilities(from_checkpoint(checkpoint)).eval(), precision=precision, options=options
        )
        with tempfile.TemporaryDirectory() as folder:
            entry = exporter.convert(source, route, Path(folder)).entry
            found = read(Artifact(Path(folder), manifest.model_copy(update={"entry": entry})))
        while len(_TWINS) >= MOST_TWINS:
            del _TWINS[next(iter(_TWINS))]
        _TWINS[key] = found
    return _TWINS[key]


def _noted(notes: list[str], words: str) -> str:
    """What an artifact's notes say after `words`; empty where they do not."""
    return next((note.removeprefix(words) for note in notes if note.startswith(words)), "")


def differences(found: list[Op], wanted: list[Op], precision: str) -> list[Difference]:
    """What differs, op by op, in the file's order; ops are the same where their first outputs have the same name."""
    rows, twins = [], {op.name: op for op in wanted}
    for op in found:
        if op.name not in twins:
            rows.append(Difference(op.name, "operation", f"{op.type} is inserted: {_constants(op)}"))
            continue
        rows += _compared(op, twins[op.name], SAME[precision])
    there = {op.name for op in found}
    rows += [Difference(op.name, "operation", f"{op.type} is missing") for op in wanted if op.name not in there]
    return rows


def _compared(op: Op, twin: Op, same: float) -> list[Difference]:
    rows = []
    if op.type != twin.type:
        rows.append(Difference(op.name, "operation", f"it is {op.type}, the converter writes {twin.type}"))
    for name in sorted(op.attributes.keys() | twin.attributes.keys()):
        mine, theirs = op.attributes.get(name, "nothing"), twin.attributes.get(name, "nothing")
        if mine != theirs:
            rows.append(Difference(op.name, "operation", f"{name} is {_short(mine)}, the converter writes {_short(theirs)}"))
    for name in sorted(op.constants.keys() | twin.constants.keys()):
        if name not in op.constants or name not in twin.constants:
            rows.append(Difference(op.name, "constant", f"{name} is {'missing' if name not in op.constants else 'added'}"))
        elif text := described(op.constants[name], twin.constants[name], same):
            rows.append(Difference(op.name, "constant", f"{name} {text}"))
    rows += [
        Difference(op.name, "constant", f"{name} holds other values (they cannot be read, only told apart)")
        for name in sorted(op.digests.keys() & twin.digests.keys()) if op.digests[name] != twin.digests[name]
    ]  # fmt: skip
    if op.inputs != twin.inputs:
        rows.append(Difference(op.name, "wiring", f"it reads {', '.join(op.inputs)}, the converter wires {', '.join(twin.inputs)}"))
    return rows


def described(found: Array, wanted: Array, same: float) -> str:
    """How a constant differs from the one it should be; empty where it does not. Of several descriptions the most telling."""
    if found.shape != wanted.shape:
        return f"has shape {list(found.shape)}, not {list(wanted.shape)}"
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    if bad := int((~np.isfinite(a)).sum()):
        return f"holds {bad} NaN or Inf of {a.size} values"
    size = max(float(np.abs(b).max(initial=0.0)), 1e-30)
    if np.abs(a - b).max(initial=0.0) <= same * size:
        return ""
    if not a.any():
        return "is all zeros"
    for text, made in _known(b):
        if made.shape == a.shape and np.abs(a - made).max() <= same * size:
            return text
    factor = float((a * b).sum() / max(float((b * b).sum()), 1e-30))
    if np.abs(a - factor * b).max() <= same * size * abs(factor):
        return f"is multiplied by {factor:.4g}"
    wrong = np.abs(a - b) > same * size
    if a.ndim > 1:
        rows = np.flatnonzero(wrong.reshape(len(a), -1).any(1))
        if len(rows) == 2 and np.abs(a[rows[::-1]] - b[rows]).max() <= same * size:
            return f"has output channels {rows[0]} and {rows[1]} swapped"
        if len(rows) == 1:
            return f"differs in output channel {rows[0]} alone, by up to {np.abs(a - b).max():.3g} ({int(wrong.sum())} values)"
    return f"differs in {int(wrong.sum())} of {a.size} values, by up to {100 * np.abs(a - b).max() / size:.3g} % of the largest"


def _known(b: Array) -> list[tuple[str, Array]]:
    made = [("has the other sign", -b)]
    if b.ndim >= 1:
        made += [("is in reverse order", b[::-1]), ("is rolled by one along its first axis", np.roll(b, 1, 0))]
    if b.ndim >= 2:
        made += [("is transposed (last two axes)", np.swapaxes(b, -1, -2)), ("is flipped along its last two axes", b[..., ::-1, ::-1]),
                 ("has its first two axes exchanged", np.swapaxes(b, 0, 1))]  # fmt: skip
    return made


def _constants(op: Op) -> str:
    shown = [f"{name} {_short(value.reshape(-1)[:4].tolist())}" for name, value in op.constants.items()]
    return ", ".join([*shown, *(f"{name} {_short(value)}" for name, value in op.attributes.items())]) or "without constants"


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
