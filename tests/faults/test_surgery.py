"""Surgery changes what it is told to and nothing else, in both formats."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.faults.conftest import largest_difference, outputs_of
from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError
from toolkit.faults import NotApplicable, Surgery, open_surgery
from toolkit.faults.coreml_literals import Weights, literal, read
from toolkit.faults.fault import read_manifest, sign
from toolkit.faults.surgery import KINDS
from toolkit.workspace import Workspace

EDITABLE = ("onnx-fp32", "coreml-fp16", "coreml-fp32")
Operate = Callable[[Callable[[Surgery], None]], Path]


def opened(folder: Path) -> Surgery:
    return open_surgery(folder, read_manifest(folder))


@pytest.fixture(params=EDITABLE)
def folder(request: pytest.FixtureRequest, exported: Workspace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.exports / request.param, tmp_path / request.param))


@pytest.fixture
def operate(folder: Path) -> Operate:
    """Opens, lets one operate, saves and signs."""

    def run(change: Callable[[Surgery], None]) -> Path:
        surgery = opened(folder)
        change(surgery)
        surgery.save()
        sign(folder)
        return folder

    return run


def test_opened_and_saved_computes_the_same(folder, operate):
    before = outputs_of(folder)
    assert largest_difference(before, outputs_of(operate(lambda surgery: None))) == 0


def test_layers_are_found_in_the_order_of_the_program(folder):
    surgery = opened(folder)
    counts = {kind: len(surgery.layers(kind)) for kind in KINDS}
    assert counts == {"conv": 2, "linear": 1, "relu": 2, "add": 0, "pool": 1, "softmax": 1, "resize": 1, "sub": 1, "mul": 1}
    chain = [surgery.layers(kind)[index] for kind, index in [("resize", 0), ("sub", 0), ("mul", 0), ("conv", 0), ("relu", 0), ("conv", 1)]]
    assert [layer.inputs[0] for layer in chain[1:]] == [layer.name for layer in chain[:-1]]


def test_shapes_and_constants_are_those_of_the_network(folder):
    surgery = opened(folder)
    one, other = surgery.layers("conv")
    assert (one.weight().shape, other.weight().shape, other.bias().shape) == ((16, 1, 3, 3), (32, 16, 3, 3), (32,))
    assert surgery.layers("linear")[0].weight().shape == (10, 128)
    assert surgery.shape(one.name)[1:] == (16, 16, 16)
    assert (one.attribute("strides"), one.attribute("pads"), one.attribute("dilations")) == ((2, 2), (1, 1, 1, 1), (1, 1))
    assert surgery.layers("resize")[0].attribute("align_corners") is False
    assert surgery.layers("sub")[0].weight() == pytest.approx(255 * 0.1558, rel=1e-3)
    assert surgery.layers("mul")[0].weight() == pytest.approx(1 / (255 * 0.2774), rel=1e-3)
    assert surgery.labels() == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("kind", ["conv", "linear", "sub"])
def test_a_weight_is_changed_and_nothing_else(folder, operate, kind):
    everything = [("conv", 0), ("conv", 1), ("linear", 0), ("sub", 0), ("mul", 0)]
    surgery = opened(folder)
    before = {(each, index): surgery.layers(each)[index].weight() for each, index in everything}
    biases = [layer.bias() for each in ("conv", "linear") for layer in surgery.layers(each)]
    new = np.asarray(before[kind, 0] * 2 + 1)
    operate(lambda surgery: surgery.layers(kind)[0].set_weight(new))
    surgery = opened(folder)
    after = {(each, index): surgery.layers(each)[index].weight() for each, index in everything}
    for key, weight in before.items():
        np.testing.assert_array_equal(after[key], new if key == (kind, 0) else weight)
    for old, layer in zip(biases, [*surgery.layers("conv"), *surgery.layers("linear")], strict=True):
        np.testing.assert_array_equal(layer.bias(), old)


def test_a_bias_is_changed(folder, operate):
    operate(lambda surgery: surgery.layers("linear")[0].set_bias(np.arange(10) / 4))
    np.testing.assert_array_equal(opened(folder).layers("linear")[0].bias(), np.arange(10) / 4)


def test_a_weight_of_another_shape_is_refused(folder):
    with pytest.raises(ValueError, match=r"shape \(3,\) for a stored tensor of shape \(16,\)"):
        opened(folder).layers("conv")[0].set_bias(np.zeros(3))


def test_attributes_are_read_as_they_were_set(folder, operate):
    def change(surgery: Surgery) -> None:
        surgery.layers("conv")[1].set_attribute("pads", (0, 2, 1, 1))
        surgery.layers("resize")[0].set_attribute("align_corners", True)

    before = outputs_of(folder)
    operate(change)
    surgery = opened(folder)
    assert surgery.layers("conv")[1].attribute("pads") == (0, 2, 1, 1)
    assert surgery.layers("conv")[0].attribute("pads") == (1, 1, 1, 1)
    assert surgery.layers("resize")[0].attribute("align_corners") is True
    assert largest_difference(before, outputs_of(folder)) > 0.1


def test_padding_means_the_same_in_both_formats(exported, tmp_path):
    """(top, bottom, left, right), which the formats write in different orders."""
    found = {}
    for name in ("onnx-fp32", "coreml-fp32"):
        folder = Path(shutil.copytree(exported.exports / name, tmp_path / name))
        surgery = opened(folder)
        surgery.layers("conv")[0].set_attribute("pads", (0, 2, 1, 1))
        surgery.save()
        sign(folder)
        found[name] = outputs_of(folder)["logits"]
    assert np.abs(found["onnx-fp32"] - found["coreml-fp32"]).max() < 1e-3


REPLACEMENTS = [
    ("relu", "identity", {}), ("relu", "clip", {"low": 0.0, "high": 0.5}), ("relu", "leaky_relu", {"slope": 0.1}),
    ("pool", "max_pool", {}), ("resize", "nearest", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "other", "constants"), REPLACEMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_replaced_runs_and_computes_something_else(folder, operate, kind, other, constants):
    before = outputs_of(folder)
    operate(lambda surgery: surgery.layers(kind)[0].replace(other, **constants))
    assert 0.01 < np.abs(before["logits"] - outputs_of(folder)["logits"]).max() < float("inf")


def test_what_cannot_be_replaced_is_said(folder):
    with pytest.raises(NotApplicable, match="no max_pool in place of a softmax"):
        opened(folder).layers("softmax")[0].replace("max_pool")
    with pytest.raises(NotApplicable, match="no fire can be inserted"):
        opened(folder).insert("fire", "logits")


@pytest.mark.parametrize("kind", ["transpose", "mirror"])
def test_what_is_inserted_twice_undoes_itself(folder, operate, kind):
    before = outputs_of(folder)
    operate(lambda surgery: surgery.insert(kind, surgery.layers("resize")[0].name))
    assert largest_difference(before, outputs_of(folder)) > 1
    name = next(iter(opened(folder).layers("sub"))).inputs[0]
    operate(lambda surgery: surgery.insert(kind, name))
    assert largest_difference(before, outputs_of(folder)) == 0


def test_an_op_after_the_input_of_the_model(folder, operate):
    before = outputs_of(folder)
    operate(lambda surgery: surgery.insert("mirror", "image"))
    assert largest_difference(before, outputs_of(folder)) > 1


def test_scale_and_offset_after_a_value(folder, operate):
    before = outputs_of(folder)
    name = opened(folder).layers("linear")[0].name
    operate(lambda surgery: surgery.insert_after(name, 2.0, 1.0))
    np.testing.assert_allclose(outputs_of(folder)["logits"], 2 * before["logits"] + 1, rtol=2e-3, atol=2e-2)


def test_outputs_are_renamed_and_swapped(folder, operate):
    before = outputs_of(folder)
    operate(lambda surgery: surgery.swap_outputs("logits", "probabilities"))
    after = outputs_of(folder)
    np.testing.assert_array_equal(after["logits"], before["probabilities"])
    operate(lambda surgery: surgery.rename_output("logits", "scores"))
    assert "scores" in outputs_of(folder)
    assert "logits" not in outputs_of(folder)


def test_labels_are_those_that_were_set(folder, operate):
    wanted = [f"digit {digit}" for digit in range(10)]
    operate(lambda surgery: surgery.set_labels(wanted))
    assert opened(folder).labels() == wanted


def test_metadata_is_what_was_set(folder, operate):
    from toolkit.validation.interface import read as interface_of

    def change(surgery: Surgery) -> None:
        surgery.set_metadata("recipe", "another")
        surgery.set_metadata("description", "of flowers")

    operate(change)
    metadata = interface_of(Artifact.open(folder)).metadata
    assert (metadata["recipe"], metadata["precision"]) == ("another", folder.name[-4:])


def test_a_tensor_that_two_nodes_read_stays_the_others(exported, tmp_path):
    folder = Path(shutil.copytree(exported.exports / "onnx-fp32", tmp_path / "onnx-fp32"))
    model = onnx.load(folder / "model.onnx")
    one = next(node for node in model.graph.node if node.op_type == "Relu")
    model.graph.node.append(onnx.helper.make_node("Conv", [one.output[0], *model.graph.node[7].input[1:]], ["twin"]))
    assert model.graph.node[7].op_type == "Conv"
    onnx.save(model, folder / "model.onnx")
    surgery = opened(folder)
    layer, twin = surgery.layers("conv")[1:]
    before = twin.weight()
    layer.set_weight(before * 2)
    np.testing.assert_array_equal(twin.weight(), before)
    np.testing.assert_array_equal(layer.weight(), before * 2)


def test_core_ai_files_cannot_be_edited(exported, tmp_path):
    if not (exported.exports / "coreai-fp32").is_dir():
        pytest.skip("coreai is not installed")
    with pytest.raises(NotApplicable, match="no surgery for coreai files"):
        opened(exported.exports / "coreai-fp32")


@pytest.mark.parametrize(
    ("content", "dtype"),
    [([[1.5, -2]], "fp16"), ([[1.5, -2]], "fp32"), ([0, 1, 2], "int32"), (True, "bool"), ("custom", "string"), (3.0, "fp16")],
)
def test_a_literal_is_read_as_it_was_written(content, dtype):
    found = read(literal(content, dtype), Weights(None))  # type: ignore[arg-type]
    assert found == content if isinstance(content, str) else np.array_equal(found, content)


def test_a_literal_of_another_type_is_refused():
    with pytest.raises(ArtifactError, match="a literal of type int4 is not written here"):
        literal([1], "int4")
