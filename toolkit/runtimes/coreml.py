"""coreml-cpu, -gpu, -ane and -all: Apple's Core ML through coremltools. macOS only; unmeasured where there is no Mac."""

import sys
from importlib import metadata
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.mil._coremltools import import_coremltools
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES, Batch


def why_not(compute_unit: str) -> str | None:
    if sys.platform != "darwin":
        return f"Core ML needs macOS 13 or later; this is {sys.platform}"
    import_coremltools()  # here, so that its import is not measured as part of loading a model
    return None


def version() -> str:
    return metadata.version("coremltools")


def open_session(artifact: Artifact, threads: int | None, compute_unit: str) -> Session:
    return CoreMLSession(artifact, load_model(artifact, compute_unit), compute_unit)


def load_model(artifact: Artifact, compute_unit: str) -> Any:
    """An MLModel that predicts. The seam that tests replace where there is no Mac."""
    coremltools = import_coremltools()
    return coremltools.models.MLModel(str(artifact.entry), compute_units=coremltools.ComputeUnit[compute_unit])


class CoreMLSession:
    def __init__(self, artifact: Artifact, model: Any, compute_unit: str) -> None:
        self.artifact, self.model, self.compute_unit = artifact, model, compute_unit
        self.last_ns: int | None = None

    def __call__(self, batch: Batch) -> Batch:
        images = images_of(batch, self.artifact)
        as_image = self.artifact.manifest.input_kind == "image"
        labels = self.artifact.manifest.class_labels
        rows, self.last_ns = [], 0
        for image in images:
            # A fresh dictionary each time: predict changes the one it is given.
            rows.append(self.model.predict({IMAGE: picture(image) if as_image else image[None]}))
            if self.last_ns is not None:
                own = getattr(self.model, "last_predict_duration_in_nano_seconds", None)
                self.last_ns = None if own is None else self.last_ns + own
        return {
            LOGITS: np.concatenate([np.asarray(row[LOGITS], np.float32).reshape(1, -1) for row in rows]),
            PROBABILITIES: np.array([[row[PROBABILITIES][label] for label in labels] for row in rows], np.float32),
            CLASS_LABEL: np.array([row[CLASS_LABEL] for row in rows]),
        }

    def placement(self) -> tuple[str, ...]:
        return (f"requested {self.compute_unit}",)  # what ran where is not known from the request

    def framework_ns(self) -> int | None:
        return self.last_ns

    def close(self) -> None:
        del self.model


def picture(image: Any) -> Any:
    """(1, H, W) float 0..255 → the gray PIL image that an image input takes. Values between whole numbers are rounded."""
    from PIL import Image

    return Image.fromarray(np.rint(image[0]).astype(np.uint8))
