"""onnx-reference: the ONNX project's own evaluator in NumPy. Slow; an opinion that shares no code with ONNX Runtime."""

from importlib import metadata

import onnx
from onnx.reference import ReferenceEvaluator

from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import Batch


def why_not() -> str | None:
    return None


def version() -> str:
    return metadata.version("onnx")


def open_session(artifact: Artifact, threads: int | None) -> Session:
    return OnnxReferenceSession(artifact)


class OnnxReferenceSession:
    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        try:
            self.evaluator = ReferenceEvaluator(onnx.load(artifact.entry))
        except Exception as error:  # protobuf's DecodeError, and what the evaluator raises for a graph that it does not know
            raise ArtifactError(f"onnx's reference evaluator does not load {artifact.entry}: {error}") from error

    def __call__(self, batch: Batch) -> Batch:
        images_of(batch, self.artifact)
        try:
            outputs = self.evaluator.run(None, batch)
        except Exception as error:  # NumPy's own errors, wherever in the graph they arise
            raise ArtifactError(f"onnx's reference evaluator does not run {self.artifact.entry}: {error}") from error
        return dict(zip(self.evaluator.output_names, outputs, strict=True))

    def placement(self) -> tuple[str, ...]:
        return ("numpy",)

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None:
        del self.evaluator
