"""Which ops to keep in fp32 so that an fp16 program is right again: the smallest set, found on the evaluator without converting anew."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.debug.align import plain
from toolkit.errors import ExportError
from toolkit.export import EXPORTERS, ExportResult, Options, export
from toolkit.export.formats import Source
from toolkit.gates import allowed
from toolkit.golden import golden
from toolkit.mil import ReferenceEvaluator
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.tensors import LOGITS
from toolkit.workspace import Workspace

Array = np.ndarray[Any, Any]
MOST_TRIES = 400


def smallest_set(entry: Path, images: Array, truth: Array, gate: float) -> list[str] | None:
    """Names of ops, as `toolkit export --keep-fp32` takes them; None where even all of them would not do.

    1-minimal: with any one of them back in fp16 the logits leave the gate. `images` (N, C, H, W), `truth` (N, classes).
    """
    evaluator = ReferenceEvaluator(entry, mode="as-typed")
    candidates = [name for name in evaluator.rounded if not name.startswith(LOGITS)]

    def works(names: Sequence[str]) -> bool:
        trial = ReferenceEvaluator(entry, mode="as-typed", keep_fp32=frozenset(names))
        return bool(np.abs(trial.predict_array(images)[LOGITS] - truth).max() <= gate)  # False for NaN

    if works([]):
        return []
    if not works(candidates):
        return None
    suspects = _large(entry, images, candidates)
    start = suspects if suspects and works(suspects) else candidates
    return sorted({plain(name) for name in minimised(start, works)}, key=[plain(name) for name in candidates].index)


def _large(entry: Path, images: Array, candidates: Sequence[str]) -> list[str]:
    """Ops that make or read values which fp16 cannot hold: where it overflows these are enough, and few."""
    from toolkit.debug.hazards import FP16_MAX

    values = ReferenceEvaluator(entry, mode="fp32").predict_array(images, intermediates=candidates)
    large = {name for name in candidates if np.abs(values[name]).max(initial=0.0) > FP16_MAX}
    readers = ReferenceEvaluator(entry, mode="as-typed").readers
    near = large | {reader for name in large for reader in readers[name]}
    return [name for name in candidates if name in near]


def minimised(names: Sequence[str], works: Callable[[Sequence[str]], bool]) -> list[str]:
    """A smallest part of `names` that still works, by delta debugging (ddmin; Zeller and Hildebrandt 2002). `names` as a whole works."""
    current, parts, tries = list(names), 2, 0
    while len(current) > 1 and tries < MOST_TRIES:
        size = -(-len(current) // parts)
        chunks = [current[start : start + size] for start in range(0, len(current), size)]
        for chunk in chunks:
            rest = [name for name in current if name not in chunk]
            tries += 1
            if works(rest):
                current, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(current):
                break
            parts = min(2 * parts, len(current))
    return current


def export_repaired(workspace: Workspace, options: Options, *, data_dir: Path | None = None) -> ExportResult:
    """A Core ML fp16 artifact that is within its gate, with as few ops in fp32 as that takes.

    Raises ExportError where no set of ops brings it there.
    """
    checkpoint = Checkpoint.open(workspace.checkpoint)
    classifier = from_checkpoint(checkpoint)
    images, truth = golden(classifier, load(checkpoint.recipe.data.set, data_dir))
    source = Source(
        checkpoint=checkpoint, model=WithProbabilities(classifier).eval(), precision="fp16", options=replace(options, keep_fp32=())
    )
    with tempfile.TemporaryDirectory() as folder:
        exporter = EXPORTERS["coreml"]
        entry = Path(folder) / exporter.convert(source, exporter.routes[0], Path(folder)).entry
        gate = allowed_of(workspace, checkpoint, float(np.abs(truth).max()))
        found = [] if gate is None else smallest_set(entry, images, truth, gate)
    if found is None:
        raise ExportError(f"no set of ops kept in fp32 brings the fp16 program within {gate:.3g}. Look at it with: toolkit debug")
    say(f"kept in fp32: {', '.join(found) or 'nothing, the fp16 program is within its gate as it is'}")
    (result,) = export(workspace, ["coreml"], replace(options, precision="fp16", keep_fp32=tuple(found)), data_dir=data_dir)
    return result


def allowed_of(workspace: Workspace, checkpoint: Checkpoint, largest: float) -> float | None:
    """The gate of fp16 logits on the golden images."""
    from toolkit.artifact import Artifact

    manifest = Artifact.of_checkpoint(checkpoint).manifest
    return allowed(Recipe.read(workspace.recipe).gates, checkpoint, manifest, largest, "fp16").max_abs_logit
