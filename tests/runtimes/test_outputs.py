"""Whatever a file gives is used only where it is what an artifact gives."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.hostile.test_workers_in_commands import graph_of, put
from toolkit.errors import ArtifactError
from toolkit.predict import predict
from toolkit.runtimes.outputs import finite, rows_of
from toolkit.workspace import Workspace


@pytest.mark.parametrize(("found", "said"), [
    ({}, "gives nothing, and no logits"), ({"other": np.zeros((2, 3))}, "gives other, and no logits"),
    ({"logits": np.zeros((2, 4))}, r"\(2, 4\) for 2 images"), ({"logits": np.zeros(6)}, r"\(6,\) for 2"),
    ({"logits": np.float32(1)}, "as float32"),
    ({"logits": np.zeros((2, 3, 1))}, r"\(2, 3, 1\)"), ({"logits": np.array([["a"] * 3] * 2)}, "as <U1, not as numbers"),
    ({"logits": np.array([[object()] * 3] * 2)}, "as object"), ({"logits": [[1, 2, 3]] * 2}, "as list"), ({"logits": {"a": 1}}, "as dict"),
    ({"logits": np.zeros((2, 3), complex)}, "as complex128"), ({"logits": np.zeros((2, 3), bool)}, "as bool"),
])  # fmt: skip
def test_what_is_no_row_for_each_image_is_refused(found, said):
    with pytest.raises(ArtifactError, match=said):
        rows_of(found, "logits", "a file", 2, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_answer_is_made_of_what_is_no_number(value):
    rows = np.zeros((1, 3))
    assert finite(rows, "probabilities", "a file") is rows
    rows[0, 1] = value
    with pytest.raises(ArtifactError, match="1 of 3 are no numbers"):
        finite(rows, "probabilities", "a file")


def _program(probabilities):
    """Logits that are right in shape, and these nodes for the probabilities."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["mean", "a", "b", "axis"], ["logits"]), *probabilities,
    ]  # fmt: skip
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("a", 0), ("b", 10), ("axis", 1), ("zero", 0))
    ]
    return graph_of(nodes, constants)


ODD = {
    "NaN": [helper.make_node("Sub", ["logits", "logits"], ["none"]), helper.make_node("Div", ["none", "none"], ["probabilities"])],
    "wide": [helper.make_node("Concat", ["logits", "logits"], ["probabilities"], axis=1)],
    "a scalar": [helper.make_node("ReduceSum", ["logits"], ["probabilities"], keepdims=0)],
    "three axes": [helper.make_node("Unsqueeze", ["logits", "zero"], ["probabilities"])],
    "whole numbers of text": [helper.make_node("Cast", ["logits"], ["probabilities"], to=TensorProto.STRING)],
}


@pytest.mark.parametrize("name", ODD)
def test_predict_answers_nothing_from_odd_probabilities(exported_copy, tmp_path, name):
    from PIL import Image

    program = _program(ODD[name])
    kind = TensorProto.STRING if "text" in name else TensorProto.FLOAT
    del program.graph.output[1].type.tensor_type.shape.dim[:]
    program.graph.output[1].CopyFrom(helper.make_tensor_value_info("probabilities", kind, None))
    put(exported_copy.folder, program)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    workspace = Workspace(exported_copy.folder, exported_copy.recipe)
    with pytest.raises(ArtifactError, match=r"onnx-fp32 on onnxruntime-cpu gave probabilities"):
        predict(workspace, [tmp_path / "a.png"], runtime="onnxruntime-cpu", isolate=False)
