"""The verb: run PyTorch and the file layer by layer, name the first layer that is wrong, say what is wrong, and how to mend it."""

import time
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.debug.align import align
from toolkit.debug.explain import Difference, differences, twin
from toolkit.debug.localise import culprit, layers
from toolkit.debug.precision import lost_digits
from toolkit.debug.program import Op, read
from toolkit.debug.reference import Reference
from toolkit.debug.repair import repaired
from toolkit.debug.result import DebugResult, Layer
from toolkit.debug.trace import trace
from toolkit.errors import ArtifactError, ExportError
from toolkit.gates import Allowed, allowed
from toolkit.recipe import Recipe
from toolkit.tensors import LOGITS
from toolkit.workspace import Workspace

Array = np.ndarray[Any, Any]
EXACT = 1e-9  # float64 again: only the order of sums


def debug(workspace: Workspace, name: str, *, images: int = 16) -> DebugResult:
    """Looks into one artifact with its own golden images. Raises ToolkitError when it cannot be opened, or not be looked into."""
    started = time.monotonic()
    if not (workspace.exports / name).is_dir():
        there = ", ".join(sorted(path.name for path in workspace.exports.glob("*") if path.is_dir())) or "none"
        raise ArtifactError(f"there is no artifact {name!r} in {workspace.exports}; there are: {there}")
    artifact, checkpoint = Artifact.open(workspace.exports / name), Checkpoint.open(workspace.checkpoint)
    if artifact.manifest.checkpoint_sha256 != checkpoint.card.weights_sha256:
        raise ArtifactError(
            f"{artifact.id} was made from another checkpoint ({artifact.manifest.checkpoint_sha256[:12]}) than {checkpoint.folder} "
            f"({checkpoint.card.weights_sha256[:12]}): every layer would differ. Export again: toolkit export --format {artifact.format}"
        )
    pictures, stored = (array[:images] for array in artifact.golden())
    reference, ops = Reference(checkpoint, pictures), read(artifact)
    truth = next(node.value for node in reference.nodes if LOGITS in node.names)
    gate = allowed(Recipe.read(workspace.recipe).gates, checkpoint, artifact.manifest, float(np.abs(truth).max()))
    values = trace(artifact, ops, pictures)
    nodes, size = align(ops, reference.nodes, values), checkpoint.recipe.preprocess.size
    rows = layers(ops, values, nodes, reference, artifact.manifest.precision, size)
    guilty = culprit(ops, rows, nodes)
    error = float(np.abs(values[LOGITS] - truth).max()) if LOGITS in values and values[LOGITS].shape == truth.shape else float("nan")
    within = gate.max_abs_logit is None or error <= gate.max_abs_logit
    kind, text, blamed = _verdict(artifact, checkpoint, ops, guilty, within, pictures)
    unexplained = guilty if kind == "operation" and blamed is None else None
    if unexplained and (lost := lost_digits(artifact, checkpoint, ops, unexplained, pictures, nodes, reference)):
        kind, text = "rounding", lost
    guilty = next((row for row in rows if row.name == blamed), guilty)
    if guilty is None and within and np.abs(stored - truth).max() > EXACT * np.abs(truth).max():
        kind = "golden"
        text = f"the golden outputs are wrong, not the model: max |Δ| {np.abs(stored - truth).max():.3g} from the checkpoint's"
    keep, works = _repair(artifact, checkpoint, kind, pictures, truth, gate)
    return DebugResult(
        model=checkpoint.recipe.name, artifact=artifact.id, precision=artifact.manifest.precision, images=len(pictures),
        agrees=kind == "agreement", kind=kind, culprit=guilty, explanation=text, max_abs_logit=error, allowed=gate.max_abs_logit,
        layers=rows, keep_fp32=keep, keep_fp32_works=works, seconds=time.monotonic() - started,
    )  # fmt: skip


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
