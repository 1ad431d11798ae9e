"""The verb: checkpoint and artifacts through their runtimes, compared with PyTorch fp32 on the CPU."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset, load, stratified_subset
from toolkit.environment import describe
from toolkit.errors import ArtifactError
from toolkit.progress import progress
from toolkit.recipe import Recipe
from toolkit.runtimes import RUNTIMES, Runtime, select
from toolkit.selection import artifacts_of
from toolkit.tensors import IMAGE, LOGITS
from toolkit.validation.result import RuntimeRow, Unavailable, ValidationResult
from toolkit.workspace import Workspace, write_text

REPORT = "validation.json"
REFERENCE = "torch-cpu"


def validate(
    workspace: Workspace, *, runtimes: Sequence[str] | None = None, artifacts: Sequence[str] | None = None,
    limit: int | None = None, data_dir: Path | None = None,
) -> ValidationResult:  # fmt: skip
    """Compares and writes reports/validation.json. Raises ArtifactError when there is nothing that it could compare."""
    chosen = select(runtimes)
    checkpoint = Checkpoint.open(workspace.checkpoint)
    found = artifacts_of(workspace, checkpoint, artifacts)
    data = load(checkpoint.recipe.data.set, data_dir)
    indices = stratified_subset(data.test_labels, limit or len(data.test_labels)).numpy()
    reference = _logits(RUNTIMES[REFERENCE], Artifact.of_checkpoint(checkpoint), data, indices)
    rows, unavailable = [], []
    for runtime in chosen:
        readable = [artifact for artifact in found if artifact.format == runtime.reads]
        reason = runtime.why_not() if readable else f"there is no {runtime.reads} artifact: toolkit export --format {runtime.reads}"
        if reason is not None:
            ids: list[str | None] = [artifact.id for artifact in readable] or [None]
            unavailable += [Unavailable(artifact=each, runtime=runtime.id, reason=reason) for each in ids]
            continue
        for artifact in readable:
            rows.append(_row(runtime, artifact, checkpoint.recipe, data, indices, reference))
    if not rows:
        raise ArtifactError("nothing could be validated here:\n  " + "\n  ".join(f"{u.runtime}: {u.reason}" for u in unavailable))
    result = ValidationResult(
        model=checkpoint.recipe.name, dataset=data.name, recipe_hash=checkpoint.recipe.hash,
        checkpoint_sha256=checkpoint.card.weights_sha256, test_images=len(data.test_labels), limit=limit,
        rows=rows, unavailable=unavailable, class_labels=list(data.classes), test_labels=data.test_labels[indices].tolist(),
        test_indices=indices.tolist(), reference_predictions=reference.argmax(1).tolist(), environment=describe(),
    )  # fmt: skip
    write_text(workspace.reports / REPORT, result.model_dump_json(indent=1))
    return result


def _row(
    runtime: Runtime, artifact: Artifact, recipe: Recipe, data: Dataset, indices: "np.ndarray[Any, Any]", reference: "np.ndarray[Any, Any]"
) -> RuntimeRow:
    """One artifact through one runtime; slow runtimes see a stratified subset, which the row says by its `images`."""
    if runtime.most_images is not None and len(indices) > runtime.most_images:
        kept = stratified_subset(data.test_labels[indices], runtime.most_images).numpy()
        indices, reference = indices[kept], reference[kept]
    started = time.monotonic()
    logits = reference if runtime.id == REFERENCE else _logits(runtime, artifact, data, indices)  # not twice the same
    labels = data.test_labels[indices].numpy()
    predictions, expected = logits.argmax(1), reference.argmax(1)
    changed = indices[predictions != expected].tolist()
    error = float(np.abs(logits - reference).max())
    allowed: dict[str, Any] = {"allowed_changed": None, "allowed_abs_logit": None}
    breaches = [] if np.isfinite(logits).all() else [f"{int((~np.isfinite(logits)).sum())} logits are NaN or Inf"]
    if runtime.id != REFERENCE:
        gate = recipe.gates.of(artifact.manifest.precision)
        allowed = {"allowed_changed": gate.max_changed * len(indices) // 10_000, "allowed_abs_logit": gate.max_abs_logit}
        if len(changed) > allowed["allowed_changed"]:
            breaches.append(f"{len(changed)} predictions changed, allowed {allowed['allowed_changed']} of {len(indices)}")
        if not error <= gate.max_abs_logit:
            breaches.append(f"max |Δ logit| {error:.3g}, allowed {gate.max_abs_logit:g}")
    return RuntimeRow(
        artifact=artifact.id, runtime=runtime.id, precision=artifact.manifest.precision, images=len(indices),
        accuracy=float((predictions == labels).mean()), reference_accuracy=float((expected == labels).mean()),
        changed=changed, max_abs_logit=error, breaches=breaches, seconds=time.monotonic() - started,
        predictions=predictions.tolist(), **allowed,
    )  # fmt: skip


def _logits(runtime: Runtime, artifact: Artifact, data: Dataset, indices: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """(N, classes) float32, in the order of `indices`."""
    images = data.test_images.numpy()
    session = runtime.open(artifact)
    parts = []
    try:
        with progress(f"{artifact.id} on {runtime.id}", len(indices)) as update:
            for start in range(0, len(indices), runtime.batch):
                chunk = indices[start : start + runtime.batch]
                logits = session({IMAGE: images[chunk].astype(np.float32)})[LOGITS]
                if logits.shape != (len(chunk), len(data.classes)):
                    raise ArtifactError(f"{artifact.id} on {runtime.id} gave logits {logits.shape} for {len(chunk)} images")
                parts.append(logits)
                update(start + len(chunk))
    finally:
        session.close()
    return np.concatenate(parts)
