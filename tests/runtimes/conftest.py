"""The images and logits that all are held to."""

from typing import Any

import numpy as np
import pytest
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.networks import from_checkpoint
from toolkit.workspace import Workspace


@pytest.fixture(scope="session")
def images() -> "np.ndarray[Any, Any]":
    """(12, 1, 28, 28) float32, whole numbers 0..255."""
    return load("digits").test_images[:12].numpy().astype(np.float32)


@pytest.fixture(scope="session")
def truth(trained: Workspace, images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Their logits (12, 10), PyTorch float64."""
    with torch.inference_mode():
        return from_checkpoint(Checkpoint.open(trained.checkpoint)).double()(torch.from_numpy(images).double()).numpy()  # type: ignore[no-any-return]
