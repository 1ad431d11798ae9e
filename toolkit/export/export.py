"""The verb: convert, run the result on the golden images, and only then let it take its place under exports/."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import KEPT, Artifact, describe_preprocessing, write_artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.disks import SLACK_BYTES, blamed, require_room
from toolkit.errors import ArtifactError, ExportError
from toolkit.export import alone
from toolkit.export.formats import EXPORTERS, Exporter, Options, Source, check, find
from toolkit.gates import allowed
from toolkit.golden import golden
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.progress import say
from toolkit.recipe import Gates, Recipe
from toolkit.runtimes import find as find_runtime
from toolkit.scratch import recover, remove
from toolkit.selection import checkpoint_of
from toolkit.workspace import Workspace
from toolkit.writing import alone_in, check_place, replacing_folder

COPIES = 2  # of the weights, beside each artifact: what the converter keeps until it is done, and what it makes of it
Golden = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class ExportResult:
    folder: Path
    format: str
    precision: str
    size_bytes: int
    golden_max_abs_logit: float | None  # None: the prover cannot run here
    notes: list[str]
    seconds: float


def export(workspace: Workspace, formats: Sequence[str], options: Options, *, data_dir: Path | None = None) -> list[ExportResult]:
    """One artifact for each format. Raises ExportError; artifacts that were there before then stay as they were."""
    if not formats:
        raise ExportError(f"give at least one --format: {', '.join(EXPORTERS)}")
    precisions = {name: check(name, options) for name in formats}  # all of them, before the first conversion
    if options.minimum_target and "coreml" not in precisions:
        raise ExportError(f"--target {options.minimum_target} is for Core ML files only; --format coreml was not given")
    checkpoint, gates = checkpoint_of(workspace), Recipe.read(workspace.recipe).gates
    check_writable(workspace, checkpoint, precisions, options)
    notes = []
    if not checkpoint.card.finished:
        notes.append(f"training had not finished ({checkpoint.card.epochs_done:.2f} of {checkpoint.recipe.train.epochs} epochs)")
    classifier = from_checkpoint(checkpoint)
    truth = golden(classifier, load(checkpoint.recipe.data.set, data_dir))
    model = WithProbabilities(classifier).eval()
    with alone_in(workspace.exports, wait=f"another export is writing into {workspace.exports}: waiting for its end"):
        recover(workspace.exports)
        return [
            _export(
                workspace, find(name), name, truth, gates,
                Source(checkpoint=checkpoint, model=model, precision=precision, options=options), notes,
            )
            for name, precision in precisions.items()
        ]  # fmt: skip


def _target(workspace: Workspace, name: str, precision: str, options: Options) -> Path:
    variant = precision + ("-tensor" if name == "coreml" and options.input_kind == "tensor" else "")
    return workspace.exports / f"{name}-{variant}"


def check_writable(workspace: Workspace, checkpoint: Checkpoint, precisions: Mapping[str, str], options: Options) -> None:
    """Raises ToolkitError where an artifact could not take its place: before anything is computed."""
    for name, precision in precisions.items():
        check_place(_target(workspace, name, precision, options), workspace.folder, folder=True)
    needed = (COPIES + len(precisions)) * _largest(checkpoint, "fp32") + SLACK_BYTES
    require_room(workspace.exports, needed, max(_largest(checkpoint, precision) for precision in precisions.values()))


def _largest(checkpoint: Checkpoint, precision: str) -> int:
    """About how many bytes the largest file of an artifact has: its weights. 0 where they are missing, which has its own message."""
    path = checkpoint.weights_path
    return path.stat().st_size // (2 if precision == "fp16" else 1) if path.is_file() else 0


def _export(
    workspace: Workspace, exporter: Exporter, name: str, truth: Golden, gates: Gates, source: Source, notes: list[str]
) -> ExportResult:
    target = _target(workspace, name, source.precision, source.options)
    say(f"exporting {target.name} …")
    started, failures = time.monotonic(), list[str]()
    unproved = find_runtime(exporter.prover).why_not()
    notes = _kept(source) + notes
    if unproved:
        notes.append(f"not run here before it was accepted: {exporter.prover} cannot run here: {unproved}")
    with replacing_folder(target, workspace.folder) as folder:
        for route in exporter.routes:
            for leftover in folder.iterdir():  # of the route that failed before
                remove(leftover)
            try:
                artifact = _write(exporter, name, source, route, folder, truth, [*notes, *failures])
                error = None if unproved else _prove(artifact, exporter, source, truth, gates)
            except Exception as failure:
                if (full := blamed(failure, target, _largest(source.checkpoint, source.precision))) is not None:
                    raise full from failure
                if not isinstance(failure, (ExportError, ArtifactError)):  # ArtifactError: a file that its prover does not load or run
                    raise
                failures.append(f"route {route}: {failure}")
                say(f"{target.name}: {failures[-1]}")
                continue
            break
        else:
            raise ExportError(f"{target.name} was not written: " + "; ".join(failures))
        size = sum(path.stat().st_size for path in [artifact.entry, *artifact.entry.rglob("*")] if path.is_file())
    for note in notes:
        say(f"{target.name}: note: {note}")
    return ExportResult(target, name, source.precision, size, error, [*notes, *failures], time.monotonic() - started)


def _write(exporter: Exporter, name: str, source: Source, route: str, folder: Path, truth: Golden, notes: list[str]) -> Artifact:
    converted = alone.convert(exporter, name, source, route, folder)
    card = source.checkpoint.card
    fields = {
        "format": name, "precision": source.precision, "model": source.checkpoint.recipe.name, "entry": converted.entry,
        "input_kind": converted.input_kind, "inputs": converted.inputs, "outputs": converted.outputs,
        "class_labels": card.class_labels, "preprocessing": describe_preprocessing(source.checkpoint),
        "recipe_hash": card.recipe_hash, "checkpoint_sha256": card.weights_sha256,
        "test_accuracy": card.metrics.get("test_accuracy"), "notes": [f"made by route {route}", *notes],
        "versions": {package: version(package) for package in exporter.packages},
    }  # fmt: skip
    return write_artifact(folder, fields, *truth)


def _way_on(artifact: Artifact) -> str:
    """Nothing is written of what is refused, so there is nothing to look into."""
    if (artifact.format, artifact.manifest.precision) == ("coreml", "fp16"):
        return "Find the ops that must stay in fp32: toolkit export --format coreml --keep-fp32 auto; or take --precision fp32"
    return "The converter is at fault: try another of its versions, or a wider max_abs_logit in the recipe's [gates]"


def _kept(source: Source) -> list[str]:
    return [KEPT + ", ".join(source.options.keep_fp32)] if source.options.keep_fp32 else []


def _prove(artifact: Artifact, exporter: Exporter, source: Source, truth: Golden, gates: Gates) -> float:
    """max |Δ logit| against float64 PyTorch on golden images. Raises ExportError when it is beyond its gate (see gates.py)."""
    images, logits = (array[: exporter.proofs] for array in truth)
    error = float(np.abs(alone.run(exporter, artifact, images) - logits).max())
    gate = allowed(gates, source.checkpoint, artifact.manifest, float(np.abs(logits).max()))
    if gate.max_abs_logit is not None and not error <= gate.max_abs_logit:  # also when it is NaN
        raise ExportError(
            f"the converted file does not compute what PyTorch computes: max |Δ logit| {error:.3g} on {len(images)} golden "
            f"images ({exporter.prover}; allowed {gate.max_abs_logit:.3g}: {gate.why}). {_way_on(artifact)}"
        )
    return error
