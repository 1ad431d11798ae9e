"""Small ML Programs, built once, and a way to damage copies of them."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import save_program
from toolkit.mil._coremltools import import_coremltools


def tiny_resnet() -> torch.nn.Module:
    """Every op of the shipped classifier: up-sampling, normalisation, a residual block, pooling, logits."""

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
            self.norm = torch.nn.BatchNorm2d(8)
            self.block = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.down = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.head = torch.nn.Linear(16, 3)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = torch.nn.functional.interpolate(image, size=(16, 16), mode="bilinear", align_corners=False)
            x = (x - 33.0) / 78.0
            x = torch.relu(self.norm(self.stem(x)))
            x = torch.relu(self.block(x) + x)
            logits = self.head(torch.relu(self.down(x)).mean((2, 3)))
            return logits, logits.softmax(1)

    torch.manual_seed(0)
    model = Tiny().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # logits far from zero: "the same class" should mean something
        model.norm.running_mean.uniform_(-0.5, 0.5)
        model.norm.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    """The tiny network in float64: the independent truth."""
    return tiny_resnet().double()


@pytest.fixture(scope="session")
def pictures() -> np.ndarray[Any, Any]:
    """(9, 1, 14, 14) float32, whole numbers 0..255."""
    return np.random.default_rng(1).integers(0, 256, (9, 1, 14, 14)).astype(np.float32)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny network as ML Programs: FLOAT16-image, FLOAT32-image, FLOAT32-tensor."""
    ct: Any = import_coremltools()
    folder = tmp_path_factory.mktemp("packages")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)  # PyTorch, of itself
        exported = torch.export.export(tiny_resnet(), (torch.zeros(1, 1, 14, 14),)).run_decompositions({})
    inputs = {
        "image": ct.ImageType(name="image", shape=(1, 1, 14, 14), color_layout=ct.colorlayout.GRAYSCALE),
        "tensor": ct.TensorType(name="image", shape=(1, 1, 14, 14)),
    }
    paths = {}
    for precision, kind in (("FLOAT16", "image"), ("FLOAT32", "image"), ("FLOAT32", "tensor")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = ct.convert(
                exported,
                inputs=[inputs[kind]],
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in ("logits", "probabilities")],
                convert_to="milinternal",
                compute_precision=getattr(ct.precision, precision),
                minimum_deployment_target=ct.target.iOS17,
            )
        program.functions["main"].output_types = None  # coremltools 9.0 trips over names and a classifier at once
        labels = ct.ClassifierConfig(["cat", "dog", "emu"], predicted_probabilities_output="probabilities")
        path = folder / f"{precision}-{kind}.mlpackage"
        paths[f"{precision}-{kind}"] = save_program(
            path, program, convert_to="mlprogram", classifier_config=labels, compute_precision=ct.precision.FLOAT32
        )
    return paths


@pytest.fixture
def copy_of(tmp_path: Path, packages: dict[str, Path]) -> Callable[..., Path]:
    """A fresh copy of one of `packages`, free to damage."""

    def copy(name: str = "FLOAT32-tensor") -> Path:
        return Path(shutil.copytree(packages[name], tmp_path / f"{name}.mlpackage"))

    return copy
