"""A manifest whose numbers or names cannot be: one ArtifactError, without a process for each."""

from pathlib import Path

import pytest

from tests.hostile.attack import edit_manifest
from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError

FIELDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("an accuracy of 7", {"test_accuracy": 7}),
    ("an accuracy of 1e400", {"test_accuracy": float("inf")}),
    ("an accuracy that is NaN", {"test_accuracy": float("nan")}),
    ("a model's name of a megabyte", {"model": "x" * (1 << 20)}),
    ("a million labels", {"class_labels": ["x"] * 1_000_000}),
    ("a label of a megabyte", {"class_labels": ["x", "y" * (1 << 20)]}),
    ("20,000 files", {"files": {str(number): "0" for number in range(20_000)}}),
    ("an input of 100 axes", {"inputs": [{"name": "image", "shape": [1] * 100, "dtype": "float32"}]}),
    ("an input without an element", {"inputs": [{"name": "image", "shape": [-1, 0, 28, 28], "dtype": "float32"}]}),
    ("an input of 2^62", {"inputs": [{"name": "image", "shape": [1 << 62], "dtype": "float32"}]}),
    ("an output from NaN", {"outputs": [{"name": "logits", "shape": [-1, 10], "dtype": "float32", "low": float("nan")}]}),
)
NAMES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("a name that goes up", ("a/../../x",), "outside the artifact"),
    ("an absolute name", ("/etc/passwd",), "outside the artifact"),
    ("a name of Windows that goes up", ("..\\x",), "outside the artifact"),
    ("a device of Windows", ("golden.npz", "con.txt"), "no name of a file on every computer"),
    ("a stream of Windows", ("golden.npz", "model.onnx:x"), "no name of a file on every computer"),
    ("a name that ends in a dot", ("golden.npz", "model.onnx."), "no name of a file on every computer"),
    ("a name with a line break", ("golden.npz", "a\nb"), "no name of a file on every computer"),
    ("a name with an ESC sequence", ("golden.npz", "a\x1b[2Kb"), "no name of a file on every computer"),
    ("a name that is written in another way", ("golden.npz", "./model.onnx"), "no name of a file on every computer"),
    ("two names that differ in case", ("golden.npz", "Model.onnx", "model.onnx"), "are one file on a Mac"),
    ("two names that differ in accents", ("caf\u00e9", "cafe\u0301"), "are one file on a Mac"),
)


@pytest.mark.parametrize("fields", [fields for _, fields in FIELDS], ids=[name for name, _ in FIELDS])
def test_a_field_that_cannot_be(model: Path, fields: dict[str, object]):
    folder = model / "exports/onnx-fp32"
    edit_manifest(folder, **fields)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read") as caught:
        Artifact.open(folder)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(("names", "words"), [(names, words) for _, names, words in NAMES], ids=[name for name, _, _ in NAMES])
def test_a_name_that_is_another_file_elsewhere(model: Path, names: tuple[str, ...], words: str):
    folder = model / "exports/onnx-fp32"
    edit_manifest(folder, files=dict.fromkeys(names, "0" * 64))
    with pytest.raises(ArtifactError, match=words):
        Artifact.open(folder)
