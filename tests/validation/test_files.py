"""The first level, without running anything: each thing a file says of itself is compared, and a lie is named."""

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest

from tests.validation.conftest import sign
from toolkit.artifact import GOLDEN, MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.validation import files
from toolkit.validation.interface import read
from toolkit.validation.worker import interface


@pytest.fixture
def checkpoint(exported):
    return Checkpoint.open(exported.checkpoint)


def wrong(workspace, name, checkpoint) -> dict[str, str]:
    artifact, opened = files.open_artifact(workspace.exports / name)
    assert artifact is not None, opened.detail
    return {check.name: check.figure for check in files.checks(artifact, checkpoint, interface(artifact.folder)) if not check.passed}


@pytest.mark.parametrize("name", ["coreml-fp16", "coreml-fp32", "onnx-fp32"])
def test_a_good_file_says_what_it_is(exported, checkpoint, name):
    assert wrong(exported, name, checkpoint) == {}
    own = read(Artifact.open(exported.exports / name))
    assert own.labels == list("0123456789")
    assert set(own.inputs) == {"image"}
    assert set(own.outputs) == {"logits", "probabilities"} | ({"classLabel"} if "coreml" in name else set())
    # convolutions 16·1·3·3 and 32·16·3·3, linear 10·128; ONNX and Core ML may hold shapes and constants besides
    assert own.weights[name[-4:]] >= 144 + 4608 + 1280
    assert own.metadata["checkpoint_sha256"] == checkpoint.card.weights_sha256


@pytest.mark.parametrize(("fields", "check"), [
    ({"checkpoint_sha256": "0" * 64}, {"made from this checkpoint", "metadata in the file"}),
    ({"recipe_hash": "0" * 64}, {"made from this recipe", "metadata in the file"}),
    ({"model": "other"}, {"model", "metadata in the file"}),
    ({"class_labels": list("0123456798")}, {"class labels of the manifest"}),
    ({"precision": "fp16"}, {"number format of the weights", "metadata in the file"}),
])  # fmt: skip
def test_a_manifest_that_lies_is_found(exported_copy, checkpoint, fields, check):
    sign(exported_copy.exports / "onnx-fp32", **fields)
    assert set(wrong(exported_copy, "onnx-fp32", checkpoint)) == check


def change_onnx(workspace, change) -> None:
    path = workspace.exports / "onnx-fp32" / "model.onnx"
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    sign(workspace.exports / "onnx-fp32")


def rename(model) -> None:
    for node in model.graph.node:
        node.output[:] = ["scores" if name == "logits" else name for name in node.output]
        node.input[:] = ["scores" if name == "logits" else name for name in node.input]
    model.graph.output[0].name = "scores"


def freeze(model) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def relabel(model) -> None:
    for each in model.metadata_props:
        if each.key == "class_labels":
            each.value = json.dumps(list("1032456789"))


def halve(model) -> None:
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1 and tensor.data_type == 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


@pytest.mark.parametrize(("change", "check", "words"), [
    (rename, "inputs and outputs", "probabilities, scores"), (freeze, "inputs and outputs", "(1, 1, 28, 28)"),
    (relabel, "class labels in the file", "1 0 3 2"), (halve, "number format of the weights", "fp16"),
])  # fmt: skip
def test_a_file_that_is_not_what_its_manifest_says_is_found(exported_copy, checkpoint, change, check, words):
    change_onnx(exported_copy, change)
    assert words in wrong(exported_copy, "onnx-fp32", checkpoint)[check]


def test_a_file_that_cannot_be_read_is_a_failed_check(exported_copy, checkpoint):
    (exported_copy.exports / "onnx-fp32" / "model.onnx").write_bytes(b"\x00no model")
    sign(exported_copy.exports / "onnx-fp32")
    assert "the file can be read" in wrong(exported_copy, "onnx-fp32", checkpoint)


def test_a_folder_without_a_manifest_is_a_failed_check(exported_copy):
    (exported_copy.exports / "onnx-fp32" / MANIFEST).unlink()
    artifact, check = files.open_artifact(exported_copy.exports / "onnx-fp32")
    assert artifact is None
    assert (check.passed, check.level) == (False, "files")


def test_rows_that_lie_in_another_order_are_recognised(exported_copy):
    """golden.npz with the logits of its neighbour: the model is right, the file is not."""
    folder = exported_copy.exports / "onnx-fp32"
    images, logits = Artifact.open(folder).golden()
    np.savez(folder / GOLDEN, images=images, logits=np.roll(logits, 1, 0))
    sign(folder)
    check = files.golden_file(Artifact.open(folder), logits)
    assert not check.passed
    assert "golden.npz is wrong, whatever the model is: 64 of 64 rows; row 0 holds the logits of image 63" in check.detail
    assert files.golden_file(Artifact.open(exported_copy.exports / "coreml-fp16"), logits).passed


def test_ops_kept_in_fp32_are_no_fault_of_an_fp16_file_that_says_so(exported, monkeypatch):
    artifact = Artifact.open(exported.exports / "coreml-fp16")
    own = read(artifact)
    mixed = type(own)(own.inputs, own.outputs, own.labels, own.metadata, Counter({"fp16": 900, "fp32": 100}))
    assert not files._number_format(artifact, mixed).passed
    manifest = artifact.manifest.model_copy(update={"notes": ["kept in fp32: relu"]})
    assert files._number_format(Artifact(artifact.folder, manifest), mixed).passed
    assert not files._number_format(artifact, type(own)({}, {}, None, {}, Counter({"int8": 1}))).passed


def test_core_ai_metadata_is_read_and_damage_is_named(exported_copy, checkpoint):
    folder = exported_copy.exports / "coreai-fp32"
    if not folder.is_dir():
        pytest.skip("coreai is not installed")
    assert wrong(exported_copy, "coreai-fp32", checkpoint) == {}
    (folder / "model.aimodel" / "metadata.json").write_text("[]", encoding="utf-8")
    sign(folder)
    assert "the file can be read" in wrong(exported_copy, "coreai-fp32", checkpoint)
    shutil.rmtree(folder)
