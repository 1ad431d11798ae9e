"""coreml-reference: our evaluator of ML Programs, on any machine. Results count, latencies do not."""

import numpy as np

from toolkit import __version__
from toolkit.artifact import Artifact
from toolkit.mil import ReferenceEvaluator
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import Batch


def why_not() -> str | None:
    return None


def version() -> str:
    return __version__


def open_session(artifact: Artifact, threads: int | None) -> Session:
    return ReferenceSession(artifact, threads)


class ReferenceSession:
    def __init__(self, artifact: Artifact, threads: int | None) -> None:
        self.artifact = artifact
        self.evaluator = ReferenceEvaluator(artifact.entry, mode="as-typed", threads=threads)

    def __call__(self, batch: Batch) -> Batch:
        return self.evaluator.predict_array(np.array(images_of(batch, self.artifact)))  # a copy: read-only arrays are welcome

    def placement(self) -> tuple[str, ...]:
        return ("reference evaluator",)

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None:
        del self.evaluator
