"""What is in the exported files, read with the formats' own libraries and not with the toolkit."""

import importlib.metadata
import json
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
import pytest

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.export import Options, export
from toolkit.mil import ReferenceEvaluator
from toolkit.mil._coremltools import import_coremltools
from toolkit.recipe import Recipe

FORMATS = ["coreml-fp16", "coreml-fp32", "onnx-fp32", *(["coreai-fp32"] if find_spec("coreai_torch") else [])]


def spec_of(workspace, name):
    import_coremltools()
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((workspace.exports / name / "model.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes())
    return spec


def operations(spec):
    """[(op, data type of its first output)] of the ML Program."""
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    return [(operation.type, operation.outputs[0].type.tensorType.dataType) for operation in block.operations]


def onnx_model(workspace):
    return onnx.load(workspace.exports / "onnx-fp32" / "model.onnx")


@pytest.mark.parametrize("name", ["coreml-fp16", "coreml-fp32"])
def test_core_ml_takes_a_gray_picture_and_classifies(exported, name):
    description = spec_of(exported, name).description
    (image,) = description.input
    assert (image.name, image.type.imageType.width, image.type.imageType.height) == ("image", 28, 28)
    assert image.type.imageType.ColorSpace.Name(image.type.imageType.colorSpace) == "GRAYSCALE"
    outputs = {output.name: output.type.WhichOneof("Type") for output in description.output}
    assert outputs == {"logits": "multiArrayType", "probabilities": "dictionaryType", "classLabel": "stringType"}
    (logits,) = [output for output in description.output if output.name == "logits"]
    assert logits.type.multiArrayType.ArrayDataType.Name(logits.type.multiArrayType.dataType) == "FLOAT32"
    assert (description.predictedFeatureName, description.predictedProbabilitiesName) == ("classLabel", "probabilities")
    assert all(feature.shortDescription for feature in [*description.input, *description.output])


def test_core_ml_classifies_with_the_labels_of_the_data_set(exported):
    function = spec_of(exported, "coreml-fp16").mlProgram.functions["main"]
    (classify,) = [op for op in function.block_specializations[function.opset].operations if op.type == "classify"]
    values = classify.inputs["classes"].arguments[0].value.immediateValue.list.values
    assert [value.immediateValue.tensor.strings.values[0] for value in values] == list("0123456789")


@pytest.mark.parametrize("name", ["coreml-fp16", "coreml-fp32"])
def test_core_ml_metadata(exported, name):
    recipe, card = Recipe.read(exported.recipe), Checkpoint.open(exported.checkpoint).card
    metadata = spec_of(exported, name).description.metadata
    assert metadata.author == recipe.publish.author
    assert metadata.license == recipe.publish.license == "Apache-2.0"
    assert metadata.versionString == recipe.publish.version
    assert metadata.shortDescription == recipe.description
    user = dict(metadata.userDefined)
    assert user["recipe_hash"] == recipe.hash
    assert user["checkpoint_sha256"] == card.weights_sha256
    assert user["precision"] == name.removeprefix("coreml-")
    assert user["test_accuracy"] == f"{100 * card.metrics['test_correct'] / 360:.2f} % of 360 test images"


def test_fp16_computes_in_fp16_and_fp32_does_not(exported):
    """Weights too: the file of weights is half as large."""
    from coremltools.proto import MIL_pb2

    types = {name: operations(spec_of(exported, f"coreml-{name}")) for name in ("fp16", "fp32")}
    conv = {name: {kind for op, kind in found if op == "conv"} for name, found in types.items()}
    assert conv == {"fp16": {MIL_pb2.FLOAT16}, "fp32": {MIL_pb2.FLOAT32}}
    assert MIL_pb2.FLOAT16 not in {kind for _, kind in types["fp32"]}
    assert not [op for op, _ in types["fp32"] if op == "cast"]
    size = {name: next((exported.exports / f"coreml-{name}").rglob("weight.bin")).stat().st_size for name in types}
    assert 0.4 < size["fp16"] / size["fp32"] < 0.65


def test_the_recipe_names_the_oldest_system(exported):
    """iOS17 is specification 8 (coremltools' table of versions)."""
    assert Recipe.read(exported.recipe).publish.minimum_target == "iOS17"
    assert spec_of(exported, "coreml-fp16").specificationVersion == 8


@pytest.mark.parametrize(("target", "version", "opset"), [("iOS15", 6, "CoreML5"), ("iOS16", 7, "CoreML6"), ("iOS18", 9, "CoreML8")])
def test_target_decides_specification_and_opset(trained_copy, target, version, opset):
    export(trained_copy, ["coreml"], Options(minimum_target=target))
    spec = spec_of(trained_copy, "coreml-fp16")
    assert (spec.specificationVersion, spec.mlProgram.functions["main"].opset) == (version, opset)


def test_a_tensor_input_lies_beside_the_picture_input(exported_copy):
    before = sorted(path.name for path in exported_copy.exports.iterdir())
    (result,) = export(exported_copy, ["coreml"], Options(input_kind="tensor", precision="fp32"))
    assert sorted(path.name for path in exported_copy.exports.iterdir()) == sorted([*before, "coreml-fp32-tensor"])
    (image,) = spec_of(exported_copy, "coreml-fp32-tensor").description.input
    assert list(image.type.multiArrayType.shape) == [1, 1, 28, 28]
    assert image.type.multiArrayType.ArrayDataType.Name(image.type.multiArrayType.dataType) == "FLOAT32"
    assert Artifact.open(result.folder).manifest.input_kind == "tensor"
    assert result.golden_max_abs_logit < 1e-3


def test_onnx_names_shapes_and_metadata(exported):
    recipe, card, model = Recipe.read(exported.recipe), Checkpoint.open(exported.checkpoint).card, onnx_model(exported)

    def shape(value):
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    batch = shape(model.graph.input[0])[0]
    assert isinstance(batch, str)  # a name, not a number: any batch
    assert {value.name: shape(value) for value in model.graph.input} == {"image": [batch, 1, 28, 28]}
    assert {value.name: shape(value) for value in model.graph.output} == {"logits": [batch, 10], "probabilities": [batch, 10]}
    assert all(value.doc_string for value in [*model.graph.input, *model.graph.output])
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert model.doc_string == recipe.description
    assert (props["author"], props["license"], props["version"]) == (recipe.publish.author, "Apache-2.0", "1.0")
    assert (props["recipe_hash"], props["checkpoint_sha256"]) == (recipe.hash, card.weights_sha256)
    assert json.loads(props["class_labels"]) == list("0123456789")
    assert "bilinear resize to 32×32" in props["preprocessing"]
    assert props["test_accuracy"].endswith("of 360 test images")


def test_onnx_is_one_small_file_that_older_runtimes_read(exported):
    """IR 10 and opset 20 are read by every ONNX Runtime since 1.18."""
    folder, model = exported.exports / "onnx-fp32", onnx_model(exported)
    assert sorted(path.name for path in folder.iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert model.ir_version <= 10
    assert {entry.domain: entry.version for entry in model.opset_import}[""] <= 20
    onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def test_onnx_tells_nothing_of_the_machine_that_exported(exported):
    raw = (exported.exports / "onnx-fp32" / "model.onnx").read_bytes()
    for part in (b"site-packages", b".py", str(exported.folder).encode(), b"/home", b"Traceback"):
        assert part not in raw


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnx_takes_any_batch(exported, truth, batch):
    session = onnxruntime.InferenceSession(exported.exports / "onnx-fp32" / "model.onnx", providers=["CPUExecutionProvider"])
    images = load("digits").test_images[:batch].numpy().astype(np.float32)
    logits, probabilities = session.run(["logits", "probabilities"], {"image": images})
    assert logits.shape == probabilities.shape == (batch, 10)
    assert np.abs(logits - truth(images)).max() < 1e-3
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_golden_logits_are_those_of_pytorch_in_float64(exported, truth, name):
    images, logits = Artifact.open(exported.exports / name).golden()
    assert (images.shape, images.dtype, logits.dtype) == ((64, 1, 28, 28), np.float32, np.float64)
    np.testing.assert_allclose(logits, truth(images), rtol=0, atol=1e-12)
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(images, np.rint(images))  # what a picture can hold
    ends = images[60:, 0]
    assert (ends[0] == 0).all()
    assert (ends[1] == 255).all()


def test_golden_images_are_of_every_class(exported, truth):
    """The trained model names all ten classes on them: six images of each, four of them made."""
    _, logits = Artifact.open(exported.exports / "onnx-fp32").golden()
    assert set(logits[:60].argmax(1)) == set(range(10))


@pytest.mark.parametrize(("name", "bound"), [("coreml-fp16", 0.1), ("coreml-fp32", 1e-3)])
def test_core_ml_computes_what_float64_pytorch_computes(exported, truth, name, bound):
    images = load("digits").test_images[:100].numpy().astype(np.float32)
    evaluator = ReferenceEvaluator(exported.exports / name / "model.mlpackage")
    found = evaluator.predict_array(images)
    expected = truth(images)
    assert np.abs(found["logits"] - expected).max() < bound
    softmax = np.exp(expected - expected.max(1, keepdims=True))
    np.testing.assert_allclose(found["probabilities"], softmax / softmax.sum(1, keepdims=True), atol=bound)
    assert [int(label) for label in found["classLabel"]] == found["logits"].argmax(1).tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_says_what_the_artifact_is(exported, name):
    recipe, card = Recipe.read(exported.recipe), Checkpoint.open(exported.checkpoint).card
    manifest = Artifact.open(exported.exports / name).manifest
    form, precision = name.split("-")
    assert (manifest.format, manifest.precision, manifest.model) == (form, precision, "tiny")
    assert manifest.input_kind == ("image" if form == "coreml" else "tensor")
    assert [(spec.name, spec.shape, spec.dtype, spec.low, spec.high) for spec in manifest.inputs] == [
        ("image", (-1, 1, 28, 28), "float32", 0, 255)
    ]
    assert [spec.name for spec in manifest.outputs] == ["logits", "probabilities", *(["classLabel"] if form == "coreml" else [])]
    assert manifest.class_labels == list("0123456789")
    assert (manifest.recipe_hash, manifest.checkpoint_sha256) == (recipe.hash, card.weights_sha256)
    assert manifest.test_accuracy == card.metrics["test_accuracy"]
    assert manifest.versions["torch"] == importlib.metadata.version("torch")
    assert len(manifest.notes) == 1  # the route, and nothing that went wrong
    assert manifest.notes[0].startswith("made by route ")
