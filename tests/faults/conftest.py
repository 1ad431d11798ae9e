"""A network with what the tiny one lacks: residuals, strides that differ, layers of one shape. Random weights, exported once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY, make_workspace
from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.recipe import Recipe
from toolkit.runtimes import find
from toolkit.workspace import Workspace

BUILDER = "mini-residual"
RUNS = {"onnx": "onnxruntime-cpu", "coreml": "coreml-reference"}
IMAGES = 12
Outputs = dict[str, "np.ndarray[Any, Any]"]


class Block(nn.Module):
    """Two convolutions and what goes round them, as in ResNet."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        same = stride == 1 and channels == out
        self.round = nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.round(x))  # type: ignore[no-any-return]


def mini_residual(classes: int, channels: int = 1) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(stem, Block(8, 8, 1), Block(8, 12, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes))


@pytest.fixture(scope="session")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """onnx-fp32 and coreml-fp16 of a small residual network. Shared: plant in copies."""
    from toolkit.export import Options, export
    from toolkit.networks import NETWORKS, build

    text = TINY.replace("small-cnn", BUILDER).replace('"tiny"', '"residual"') + "[gates.fp32]\nmax_changed = 500\n[gates.fp16]\n"
    text += "max_changed = 500\nmax_abs_logit = 0.5\n"
    workspace = make_workspace(tmp_path_factory.mktemp("residual") / "models" / "residual", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, BUILDER, mini_residual)
        recipe = Recipe.read(workspace.recipe)
        torch.manual_seed(1)
        classifier = build(recipe, 10)
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.3)
                nn.init.uniform_(module.running_var, 0.05, 0.5)
                nn.init.uniform_(module.weight, 0.7, 1.6)
                nn.init.normal_(module.bias, 0, 0.5)
        workspace.checkpoint.mkdir(parents=True)
        card = {
            "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": 1, "class_labels": list("0123456789"),
            "input_shape": (1, 28, 28), "device": "cpu", "finished": True, "epochs_done": 1.0,
            "metrics": {"test_accuracy": 0.1, "test_images": 360}, "versions": {},
        }  # fmt: skip
        write_checkpoint(workspace.checkpoint, classifier.state_dict(), card, None)
        export(workspace, ["coreml", "onnx"], Options())
        yield workspace


def outputs_of(folder: Path) -> Outputs:
    """What the model file of an artifact computes for its first golden images."""
    artifact = Artifact.open(folder)
    session = find(RUNS[artifact.format]).open(artifact, 1)
    try:
        return dict(session({"image": artifact.golden()[0][:IMAGES]}))
    finally:
        session.close()


def largest_difference(one: Outputs, other: Outputs) -> float:
    """Over all outputs that are numbers; inf where names, shapes, types or labels differ, or anything is no number."""
    if one.keys() != other.keys():
        return float("inf")
    largest = 0.0
    for name, mine in one.items():
        theirs = other[name]
        if mine.shape != theirs.shape or mine.dtype.kind != theirs.dtype.kind:
            return float("inf")
        if mine.dtype.kind != "f":
            if not np.array_equal(mine, theirs):
                return float("inf")
            continue
        difference = float(np.abs(mine.astype(np.float64) - theirs).max())
        largest = max(largest, difference if np.isfinite(difference) else float("inf"))
    return largest


@pytest.fixture(scope="session")
def checkpoint_of() -> Any:
    return lambda workspace: Checkpoint.open(workspace.checkpoint)
