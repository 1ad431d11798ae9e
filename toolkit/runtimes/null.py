"""null: returns zeros at once. What `bench` measures on it is the harness itself; it is never validated unless named."""

import numpy as np

from toolkit import __version__
from toolkit.artifact import Artifact
from toolkit.runtimes.base import Session
from toolkit.tensors import IMAGE, LOGITS, PROBABILITIES, Batch


def why_not() -> str | None:
    return None


def version() -> str:
    return __version__


def open_session(artifact: Artifact, threads: int | None) -> Session:
    return NullSession(len(artifact.manifest.class_labels))


class NullSession:
    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, batch: Batch) -> Batch:
        shape = (len(batch[IMAGE]), self.classes)
        return {LOGITS: np.zeros(shape, np.float32), PROBABILITIES: np.full(shape, 1 / self.classes, np.float32)}

    def placement(self) -> tuple[str, ...]:
        return ()

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None: ...
