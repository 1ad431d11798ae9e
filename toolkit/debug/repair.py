"""Which ops to keep in fp32 so that an fp16 program is right again: the smallest set, found on the evaluator without converting anew."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.debug.align import plain
from toolkit.debug.explain import twin
from toolkit.debug.precision import unfit
from toolkit.debug.program import NEUTRAL, Op
from toolkit.errors import ExportError
from toolkit.export import EXPORTERS, ExportResult, Options, check_writable, export
from toolkit.export.formats import Source
from toolkit.gates import allowed
from toolkit.golden import golden
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.program import load_program
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.selection import checkpoint_of
from toolkit.tensors import LOGITS
from toolkit.workspace import Workspace

Array = np.ndarray[Any, Any]
MOST_TRIES = 400


def smallest_set(entry: Path, images: Array, truth: Array, gate: float) -> list[str] | None:
    """Names of ops, as `toolkit export --keep-fp32` takes them; None where even all of them would not do, constants as stored.

    1-minimal: with any one of them back in fp16 the logits leave the gate. `images` (N, C, H, W), `truth` (N, classes).
    """
    evaluator = ReferenceEvaluator(entry, mode="as-typed")
    candidates = [name for name in evaluator.rounded if not name.startswith(LOGITS)]

    widening = {op.outputs[0].name for op in load_program(entry).block.operations if op.type == "cast"} - set(evaluator.rounded)

    def works(names: Sequence[str]) -> bool:
        casts = {each for name in names for each in evaluator.readers[name] if each in widening}  # from fp32 to fp32: not there then
        trial = ReferenceEvaluator(entry, mode="as-typed", keep_fp32=frozenset({*names, *casts}))
        return bool(np.abs(trial.predict_array(images)[LOGITS] - truth).max() <= gate)  # False for NaN

    if works([]):
        return []
    if not works(candidates):
        return None
    suspects = _large(entry, images, candidates)
    start = suspects if suspects and works(suspects) else candidates
    return sorted({plain(name) for name in minimised(start, works)}, key=[plain(name) for name in candidates].index)


def repaired(artifact: Artifact, checkpoint: Checkpoint, images: Array, truth: Array, gate: float) -> list[str] | None:
    """`smallest_set` of an fp16 artifact, or where the file as it is has no way out, one found by converting anew.

    Computing in fp32 does not mend constants that were lost in fp16, nor what a cast in the file makes of a value.
    None where no set is found.
    """
    if (found := smallest_set(artifact.entry, images, truth, gate)) is not None:
        return found
    ops = twin(artifact, checkpoint)
    lost = unfit(ops, twin(artifact, checkpoint, "fp32"))
    names = _near(ops, lost) if lost else []

    def works(names: Sequence[str]) -> bool:
        options = Options(precision="fp16", input_kind=artifact.manifest.input_kind, keep_fp32=tuple(names))
        with tempfile.TemporaryDirectory() as folder:
            entry = _converted(checkpoint, options, Path(folder))
            logits = ReferenceEvaluator(entry, mode="as-typed").predict_array(images)[LOGITS]
        return bool(np.abs(logits - truth).max() <= gate)

    return minimised(names, works) if names and works(names) else None


def _near(ops: list[Op], lost: Iterable[str]) -> list[str]:
    """Ops whose constants are lost, and those in fp16 between them and what the converter left in fp32 by itself (it cannot be named)."""
    by_name = {op.name: op for op in ops}

    def sources(op: Op) -> set[str]:
        found = {name for name in op.inputs if name in by_name}
        while casts := {name for name in found if by_name[name].type == "cast"}:
            found = (found - casts) | {name for cast in casts for name in by_name[cast].inputs if name in by_name}
        return found

    core = {*lost, *(op.name for op in ops if op.kind not in NEUTRAL and plain(op.name) == op.name)}
    read = {name for each in core for name in sources(by_name[each])}
    near = [op for op in ops if op.type != "cast" and (op.name in core | read or sources(op) & core)]
    return [plain(op.name) for op in near if plain(op.name) != op.name]


def _converted(checkpoint: Checkpoint, options: Options, folder: Path) -> Path:
    exporter, model = EXPORTERS["coreml"], WithProbabilities(from_checkpoint(checkpoint)).eval()
    source = Source(checkpoint=checkpoint, model=model, precision="fp16", options=options)
    return folder / exporter.convert(source, exporter.routes[0], folder).entry


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
    checkpoint = checkpoint_of(workspace)
    check_writable(workspace, checkpoint, {"coreml": "fp16"}, options)
    classifier = from_checkpoint(checkpoint)
    images, truth = golden(classifier, load(checkpoint.recipe.data.set, data_dir))
    with tempfile.TemporaryDirectory() as folder:
        entry = _converted(checkpoint, replace(options, precision="fp16", keep_fp32=()), Path(folder))
        gate = allowed_of(workspace, checkpoint, float(np.abs(truth).max()))
        found = [] if gate is None else repaired(_unsaved(checkpoint, entry, options), checkpoint, images, truth, gate)
    if found is None:
        raise ExportError(f"no set of ops to keep in fp32 was found that brings the fp16 program within {gate:.3g}. Use --precision fp32")
    say(f"kept in fp32: {', '.join(found) or 'nothing, the fp16 program is within its gate as it is'}")
    (result,) = export(workspace, ["coreml"], replace(options, precision="fp16", keep_fp32=tuple(found)), data_dir=data_dir)
    return result


def _unsaved(checkpoint: Checkpoint, entry: Path, options: Options) -> Artifact:
    """What was just converted, as an artifact that is not written anywhere."""
    manifest = Artifact.of_checkpoint(checkpoint).manifest
    fields = {"format": "coreml", "precision": "fp16", "entry": entry.name, "input_kind": options.input_kind, "notes": []}
    return Artifact(entry.parent, manifest.model_copy(update=fields))


def allowed_of(workspace: Workspace, checkpoint: Checkpoint, largest: float) -> float | None:
    """The gate of fp16 logits on the golden images."""
    manifest = Artifact.of_checkpoint(checkpoint).manifest
    return allowed(Recipe.read(workspace.recipe).gates, checkpoint, manifest, largest, "fp16").max_abs_logit
