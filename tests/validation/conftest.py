"""Ways to spoil a good artifact, and validation without processes of its own, which have their own tests."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

from toolkit.artifact import MANIFEST
from toolkit.checkpoint import Checkpoint
from toolkit.cli import main
from toolkit.validation import Check, RuntimeRow, ValidationResult, validate
from toolkit.validation.worker import ask
from toolkit.workspace import Workspace


def sign(folder: Path, **fields: Any) -> None:
    """Makes the manifest fit the files again: what a fault in the exporter, and not in the copying, looks like."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8")) | fields
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def spoil_onnx(workspace: Workspace, change: Any) -> None:
    """`change` is applied to the kernels of the first convolution."""
    folder = workspace.exports / "onnx-fp32"
    model = onnx.load(folder / "model.onnx")
    kernels = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [16, 1, 3, 3])
    kernels.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(kernels).copy()), kernels.name))
    onnx.save(model, folder / "model.onnx")
    sign(folder)


def spoil_coreml(workspace: Workspace, name: str, change: Any) -> None:
    """`change` is applied to the last layer's weights, found in weight.bin by their bytes."""
    dtype = {"coreml-fp32": "<f4", "coreml-fp16": "<f2"}[name]
    weights = Checkpoint.open(workspace.checkpoint).weights()["network.8.weight"].numpy().astype(dtype)
    (path,) = (workspace.exports / name).rglob("weight.bin")
    raw = path.read_bytes()
    assert raw.count(weights.tobytes()) == 1
    path.write_bytes(raw.replace(weights.tobytes(), change(weights.copy()).astype(dtype).tobytes()))
    sign(workspace.exports / name)


def row(result: ValidationResult, artifact: str, runtime: str) -> RuntimeRow:
    (found,) = [each for each in result.rows if (each.artifact, each.runtime) == (artifact, runtime)]
    return found


def failed(result: ValidationResult) -> dict[str, Check]:
    """name → check, of those that failed."""
    return {check.name: check for check in result.breaches}


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)  # type: ignore[arg-type]


def path_of(workspace: Workspace) -> str:
    return f"{workspace.folder}{os.sep}"


@pytest.fixture(scope="session", autouse=True)
def _answers(exported: Workspace) -> None:
    """What the good artifacts answer, kept in the model's cache, and so in every copy: tests ask only what they changed."""
    validate(exported, isolate=False)
    shutil.rmtree(exported.reports)


@pytest.fixture
def quick() -> Callable[..., ValidationResult]:
    """validate() in this process."""
    return partial(validate, isolate=False)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line as well; tests/validation/test_run.py is about the processes."""
    monkeypatch.setattr("toolkit.validation.run._isolated", lambda job, images, limits, stop, update: ask(job, images, update))
