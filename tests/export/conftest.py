"""The truth that no exporter has touched: the trained weights in PyTorch float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.networks import from_checkpoint
from toolkit.workspace import Workspace


@pytest.fixture(scope="session")
def truth(trained: Workspace) -> Callable[["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]:
    """images (N, 1, 28, 28) → logits (N, 10), float64."""
    model = from_checkpoint(Checkpoint.open(trained.checkpoint)).double()

    def logits(images: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        with torch.inference_mode():
            return model(torch.from_numpy(images.astype(np.float64))).numpy()  # type: ignore[no-any-return]

    return logits


@pytest.fixture
def trained_copy(trained: Workspace, tmp_path: Any) -> Workspace:
    """The trained model without artifacts, to export from and to damage."""
    import shutil

    folder = tmp_path / "models" / "tiny"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("exports", "reports"))
    return Workspace(folder, folder / "recipe.toml")
