"""What a file computes, value by value. Whether being watched changes anything is checked as well."""

from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.debug.program import Op
from toolkit.errors import ToolkitError
from toolkit.export import EXPORTERS
from toolkit.runtimes import find
from toolkit.tensors import IMAGE, LOGITS

Array = np.ndarray[Any, Any]
AT_ONCE = 64  # images


def trace(artifact: Artifact, ops: list[Op], images: Array, exact: bool = False) -> dict[str, Array]:
    """Value by name, (N, …) float64, for `images` (N, C, H, W). `exact`: Core ML in float32 whatever the program declares.

    Raises ToolkitError when the file cannot be run, or computes something else when it is watched.
    """
    return TRACERS[artifact.format](artifact, ops, images, exact)


def logits(artifact: Artifact, images: Array) -> Array:
    """(N, classes) float64, as the file gives them when nobody watches. Raises ToolkitError when it cannot be run."""
    runtime = find(EXPORTERS[artifact.format].prover)
    session = runtime.open(artifact)
    try:
        parts = [session({IMAGE: images[start : start + AT_ONCE]})[LOGITS] for start in range(0, len(images), AT_ONCE)]
    except KeyError as error:
        raise ToolkitError(f"{artifact.id} on {runtime.id} gives no {LOGITS}. Export again") from error
    finally:
        session.close()
    return np.concatenate(parts).astype(np.float64)


def _coreml(artifact: Artifact, ops: list[Op], images: Array, exact: bool) -> dict[str, Array]:
    from toolkit.mil import ReferenceEvaluator
    from toolkit.runtimes.coreml import picture

    evaluator = ReferenceEvaluator(artifact.entry, mode="fp32" if exact else "as-typed")
    as_image = artifact.manifest.input_kind == "image"
    rows = [evaluator.predict({IMAGE: picture(image) if as_image else image[None]}, intermediates=True) for image in images]
    names = [op.name for op in ops if isinstance(rows[0].get(op.name), np.ndarray)]
    values = {name: np.concatenate([np.atleast_1d(row[name]) for row in rows]).astype(np.float64) for name in names}
    plain = evaluator.predict_array(images)[LOGITS]  # the fast way: fused, and in one batch
    if not _alike(plain, values[LOGITS], 1e-2):
        raise ToolkitError(
            f"{artifact.id} computes other logits when its values in between are kept: this is a bug of the evaluator; report it"
        )
    return values


def _onnx(artifact: Artifact, ops: list[Op], images: Array, exact: bool) -> dict[str, Array]:
    import onnx
    import onnxruntime

    model = onnx.load(artifact.entry)
    outputs = [each.name for each in model.graph.output]
    names = [op.name for op in ops]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # no op is merged away
    try:
        watched = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        plain = onnxruntime.InferenceSession(artifact.entry, providers=["CPUExecutionProvider"])
        found = dict(zip(names, watched.run(names, {IMAGE: images}), strict=True))
        logits = plain.run([outputs[0]], {IMAGE: images})[0]
    except Exception as error:  # onnxruntime's exception types are private to its binding
        raise ToolkitError(f"{artifact.id} cannot be run op by op: {error}") from error
    same = found.get(outputs[0])
    if same is not None and not _alike(same, logits, 1e-3):
        raise ToolkitError(
            f"{artifact.id}: onnxruntime computes other logits when the graph is not optimised "
            f"(max |Δ| {np.abs(same - logits).max():.3g}): the optimisation is at fault, not the file"
        )
    return {name: value.astype(np.float64) for name, value in found.items() if value.dtype.kind == "f"}


def _coreai(artifact: Artifact, ops: list[Op], images: Array, exact: bool) -> dict[str, Array]:
    from toolkit.debug.coreai import trace as trace_coreai

    return trace_coreai(artifact, ops, images, exact)


def _alike(one: Array, other: Array, tolerance: float) -> bool:
    """The same but for rounding; NaN and Inf at the same places."""
    largest = float(np.abs(other[np.isfinite(other)]).max(initial=1.0))
    return bool(one.shape == other.shape and np.allclose(one, other, rtol=tolerance, atol=tolerance * largest, equal_nan=True))


TRACERS: dict[str, Callable[[Artifact, list[Op], Array, bool], dict[str, Array]]] = {"coreml": _coreml, "onnx": _onnx, "coreai": _coreai}
