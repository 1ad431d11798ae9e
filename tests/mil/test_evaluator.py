"""The evaluator on a small residual network: against PyTorch in float64, batched against looped, and what it refuses."""

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.errors import ArtifactError, DataError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.ops.table import OPS

Packages = dict[str, Path]
Array = np.ndarray[Any, Any]


def picture(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels[0].astype(np.uint8))


def truth(network: torch.nn.Module, pictures: Array) -> Array:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(pictures).double())[0])


def assert_same_function(evaluator: ReferenceEvaluator, network: torch.nn.Module, pictures: Array, tolerance: float) -> None:
    """Logits within `tolerance` of float64 PyTorch's, relative to the largest."""
    expected = truth(network, pictures)
    found = evaluator.predict_array(pictures)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# exact is not exact to 1e-15: the file holds float32 weights, batch norm folded into the convolution
TOLERANCES = {("FLOAT32", "exact"): 1e-6, ("FLOAT32", "fp32"): 1e-5, ("FLOAT32", "as-typed"): 1e-5, ("FLOAT16", "as-typed"): 1e-2}


@pytest.mark.parametrize(("precision", "mode"), TOLERANCES)
def test_network_equals_pytorch_float64(precision: str, mode: str, packages: Packages, network: torch.nn.Module, pictures: Array) -> None:
    evaluator = ReferenceEvaluator(packages[f"{precision}-image"], mode)
    assert_same_function(evaluator, network, pictures, TOLERANCES[precision, mode])


@pytest.mark.parametrize("op", ["relu", "conv", "upsample_bilinear", "linear", "reduce_mean", "add"])
def test_a_planted_fault_of_a_thousandth_is_seen(
    op: str, packages: Packages, network: torch.nn.Module, pictures: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above can fail: each op in turn, wrong by 0.1 %, breaks it."""
    honest = OPS[op].function

    @functools.wraps(honest)
    def faulty(*args: Any, **kwargs: Any) -> Any:
        return honest(*args, **kwargs) * 1.001

    monkeypatch.setitem(OPS, op, replace(OPS[op], function=faulty))
    evaluator = ReferenceEvaluator(packages["FLOAT32-image"], "fp32")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same_function(evaluator, network, pictures, TOLERANCES["FLOAT32", "fp32"])


def test_classifier_returns_label_and_probabilities_as_coremltools_does(
    packages: Packages, network: torch.nn.Module, pictures: Array
) -> None:
    result = ReferenceEvaluator(packages["FLOAT32-image"]).predict({"image": picture(pictures[0])})
    expected = torch.from_numpy(truth(network, pictures[:1])).softmax(1)[0]
    assert set(result) == {"logits", "classLabel", "probabilities"}
    assert result["logits"].shape == (1, 3)
    assert result["logits"].dtype == np.float32
    assert result["classLabel"] == ["cat", "dog", "emu"][int(expected.argmax())]
    assert list(result["probabilities"]) == ["cat", "dog", "emu"]
    assert all(type(each) is float for each in result["probabilities"].values())
    np.testing.assert_allclose(list(result["probabilities"].values()), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["as-typed", "fp32", "exact"])
@pytest.mark.parametrize("package", ["FLOAT16-image", "FLOAT32-tensor"])
def test_batched_equals_one_by_one(package: str, mode: str, packages: Packages, pictures: Array) -> None:
    """Convolutions may sum in another order, so the last bits differ; an fp16 rounding can turn that into one ulp."""
    evaluator = ReferenceEvaluator(packages[package], mode)
    assert evaluator.why_not_batched is None
    batched, looped = evaluator.predict_array(pictures, batch_size=4), evaluator.predict_array(pictures, batch_size=1)
    rounding = package.startswith("FLOAT16") and mode == "as-typed"
    tolerance = 2e-3 if rounding else 1e-12 if mode == "exact" else 1e-5
    np.testing.assert_allclose(batched["logits"], looped["logits"], rtol=0, atol=tolerance * np.abs(looped["logits"]).max())
    np.testing.assert_allclose(batched["probabilities"], looped["probabilities"], rtol=0, atol=tolerance)
    assert batched["classLabel"].tolist() == looped["classLabel"].tolist()
    assert (batched["logits"].argmax(1) == looped["logits"].argmax(1)).all()


def test_predict_array_equals_predict(packages: Packages, pictures: Array) -> None:
    evaluator = ReferenceEvaluator(packages["FLOAT32-image"])
    stacked = evaluator.predict_array(pictures, batch_size=1)
    single = evaluator.predict([{"image": picture(each)} for each in pictures])
    np.testing.assert_array_equal(stacked["logits"], np.concatenate([each["logits"] for each in single]))
    assert stacked["classLabel"].tolist() == [each["classLabel"] for each in single]
    assert stacked["probabilities"].tolist() == [list(each["probabilities"].values()) for each in single]
    assert evaluator.class_labels == ("cat", "dog", "emu")


MIXES: dict[str, Callable[[Any, Any], Any]] = {
    "softmax over the batch": lambda mb, x: mb.softmax(x=x, axis=0),
    "mean over the batch": lambda mb, x: mb.reduce_mean(x=x, axes=[0, 2], keep_dims=True),
    "batch moved away": lambda mb, x: mb.transpose(x=x, perm=[1, 0, 2]),
    "batch folded into rows": lambda mb, x: mb.reshape(x=x, shape=[3, 4]),
    "batch grows": lambda mb, x: mb.concat(values=[x, x], axis=0),
    "constant with its own batch": lambda mb, x: mb.add(x=x, y=np.ones((2, 3, 4), np.float32)),
    "new axis in front": lambda mb, x: mb.expand_dims(x=x, axes=[0]),
    "batch squeezed": lambda mb, x: mb.squeeze(x=x),
    "rows contracted": lambda mb, x: mb.matmul(x=mb.reshape(x=x, shape=[1, 12]), y=np.ones((1, 5), np.float32), transpose_x=True),
}


@pytest.mark.parametrize("mix", MIXES)
def test_programs_that_mix_the_batch_run_one_by_one(mix: str, build: Callable[..., Path]) -> None:
    from coremltools.converters.mil import Builder as mb

    evaluator = ReferenceEvaluator(build(lambda x: MIXES[mix](mb, x), (1, 3, 4)), "exact")
    assert evaluator.why_not_batched is not None
    x = np.random.default_rng(0).normal(size=(5, 1, 3, 4))
    (stacked,) = evaluator.predict_array(x[:, 0]).values()
    singles = [next(iter(evaluator.predict({"x": each}).values())) for each in x]
    np.testing.assert_array_equal(stacked, np.concatenate([each if each.shape[0] == 1 else each[None] for each in singles]))


def test_intermediates_come_in_their_declared_type(packages: Packages, pictures: Array) -> None:
    evaluator = ReferenceEvaluator(packages["FLOAT16-image"])
    everything = evaluator.predict({"image": picture(pictures[0])}, intermediates=True)
    half = {name for name, value in everything.items() if getattr(value, "dtype", None) == np.float16}
    assert len(half) > 10
    assert set(everything) > {"logits", "classLabel", "probabilities", "image"}
    one = min(half)
    chosen = evaluator.predict({"image": picture(pictures[0])}, intermediates=[one])
    np.testing.assert_array_equal(chosen[one], everything[one])
    with pytest.raises(DataError, match="computes no nonsense"):
        evaluator.predict({"image": picture(pictures[0])}, intermediates=["nonsense"])


WRONG_PICTURES: dict[str, tuple[Any, str]] = {
    "mode": (Image.new("RGB", (14, 14)), "mode L, not RGB"),
    "size": (Image.new("L", (28, 14)), "Nothing is resized"),
    "array": (np.zeros((1, 1, 14, 14)), "takes a PIL picture, not ndarray"),
}


@pytest.mark.parametrize("case", WRONG_PICTURES)
def test_wrong_pictures_are_refused(case: str, packages: Packages) -> None:
    value, message = WRONG_PICTURES[case]
    with pytest.raises(DataError, match=message):
        ReferenceEvaluator(packages["FLOAT32-image"]).predict({"image": value})


def test_wrong_arrays_are_refused(packages: Packages) -> None:
    tensor, image = ReferenceEvaluator(packages["FLOAT32-tensor"]), ReferenceEvaluator(packages["FLOAT32-image"])
    for inputs, message in (
        ({"image": np.zeros((1, 14, 14))}, "the model takes"),
        ({"image": np.array(["a"])}, "not numbers"),
        ({}, "give exactly these"),
        ({"image": np.zeros((1, 1, 14, 14)), "more": 0}, "give exactly these"),
    ):
        with pytest.raises(DataError, match=message):
            tensor.predict(inputs)
    with pytest.raises(DataError, match="with N at least 1"):
        tensor.predict_array(np.zeros((0, 1, 14, 14)))
    for scaled in (np.full((2, 1, 14, 14), 0.5), np.full((2, 1, 14, 14), 256), np.full((2, 1, 14, 14), np.nan)):
        with pytest.raises(DataError, match=r"whole numbers 0\.\.255"):
            image.predict_array(scaled)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colour_planes_follow_the_colour_space(order: str, build: Callable[..., Path]) -> None:
    """The pixel (1, 2, 3) arrives as planes 1, 2, 3 or 3, 2, 1."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.proto import FeatureTypes_pb2, Model_pb2

    path = build(lambda x: mb.relu(x=x), (1, 3, 2, 2))
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = Model_pb2.Model.FromString(file.read_bytes())
    spec.description.input[0].type.imageType.width = spec.description.input[0].type.imageType.height = 2
    spec.description.input[0].type.imageType.colorSpace = FeatureTypes_pb2.ImageFeatureType.ColorSpace.Value(order)
    file.write_bytes(spec.SerializeToString())
    (planes,) = ReferenceEvaluator(path).predict({"x": Image.new("RGB", (2, 2), (1, 2, 3))}).values()
    assert planes[0, :, 0, 0].tolist() == ([1, 2, 3] if order == "RGB" else [3, 2, 1])


def test_threads_are_put_back_and_change_nothing_but_last_bits(packages: Packages, pictures: Array) -> None:
    before = torch.get_num_threads()
    one = ReferenceEvaluator(packages["FLOAT32-image"], threads=1).predict_array(pictures)["logits"]
    assert torch.get_num_threads() == before
    np.testing.assert_allclose(one, ReferenceEvaluator(packages["FLOAT32-image"]).predict_array(pictures)["logits"], rtol=1e-4)


def test_unknown_op_says_which_where_and_what_to_do(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from coremltools.converters.mil import Builder as mb

    monkeypatch.delitem(OPS, "erf")

    path = build(lambda x: mb.erf(x=mb.relu(x=x)), (3,))
    with pytest.raises(ArtifactError, match=r"op 1 \(erf.*opset CoreML7.*'erf'.*OPS in toolkit/mil/ops/table\.py"):
        ReferenceEvaluator(path)


def test_a_parameter_nobody_specified_is_refused(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from coremltools.converters.mil import Builder as mb

    path = build(lambda x: mb.softmax(x=x, axis=0), (3,))

    def without_axis(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, 0)

    monkeypatch.setitem(OPS, "softmax", replace(OPS["softmax"], function=without_axis))
    with pytest.raises(ArtifactError, match="does not take: axis"):
        ReferenceEvaluator(path)


def test_importing_the_room_is_light_and_importing_coremltools_is_quiet() -> None:
    """No torch before it is needed, and not one line of coremltools' about what Linux lacks; real warnings still show."""
    script = (
        "import sys, toolkit.mil; assert not {'torch', 'numpy', 'coremltools'} & set(sys.modules)\n"
        "import logging; from toolkit.mil._coremltools import import_coremltools; import_coremltools()\n"
        "logging.getLogger('coremltools').warning('a real warning')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.strip() == "a real warning"
