"""Apple's runtime where there is no Mac (coremltools over the drop-in), and the images and logits that all are held to."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.mil import ReferenceEvaluator, coremltools_predict
from toolkit.networks import from_checkpoint
from toolkit.workspace import Workspace


@pytest.fixture
def fake_macos(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """coremltools' own MLModel with the evaluator behind it; yields the inputs that get through to the evaluator, in order."""
    from coremltools.models import MLModel

    given: list[Any] = []
    honest = ReferenceEvaluator.predict

    def predict(self: ReferenceEvaluator, inputs: Mapping[str, Any], *more: Any) -> dict[str, Any]:
        given.extend(inputs.values())
        return honest(self, inputs, *more)

    monkeypatch.setattr(ReferenceEvaluator, "predict", predict)
    monkeypatch.setattr("toolkit.runtimes.coreml.why_not", lambda compute_unit: None)
    monkeypatch.setattr(MLModel, "last_predict_duration_in_nano_seconds", 1000, raising=False)  # the drop-in has no clock of Apple's
    with coremltools_predict():
        yield given


@pytest.fixture(scope="session")
def images() -> "np.ndarray[Any, Any]":
    """(12, 1, 28, 28) float32, whole numbers 0..255."""
    return load("digits").test_images[:12].numpy().astype(np.float32)


@pytest.fixture(scope="session")
def truth(trained: Workspace, images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Their logits (12, 10), PyTorch float64."""
    with torch.inference_mode():
        return from_checkpoint(Checkpoint.open(trained.checkpoint)).double()(torch.from_numpy(images).double()).numpy()  # type: ignore[no-any-return]
