"""coreml-cpu, -gpu, -ane and -all: Apple's Core ML through coremltools. macOS only; unmeasured where there is no Mac."""

import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
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


def compile_artifact(artifact: Artifact, folder: Path) -> None:
    """As Xcode does when an app is built: .mlpackage → .mlmodelc."""
    import_coremltools().models.utils.compile_model(str(artifact.entry), str(folder / "model.mlmodelc"))


def planned(model: Any, compute_unit: str) -> dict[str, int]:
    """Device → operations of the main function, by MLComputePlan. {} before macOS 14.4, and for what is no ML Program."""
    from coremltools.models.compute_plan import MLComputePlan

    coremltools = import_coremltools()
    if coremltools.models.utils._macos_version() < (14, 4):
        return {}
    unit = coremltools.ComputeUnit[compute_unit]
    plan = MLComputePlan.load_from_path(path=model.get_compiled_model_path(), compute_units=unit)
    program = plan.model_structure.program
    if program is None:
        return {}
    found: Counter[str] = Counter()
    for operation in program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:  # constants have none
            found[DEVICES.get(type(usage.preferred_compute_device).__name__, type(usage.preferred_compute_device).__name__)] += 1
    return dict(found)


DEVICES = {"MLCPUComputeDevice": "CPU", "MLGPUComputeDevice": "GPU", "MLNeuralEngineComputeDevice": "Neural Engine"}


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

    def planned(self) -> dict[str, int]:
        return planned(self.model, self.compute_unit)

    def framework_ns(self) -> int | None:
        return self.last_ns

    def close(self) -> None:
        del self.model


def picture(image: Any) -> Any:
    """(1, H, W) float 0..255 → the gray PIL image that an image input takes. Values between whole numbers are rounded."""
    from PIL import Image

    return Image.fromarray(np.rint(image[0]).astype(np.uint8))
