"""The verb: run PyTorch and the file layer by layer, name the first layer that is wrong, say what is wrong, and how to mend it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.debug.align import align
from toolkit.debug.explain import Difference, differences, twin
from toolkit.debug.localise import culprit, layers
from toolkit.debug.precision import lost_digits
from toolkit.debug.program import Op, read
from toolkit.debug.reference import Reference
from toolkit.debug.repair import repaired
from toolkit.debug.result import DebugResult, Layer
from toolkit.debug.trace import logits, trace
from toolkit.errors import ArtifactError, ExportError, ToolkitError
from toolkit.gates import Allowed, allowed
from toolkit.limits import MAX_REPORT_BYTES
from toolkit.progress import say
from toolkit.recipe import Recipe
from toolkit.records import read_record
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.validation.evidence import files_of
from toolkit.validation.result import REPORT, ValidationResult
from toolkit.validation.truth import double
from toolkit.workspace import Workspace

Array = np.ndarray[Any, Any]
EXACT = 1e-9  # float64 again: only the order of sums
IMAGES = 16  # followed op by op, of all that are compared


def debug(
    workspace: Workspace, name: str, *, images: int = IMAGES, data_dir: Path | None = None, tell: Callable[[str], None] = say
) -> DebugResult:
    """Looks into one artifact: the logits of all its golden images and of the worst test images that validation lists are compared,
    and the `images` that are furthest off are followed op by op. Raises ToolkitError when it cannot be opened, or not be looked into.

    `tell` is given what the user should know meanwhile.
    """
    started = time.monotonic()
    (folder,) = artifact_folders(workspace, [name])
    artifact, checkpoint = Artifact.open(folder), checkpoint_of(workspace)
    if artifact.manifest.checkpoint_sha256 != checkpoint.card.weights_sha256:
        raise ArtifactError(
            f"{artifact.id} was made from another checkpoint ({artifact.manifest.checkpoint_sha256[:12]}) than {checkpoint.folder} "
            f"({checkpoint.card.weights_sha256[:12]}): every layer would differ. Export again: toolkit export --format {artifact.format}"
        )
    golden, stored = artifact.golden()
    ops = read(artifact)
    candidates = np.concatenate([golden, _worst(workspace, checkpoint, name, data_dir, tell)])
    right = double(checkpoint, candidates)
    gate = allowed(Recipe.read(workspace.recipe).gates, checkpoint, artifact.manifest, float(np.abs(right).max()))
    errors = _errors(logits(artifact, candidates), right)
    chosen = np.sort(np.argsort(-errors, kind="stable")[:images])
    pictures, truth, error = candidates[chosen], right[chosen], float(errors.max())
    reference = Reference(checkpoint, pictures)
    values = trace(artifact, ops, pictures)
    nodes, size = align(ops, reference.nodes, values), checkpoint.recipe.preprocess.size
    rows = layers(ops, values, nodes, reference, artifact.manifest.precision, size)
    guilty = culprit(ops, rows, nodes)
    within = gate.max_abs_logit is None or error <= gate.max_abs_logit
    kind, text, blamed = _verdict(artifact, checkpoint, ops, guilty, within, pictures)
    unexplained = guilty if kind == "operation" and blamed is None else None
    if unexplained and (lost := lost_digits(artifact, checkpoint, ops, unexplained, pictures, nodes, reference)):
        kind, text = "rounding", lost
    guilty = next((row for row in rows if row.name == blamed), guilty)
    off = float(np.abs(stored - right[: len(stored)]).max())
    if guilty is None and within and off > EXACT * np.abs(right).max():
        kind, text = "golden", f"the golden outputs are wrong, not the model: max |Δ| {off:.3g} from the checkpoint's"
    keep, works = _repair(artifact, checkpoint, kind, pictures, truth, gate)
    return DebugResult(
        model=checkpoint.recipe.name, artifact=artifact.id, precision=artifact.manifest.precision, images=len(pictures),
        compared=len(candidates), agrees=kind == "agreement", kind=kind, culprit=guilty, explanation=text, max_abs_logit=error,
        allowed=gate.max_abs_logit, layers=rows, keep_fp32=keep, keep_fp32_works=works, seconds=time.monotonic() - started,
    )  # fmt: skip


def _worst(workspace: Workspace, checkpoint: Checkpoint, name: str, data_dir: Path | None, tell: Callable[[str], None]) -> Array:
    """The test images that the last validation of this checkpoint found furthest off; none where there was no such validation."""
    shape, path = checkpoint.card.input_shape, workspace.reports / REPORT
    nothing = np.empty((0, *shape), np.float32)
    if not path.is_file():
        return nothing
    try:
        result = read_record(path, ValidationResult, MAX_REPORT_BYTES, advice="Make it again: toolkit validate")
        places = sorted({place for row in result.rows if row.artifact == name for place in row.worst})
        if result.checkpoint_sha256 != checkpoint.card.weights_sha256 or not places:
            return nothing
        data = load(checkpoint.recipe.data.set, data_dir, download=False)
        found: Array = data.test_images.numpy()[places].astype(np.float32)
        if result.artifacts.get(name) != files_of(Artifact.open(workspace.exports / name)):
            tell(f"the worst test images of {path} were those of another file: {name}'s files were changed since it was validated")
    except (ToolkitError, IndexError) as error:
        tell(f"only golden images: the worst test images of {path} cannot be had: {str(error).splitlines()[0]}")
        return nothing
    return found


def _errors(found: Array, right: Array) -> Array:
    """Of each image, max |Δ logit|; inf where one is no number, or the shape is another."""
    if found.shape != right.shape:
        return np.full(len(right), np.inf)
    errors: Array = np.nan_to_num(np.abs(found - right).max(1), nan=np.inf, posinf=np.inf)
    return errors


def _verdict(
    artifact: Artifact, checkpoint: Checkpoint, ops: list[Op], guilty: Layer | None, within: bool, pictures: Array
) -> tuple[str, str, str | None]:
    """(kind, a sentence with figures, the op that is to blame where that is another than `guilty`)."""
    if guilty is None and within:
        return "agreement", "every layer is within its band, and the logits are within their gate", None
    if guilty is not None and guilty.non_finite and artifact.format == "coreml":
        exact = trace(artifact, ops, pictures, exact=True).get(guilty.name)
        if exact is not None and np.isfinite(exact).all():
            largest = f"in fp32 the largest is {np.abs(exact).max():.4g}"
            return "overflow", f"{guilty.non_finite} values are Inf or NaN in fp16, which ends at 65504; {largest}", None
    try:
        changed = differences(ops, twin(artifact, checkpoint), artifact.manifest.precision)
    except ExportError as error:
        return "operation", f"it computes something else than PyTorch; what the converter writes today is not known: {error}", None
    own = [each for each in changed if guilty is not None and each.op == guilty.name]
    if told := own or changed:  # an op that only hands on, where it should compute, shows in the next one
        return told[0].kind, _sentence(told, guilty), told[0].op
    if guilty is None:
        mend = "Keep ops in fp32" if artifact.manifest.precision == "fp16" else "Widen gates.max_abs_logit"
        return "rounding", f"no single layer is wrong: their roundings add up. {mend} if that is too much", None
    text = "the converter itself writes this op so: on the same inputs it computes something else than PyTorch's; report it"
    return "operation", text, None


def _sentence(changed: list[Difference], guilty: Layer | None) -> str:
    texts = [each.text if guilty is not None and each.op == guilty.name else f"{each.op}: {each.text}" for each in changed[:4]]
    more = f"; and {len(changed) - 4} more" if len(changed) > 4 else ""
    return f"differs from what the converter writes for this checkpoint: {'; '.join(texts)}{more}"


def _repair(
    artifact: Artifact, checkpoint: Checkpoint, kind: str, pictures: Array, truth: Array, gate: Allowed
) -> tuple[list[str], bool | None]:
    """The ops to keep in fp32, where that could help at all."""
    if kind not in ("overflow", "rounding") or artifact.format != "coreml" or artifact.manifest.precision != "fp16":
        return [], None
    if gate.max_abs_logit is None:
        return [], None
    found = repaired(artifact, checkpoint, pictures, truth, gate.max_abs_logit)
    return found or [], found is not None
