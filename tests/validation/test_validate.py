"""Validation: nothing changed passes, everything changed is found, and what could not be compared is never a pass."""

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from toolkit.artifact import MANIFEST
from toolkit.checkpoint import Checkpoint
from toolkit.cli import main
from toolkit.data import load
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.networks import from_checkpoint
from toolkit.recipe import Recipe
from toolkit.runtimes import RUNTIMES
from toolkit.training import train
from toolkit.validation import REPORT, ValidationResult, validate
from toolkit.workspace import Workspace


def sign(folder: Path) -> None:
    """Makes the manifest fit the files again: what a fault in the exporter, and not in the copying, looks like."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
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


def mirrored(weights: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return weights[::-1]


def row(result: ValidationResult, artifact: str, runtime: str) -> Any:
    (found,) = [each for each in result.rows if (each.artifact, each.runtime) == (artifact, runtime)]
    return found


def cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)  # type: ignore[arg-type]


def path_of(workspace: Workspace) -> str:
    return f"{workspace.folder}{os.sep}"


@pytest.fixture(scope="module")
def result(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> ValidationResult:
    """Everything through everything, once."""
    import shutil

    folder = tmp_path_factory.mktemp("validated") / "tiny"
    shutil.copytree(exported.folder, folder)
    return validate(Workspace(folder, folder / "recipe.toml"))


def test_every_pair_that_can_be_compared_has_a_row_and_the_rest_a_reason(result, exported):
    formats = {path.name: path.name.split("-")[0] for path in exported.exports.iterdir()} | {"torch": "torch"}
    pairs = {(name, runtime.id) for runtime in RUNTIMES.values() for name, form in formats.items() if form == runtime.reads}
    here = {pair for pair in pairs if RUNTIMES[pair[1]].why_not() is None and pair[1] != "null"}
    assert {(each.artifact, each.runtime) for each in result.rows} == here
    reasons = {each.runtime: each.reason for each in result.unavailable}
    assert set(reasons) == set(RUNTIMES) - {pair[1] for pair in here} - {"null"}
    assert all(len(reason) > 10 for reason in reasons.values())


def test_an_unspoilt_export_passes(result):
    assert result.passed
    assert [each.breaches for each in result.rows] == [[]] * len(result.rows)


def test_fp32_changes_no_prediction(result):
    rows = [each for each in result.rows if each.precision == "fp32"]
    assert len(rows) >= 4
    for each in rows:
        assert (each.changed, each.accuracy) == ([], each.reference_accuracy)
        assert each.max_abs_logit < 1e-3


def test_figures_are_those_of_an_independent_computation(result, exported):
    """PyTorch by hand, and ONNX Runtime called directly."""
    import onnxruntime

    data = load("digits")
    model = from_checkpoint(Checkpoint.open(exported.checkpoint))
    with torch.inference_mode():
        reference = model(data.test_images.float()).numpy()
    session = onnxruntime.InferenceSession(exported.exports / "onnx-fp32" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": data.test_images.numpy().astype(np.float32)})
    found = row(result, "onnx-fp32", "onnxruntime-cpu")
    assert found.images == 360
    assert found.accuracy == pytest.approx((logits.argmax(1) == data.test_labels.numpy()).mean())
    assert found.max_abs_logit == pytest.approx(np.abs(logits - reference).max(), abs=1e-4)
    assert found.predictions == logits.argmax(1).tolist()
    assert result.reference_predictions == reference.argmax(1).tolist()
    assert result.test_labels == data.test_labels.tolist()
    assert result.test_indices == list(range(360))
    assert row(result, "torch", "torch-cpu").accuracy == Checkpoint.open(exported.checkpoint).card.metrics["test_accuracy"]


def test_pytorch_itself_is_the_reference_and_has_no_gate(result):
    reference = row(result, "torch", "torch-cpu")
    assert (reference.allowed_changed, reference.allowed_abs_logit, reference.max_abs_logit) == (None, None, 0)


def test_slow_runtimes_see_a_stratified_subset_and_say_so(result):
    found = row(result, "onnx-fp32", "onnx-reference")
    assert found.images == len(found.predictions) == RUNTIMES["onnx-reference"].most_images == 100
    data = load("digits")
    chosen, counts = [], dict.fromkeys(range(10), 0)
    for index, label in enumerate(data.test_labels.tolist()):  # ten of each class, the first ones: the plain way to say it
        if counts[label] < 10:
            counts[label] += 1
            chosen.append(index)
    reference = np.array(result.reference_predictions)[chosen]
    assert found.reference_accuracy == pytest.approx((reference == data.test_labels.numpy()[chosen]).mean())
    assert found.predictions == reference.tolist()  # fp32: nothing changes


def test_limit_is_evenly_over_the_classes(exported_copy):
    found = validate(exported_copy, runtimes=["onnxruntime-cpu"], limit=50)
    assert (found.limit, found.test_images, len(found.test_indices)) == (50, 360, 50)
    assert np.bincount(found.test_labels).tolist() == [5] * 10
    assert found.rows[0].images == 50
    data = load("digits")
    assert found.test_labels == data.test_labels[torch.tensor(found.test_indices)].tolist()


@pytest.mark.parametrize(("images", "allowed"), [(360, 3), (100, 1), (99, 0)])
def test_the_allowance_is_for_each_10000_images_rounded_down(exported_copy, images, allowed):
    """100 of 10,000: 3.6 of 360 is 3."""
    lenient = exported_copy.recipe.read_text(encoding="utf-8") + "[gates.fp16]\nmax_changed = 100\nmax_abs_logit = 0.1\n"
    _rewrite_recipe(exported_copy, lenient)
    found = validate(exported_copy, runtimes=["coreml-reference"], artifacts=["coreml-fp16"], limit=images)
    assert found.rows[0].allowed_changed == allowed


def _rewrite_recipe(workspace: Workspace, text: str) -> None:
    """Another gate for the same weights: recipe.toml, and the recipe inside the checkpoint."""
    workspace.recipe.write_text(text, encoding="utf-8")
    recipe = Recipe.read(workspace.recipe)
    path = workspace.checkpoint / "checkpoint.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(card | {"recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash}), encoding="utf-8")


def test_a_changed_onnx_weight_is_a_breach(exported_copy, capsys):
    spoil_onnx(exported_copy, lambda kernels: kernels * np.where(np.arange(16) == 3, -1, 1)[:, None, None, None].astype(np.float32))
    found = validate(exported_copy, runtimes=["onnxruntime-cpu", "onnx-reference"])
    assert not found.passed
    for each in found.rows:
        assert each.changed
        assert f"{len(each.changed)} predictions changed, allowed 0 of {each.images}" in each.breaches
        assert any(breach.startswith("max |Δ logit| ") and breach.endswith("allowed 0.001") for breach in each.breaches)
    (whole,) = [each for each in found.rows if each.images == 360]
    assert whole.changed == [index for index in range(360) if found.reference_predictions[index] != whole.predictions[index]]
    assert cli("validate", path_of(exported_copy), "--runtime", "onnxruntime-cpu") == 1
    assert "onnx-fp32" in capsys.readouterr().out  # the table


def test_a_small_change_breaches_by_its_logits_alone(exported_copy):
    """One weight of 144, off by 1 %: no prediction need change."""

    def change(kernels: Any) -> Any:
        kernels.flat[np.abs(kernels).argmax()] *= 1.01
        return kernels

    spoil_onnx(exported_copy, change)
    found = validate(exported_copy, runtimes=["onnxruntime-cpu"])
    assert not found.passed
    assert 1e-3 < found.rows[0].max_abs_logit < 1


@pytest.mark.parametrize("name", ["coreml-fp16", "coreml-fp32"])
def test_changed_core_ml_weights_are_a_breach(exported_copy, name):
    spoil_coreml(exported_copy, name, mirrored)
    found = validate(exported_copy, runtimes=["coreml-reference"])
    assert not found.passed
    other = {"coreml-fp16": "coreml-fp32", "coreml-fp32": "coreml-fp16"}[name]
    assert row(found, name, "coreml-reference").breaches
    assert row(found, other, "coreml-reference").breaches == []
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-reference", "--artifact", other) == 0
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-reference") == 1


def test_a_file_that_was_changed_and_not_signed_is_refused(exported_copy, capsys):
    (path,) = (exported_copy.exports / "coreml-fp16").rglob("weight.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ArtifactError, match=r"weight\.bin was changed after the export: sha256 expected"):
        validate(exported_copy)
    assert cli("validate", path_of(exported_copy)) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_a_breach(exported_copy, bad):
    """A NaN passes every comparison that asks whether it is too large."""

    def spoil(kernels: Any) -> Any:
        kernels[0, 0, 0, 0] = bad
        return kernels

    spoil_onnx(exported_copy, spoil)
    with np.errstate(invalid="ignore"):
        found = validate(exported_copy, runtimes=["onnxruntime-cpu"])
    assert not found.passed
    assert any("logits are NaN or Inf" in breach for breach in found.rows[0].breaches)
    text = (exported_copy.reports / REPORT).read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = ValidationResult.model_validate_json(text)
    assert not again.passed
    assert not math.isfinite(again.rows[0].max_abs_logit)


def test_the_report_is_the_result(exported_copy):
    found = validate(exported_copy, runtimes=["onnxruntime-cpu", "coreml-cpu"], limit=20)
    assert ValidationResult.model_validate_json((exported_copy.reports / REPORT).read_bytes()) == found
    assert not [path for path in exported_copy.reports.iterdir() if path.name.startswith(".")]  # nothing temporary is left


def test_the_reference_alone_proves_nothing(exported_copy):
    """Nothing that was exported was compared: not passed, although nothing breached."""
    found = validate(exported_copy, runtimes=["torch-cpu"])
    assert [each.breaches for each in found.rows] == [[]]
    assert not found.passed
    assert cli("validate", path_of(exported_copy), "--runtime", "torch-cpu") == 1


def test_without_artifacts_nothing_passes_and_the_way_on_is_said(trained, tmp_path):
    import shutil

    shutil.copytree(trained.folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("exports"))
    found = validate(Workspace(tmp_path / "tiny", tmp_path / "tiny" / "recipe.toml"))
    assert not found.passed
    reasons = {each.runtime: each.reason for each in found.unavailable}
    assert reasons["onnxruntime-cpu"] == "there is no onnx artifact: toolkit export --format onnx"


def test_what_is_not_here_is_listed_and_not_counted(exported_copy, monkeypatch):
    monkeypatch.setattr("toolkit.runtimes.coreml.why_not", lambda compute_unit: "there is no Mac")
    found = validate(exported_copy, runtimes=["torch-cpu", "coreml-all"])
    assert [(each.artifact, each.runtime, each.reason) for each in found.unavailable] == [
        ("coreml-fp16", "coreml-all", "there is no Mac"),
        ("coreml-fp32", "coreml-all", "there is no Mac"),
    ]
    assert not found.passed
    with pytest.raises(ArtifactError, match=r"nothing could be validated here:\n  coreml-all: there is no Mac"):
        validate(exported_copy, runtimes=["coreml-all"])
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-all") == 2


def test_null_is_compared_only_when_named_and_then_fails(exported_copy):
    found = validate(exported_copy, runtimes=["null"])
    assert found.rows[0].breaches
    assert not found.passed


def test_unknown_names_are_answered_with_the_known_ones(exported_copy):
    with pytest.raises(ToolkitError, match="there is no runtime 'tensorrt'; there are torch-cpu"):
        validate(exported_copy, runtimes=["tensorrt"])
    with pytest.raises(ArtifactError, match=r"there is no artifact 'coreml-int4' in .*; there are: .*coreml-fp16, coreml-fp32, onnx-fp32"):
        validate(exported_copy, artifacts=["coreml-int4"])


def test_only_the_named_artifact_is_compared(exported_copy):
    found = validate(exported_copy, runtimes=["torch-cpu", "coreml-reference"], artifacts=["coreml-fp32"])
    assert [each.artifact for each in found.rows] == ["torch", "coreml-fp32"]


def test_artifacts_of_another_checkpoint_are_refused(exported_copy):
    train(exported_copy, Recipe.read(exported_copy.recipe, ["train.epochs=1", "train.subset=64", "train.seed=5"]), device="cpu")
    with pytest.raises(ArtifactError, match=r"was made from another checkpoint .* Export again: toolkit export --format"):
        validate(exported_copy)


def test_logits_in_another_shape_are_an_error(exported_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    real = OnnxSession.__call__
    monkeypatch.setattr(OnnxSession, "__call__", lambda self, batch: {"logits": real(self, batch)["logits"][:, :9]})
    with pytest.raises(ArtifactError, match=r"onnx-fp32 on onnxruntime-cpu gave logits \(250, 9\) for 250 images"):
        validate(exported_copy, runtimes=["onnxruntime-cpu"])


def test_a_session_is_closed_even_when_it_fails(exported_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    closed = []
    monkeypatch.setattr(OnnxSession, "close", lambda self: closed.append(self))

    def fail(self: Any, batch: Any) -> Any:
        raise ArtifactError("no")

    monkeypatch.setattr(OnnxSession, "__call__", fail)
    with pytest.raises(ArtifactError, match="no"):
        validate(exported_copy, runtimes=["onnxruntime-cpu"])
    assert len(closed) == 1


def test_a_device_that_computes_wrongly_is_a_breach(exported_copy, monkeypatch):
    """torch-mps over a stand-in whose answers are off: PyTorch on another device is held to the gate as well."""
    from toolkit import devices
    from toolkit.runtimes.torch import TorchSession

    monkeypatch.setitem(devices.BACKENDS, "mps", replace(devices.BACKENDS["mps"], torch_device="cpu", why_not=lambda: None))
    found = validate(exported_copy, runtimes=["torch-mps"], limit=50)
    assert found.passed
    assert found.rows[0].allowed_changed == 0
    calls, real = [], TorchSession.__call__

    def off(self: Any, batch: Any) -> Any:
        calls.append(1)
        answer = real(self, batch)
        return {**answer, "logits": answer["logits"] + (0.01 if len(calls) > 1 else 0)}  # the first call is the reference's

    monkeypatch.setattr(TorchSession, "__call__", off)
    found = validate(exported_copy, runtimes=["torch-mps"], limit=50)
    assert [breach.startswith("max |Δ logit| 0.01") for breach in found.rows[0].breaches] == [True]
