"""Good files are silent, and of a bad one the layer, the kind and the figures are named."""

import json

import numpy as np
import pytest

from toolkit.artifact import GOLDEN, Artifact
from toolkit.cli import main
from toolkit.debug import debug
from toolkit.debug.program import READERS
from toolkit.errors import ToolkitError
from toolkit.faults.fault import sign

GOOD = ["coreml-fp16", "coreml-fp32", "onnx-fp32"]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_agrees_layer_by_layer(exported, name):
    result = debug(exported, name, images=6)
    assert (result.agrees, result.kind, result.culprit) == (True, "agreement", None)
    judged = [layer for layer in result.layers if layer.reference is not None]
    assert {layer.module for layer in judged} >= {f"network.{number}" for number in (1, 2, 4, 5, 6, 8)}
    assert len(judged) >= 10
    assert max(layer.own / layer.band for layer in judged) < 0.5
    assert [layer.op for layer in result.layers if layer.reference is None] in ([], ["cast"])


def test_where_a_layer_comes_from_is_said(exported):
    layers = debug(exported, "onnx-fp32", images=2).layers
    resize = next(layer for layer in layers if layer.op == "Resize")
    assert resize.source.startswith("classifier.py:")


@pytest.mark.parametrize(("fault", "artifact", "kind", "words"), [
    ("weights-1-percent", "coreml-fp16", "constant", "multiplied by 1.01"),
    ("weights-1-percent", "onnx-fp32", "constant", "multiplied by 1.01"),
    ("kernel-transposed", "onnx-fp32", "constant", "alone, by up to"),
    ("channels-swapped", "onnx-fp32", "constant", "swapped"),
    ("bias-missing", "coreml-fp32", "constant", "bias is all zeros"),
    ("nan-weight", "onnx-fp32", "constant", "holds 1 NaN or Inf"),
    ("weights-through-fp16", "onnx-fp32", "constant", "of the largest"),
    ("relu-missing", "coreml-fp16", "operation", "it is identity, the converter writes relu"),
    ("leaky-relu", "onnx-fp32", "operation", "it is LeakyRelu, the converter writes Relu"),
    ("padding-off-by-one", "onnx-fp32", "operation", "pads is [0, 0, 2, 2], the converter writes [1, 1, 1, 1]"),
    ("dilation", "coreml-fp32", "operation", "dilations is [2, 2]"),
    ("softmax-axis", "onnx-fp32", "operation", "axis is 0"),
    ("outputs-swapped", "coreml-fp16", "wiring", "it reads softmax_cast_fp16"),
    ("mean-wrong", "onnx-fp32", "constant", "multiplied by 1.5"),
])  # fmt: skip
def test_the_layer_and_the_kind_of_a_planted_fault_are_named(planted, fault, artifact, kind, words):
    where, result = planted(fault, artifact)
    assert not result.agrees
    assert (result.culprit.name, result.kind) == (where.where, kind)
    assert words in result.explanation
    assert not result.culprit.inside


@pytest.mark.parametrize("fault", ["inverted", "mirrored-picture", "logits-halved"])
def test_an_op_that_is_inserted_is_named_itself(planted, fault):
    where, result = planted(fault, "onnx-fp32")
    assert result.culprit.name.startswith(f"{where.where}_")
    assert "is inserted" in result.explanation


def test_what_is_wrong_downstream_of_a_fault_is_not_blamed(planted):
    """Every layer is judged on its own inputs: after the guilty one all are inside, however wrong the values are."""
    where, result = planted("weights-1-percent", "onnx-fp32")
    guilty = [layer.name for layer in result.layers if not layer.inside]
    assert guilty == [where.where]
    assert result.layers[-1].total > 1e-3


def test_an_op_that_only_hands_on_is_blamed_and_not_its_reader():
    """An Identity in the place of an Add: nobody computes, and the next ReLU reads what is wrong."""
    from toolkit.debug.explain import differences
    from toolkit.debug.program import Op

    good = [Op(0, "Add", "sum", ("a", "b")), Op(1, "Relu", "relu", ("sum",))]
    bad = [Op(0, "Identity", "sum", ("a",)), Op(1, "Relu", "relu", ("sum",))]
    assert {each.op for each in differences(bad, good, "fp32")} == {"sum"}


def test_golden_outputs_that_are_wrong_are_told_from_a_model_that_is(exported_copy):
    folder = exported_copy.exports / "onnx-fp32"
    images, logits = Artifact.open(folder).golden()
    np.savez(folder / GOLDEN, images=images, logits=logits + 1)
    sign(folder)
    result = debug(exported_copy, "onnx-fp32", images=4)
    assert (result.agrees, result.kind, result.culprit) == (False, "golden", None)
    assert "the golden outputs are wrong, not the model: max |Δ| 1" in result.explanation


def test_an_artifact_that_is_not_there_and_a_format_that_cannot_be_looked_into_are_said(exported, monkeypatch):
    with pytest.raises(ToolkitError, match=r"there is no artifact 'coreml-int4' in .*; there are: .*coreml-fp16"):
        debug(exported, "coreml-int4")
    monkeypatch.delitem(READERS, "onnx")
    with pytest.raises(ToolkitError, match=r"onnx files cannot be looked into op by op\. Debug another .* \(coreml, coreai\)"):
        debug(exported, "onnx-fp32")


@pytest.mark.parametrize(("fault", "code"), [(None, 0), ("relu-missing", 1)])
def test_the_command_prints_the_layers_and_exits_with_1_where_something_is_wrong(exported_copy, fault, code, capsys):
    from toolkit.checkpoint import Checkpoint
    from toolkit.faults import FAULTS

    if fault:
        FAULTS[fault].plant(exported_copy.exports / "onnx-fp32", Checkpoint.open(exported_copy.checkpoint))
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["debug", "onnx-fp32", "--model", str(exported_copy.folder), "--images", "2", *form])
        assert ended.value.code == code
        out = capsys.readouterr().out
    assert json.loads(out)["agrees"] is (code == 0)


def test_a_stale_export_is_said_to_be_one_and_no_layer_is_blamed(exported_copy):
    path = exported_copy.exports / "onnx-fp32" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "checkpoint_sha256": "5eed" * 16}))
    with pytest.raises(ToolkitError, match=r"was made from another checkpoint .* Export again: toolkit export --format onnx"):
        debug(exported_copy, "onnx-fp32", images=1)
