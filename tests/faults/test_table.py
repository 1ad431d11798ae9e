"""Every fault of the table: it plants, or says why not, and what it plants is no no-op."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.conftest import largest_difference, outputs_of
from toolkit.artifact import GOLDEN, MANIFEST
from toolkit.checkpoint import Checkpoint, sha256_of
from toolkit.errors import ToolkitError
from toolkit.faults import FAULTS, NotApplicable, Planted
from toolkit.faults.fault import read_manifest
from toolkit.faults.origin import folded, relu_peaks, tensors
from toolkit.faults.plant_weights import saturated, through_bf16, through_four_bits, transpose_one_kernel, without_zero_point
from toolkit.faults.surgery import open_surgery
from toolkit.workspace import Workspace

NOT_IN_TINY = {"layers-exchanged", "strides-swapped", "residual-dropped", "residual-of-itself"}
NOT_IN = {
    "onnx-fp32": NOT_IN_TINY,
    "coreml-fp16": NOT_IN_TINY | {"precision-claimed", "weights-through-fp16"},
    "coreml-fp32": NOT_IN_TINY | {"fp16-overflow"},
    "coreai-fp32": set(),
}
NOT_IN_RESIDUAL = {"coreml-fp16": {"precision-claimed", "weights-through-fp16", "flatten-order"}, "onnx-fp32": {"flatten-order"}}
ACTIVATIONS = {"relu6-for-relu"}  # planted only where activations exceed 6, which training decides
SMALLEST = 1e-4  # of logits and probabilities


def planted_in(exports: Path, name: str, fault: str, checkpoint: Checkpoint, folder: Path) -> tuple[Path, Planted]:
    copy = Path(shutil.copytree(exports / name, folder / name))
    return copy, FAULTS[fault].plant(copy, checkpoint)


def differs(one: Path, other: Path, stage: str) -> bool:
    """Where the fault's stage says: in files, in what is promised, in the golden outputs, or in what is computed."""
    manifests = [json.loads((folder / MANIFEST).read_text(encoding="utf-8")) for folder in (one, other)]
    names = list(manifests[0]["files"])
    if stage == "golden":
        with np.load(one / GOLDEN) as mine, np.load(other / GOLDEN) as theirs:
            return any(mine[key].dtype != theirs[key].dtype or not np.array_equal(mine[key], theirs[key]) for key in mine)
    if stage in ("files", "contract"):
        changed = any(not (other / name).is_file() or sha256_of(one / name) != sha256_of(other / name) for name in names)
        return changed or manifests[0] != manifests[1]
    assert manifests[0] | {"files": {}} == manifests[1] | {"files": {}}  # a fault of the file leaves the rest of the manifest
    with np.errstate(all="ignore"):
        return largest_difference(outputs_of(one), outputs_of(other)) > SMALLEST


def check(workspace: Workspace, name: str, fault: str, folder: Path, not_applicable: set[str]) -> None:
    try:
        copy, planted = planted_in(workspace.exports, name, fault, Checkpoint.open(workspace.checkpoint), folder)
    except NotApplicable as error:
        reason = str(error)
        if fault not in not_applicable | ACTIVATIONS:
            pytest.fail(f"{fault} should apply to {name}: {reason}")
        return
    assert fault not in not_applicable
    assert planted.where
    assert planted.words
    assert differs(workspace.exports / name, copy, FAULTS[fault].stage)


def pairs(artifacts: Iterable[str], stages: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(fault, artifact), where the fault is one of the artifact's format."""
    faults = [fault for fault in FAULTS.values() if not stages or fault.stage in stages]
    return [(fault.id, name) for fault in faults for name in artifacts if name.split("-")[0] in fault.formats]


@pytest.mark.parametrize(("fault", "name"), pairs(NOT_IN))
def test_every_fault_changes_something_or_says_why_it_cannot(exported, tmp_path, fault, name):
    if not (exported.exports / name).is_dir():
        pytest.skip(f"there is no {name} here")
    check(exported, name, fault, tmp_path, NOT_IN[name])


@pytest.mark.parametrize(("fault", "name"), pairs(NOT_IN_RESIDUAL, ("layer", "output")))
def test_every_fault_of_layers_in_a_network_with_residuals(residual, tmp_path, fault, name):
    check(residual, name, fault, tmp_path, NOT_IN_RESIDUAL[name])


def test_the_table_is_as_wide_as_it_says():
    stages = Counter(fault.stage for fault in FAULTS.values())
    assert len(FAULTS) >= 70
    assert set(stages) == {"files", "contract", "preprocessing", "layer", "output", "golden"}
    assert all(fault.sentence and not fault.sentence.endswith(".") for fault in FAULTS.values())


@pytest.mark.parametrize("name", ["onnx-fp32", "coreml-fp16"])
def test_a_fault_lies_where_it_says(exported, tmp_path, name):
    """The named value is that of the layer whose weights differ, and only those differ."""
    copy, planted = planted_in(exported.exports, name, "weights-1-percent", Checkpoint.open(exported.checkpoint), tmp_path)
    layers = [open_surgery(folder, read_manifest(folder)).layers("conv") for folder in (exported.exports / name, copy)]
    changed = [mine.name for mine, theirs in zip(*layers, strict=True) if not np.array_equal(mine.weight(), theirs.weight())]
    assert changed == [planted.where]
    assert "network.3" in planted.words


def test_a_word_names_a_fault_only_as_a_whole():
    planted = Planted.at("relu", "the mean", "network.1")
    assert planted.words == ("the mean", "network.1")  # `relu` alone could be any sentence's
    assert planted.named_in("outputs match if The Mean is not subtracted")
    assert not planted.named_in("the meaning of network.10, relu")
    assert Planted.at("relu_1").named_in("op 3 (relu -> relu_1)")


def test_overflow_is_the_same_function_in_exact_arithmetic(exported, tmp_path):
    from toolkit.mil import ReferenceEvaluator

    copy, _ = planted_in(exported.exports, "coreml-fp16", "fp16-overflow", Checkpoint.open(exported.checkpoint), tmp_path)
    with np.load(copy / GOLDEN) as golden:
        images = golden["images"][:8]
    exact = [ReferenceEvaluator(path / "model.mlpackage", mode="exact") for path in (exported.exports / "coreml-fp16", copy)]
    mine, theirs = (each.predict_array(images)["logits"] for each in exact)
    np.testing.assert_allclose(mine, theirs, atol=2e-3)  # weights near the smallest fp16 numbers gain bits
    assert not np.isfinite(outputs_of(copy)["logits"]).all()


@pytest.mark.parametrize("name", ["onnx-fp32", "coreml-fp16"])
def test_a_folded_batch_norm_is_found_and_folded_again_alike(residual, name):
    """With its own epsilon the result is what the exporter wrote."""
    checkpoint = Checkpoint.open(residual.checkpoint)
    folder = residual.exports / name
    layers = open_surgery(folder, read_manifest(folder)).layers("conv")
    stored = tensors(checkpoint)
    modules = []
    for layer in layers:
        origin = folded(layer, checkpoint, stored)
        weight, bias = origin.refold(1e-5)
        close: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-3}
        np.testing.assert_allclose(layer.weight(), weight, **close)
        np.testing.assert_allclose(layer.bias(), bias, **close)
        modules.append(origin.module)
    assert sorted(modules) == sorted(
        ["network.0.0", "network.1.conv1", "network.1.conv2", "network.2.conv1", "network.2.conv2", "network.2.round.0"]
    )


def test_a_layer_that_came_from_nowhere_is_not_guessed(residual, exported):
    folder = exported.exports / "onnx-fp32"
    (layer, _) = open_surgery(folder, read_manifest(folder)).layers("conv")
    checkpoint = Checkpoint.open(residual.checkpoint)
    with pytest.raises(NotApplicable, match="no weight of the checkpoint became"):
        folded(layer, checkpoint, tensors(checkpoint))


def test_relu_peaks_are_in_the_order_of_the_calls(residual):
    images = np.full((2, 1, 28, 28), 128, np.float32)
    peaks = relu_peaks(Checkpoint.open(residual.checkpoint), images)
    folder = residual.exports / "onnx-fp32"
    assert len(peaks) == len(open_surgery(folder, read_manifest(folder)).layers("relu")) == 5


def test_number_formats():
    weight = np.linspace(-1, 3, 257)
    assert np.abs(through_bf16(weight) - weight).max() <= 2**-8 * 3
    assert through_bf16(np.array([1 + 2**-8, 1 + 3 * 2**-8])).tolist() == [1.0, 1 + 2**-6]  # ties to even
    assert len(np.unique(through_four_bits(weight))) <= 16
    assert without_zero_point(weight).min() >= 0
    assert np.abs(without_zero_point(weight) - 1 - weight).max() < 0.02  # off by the zero point, and by nothing else
    assert saturated(weight).max() == pytest.approx(3 / 4)
    kernels = np.zeros((2, 2, 3, 3))
    kernels[1, 0, 0, 2] = 1.0
    assert transpose_one_kernel(kernels)[1, 0, 2, 0] == 1.0
    with pytest.raises(NotApplicable, match="a kernel of 1×1"):
        transpose_one_kernel(np.ones((2, 2, 1, 1)))


def test_not_applicable_is_no_error_of_the_users():
    assert not issubclass(NotApplicable, ToolkitError)
