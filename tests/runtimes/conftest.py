"""A stand-in for Apple's MLModel where there is no Mac, and the images and logits that every runtime is held to."""

from typing import Any

import numpy as np
import pytest
import torch

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.mil import ReferenceEvaluator
from toolkit.networks import from_checkpoint
from toolkit.workspace import Workspace


class FakeMLModel:
    """`predict` as coremltools documents it, computed by the reference evaluator. Like the real one it changes its argument."""

    last_predict_duration_in_nano_seconds = 1000

    def __init__(self, artifact: Artifact, compute_unit: str) -> None:
        self.evaluator, self.compute_unit, self.given = ReferenceEvaluator(artifact.entry), compute_unit, list[Any]()

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.given.append(inputs["image"])
        found = self.evaluator.predict(dict(inputs))
        inputs.clear()
        return found


@pytest.fixture
def fake_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runtimes.coreml.why_not", lambda compute_unit: None)
    monkeypatch.setattr("toolkit.runtimes.coreml.load_model", FakeMLModel)


@pytest.fixture(scope="session")
def images() -> "np.ndarray[Any, Any]":
    """(12, 1, 28, 28) float32, whole numbers 0..255."""
    return load("digits").test_images[:12].numpy().astype(np.float32)


@pytest.fixture(scope="session")
def truth(trained: Workspace, images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Their logits (12, 10), PyTorch float64."""
    with torch.inference_mode():
        return from_checkpoint(Checkpoint.open(trained.checkpoint)).double()(torch.from_numpy(images).double()).numpy()  # type: ignore[no-any-return]
