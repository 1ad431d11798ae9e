"""Validation: nothing changed passes, everything changed is found, and what could not be compared is never a pass."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.validation.conftest import cli, failed, path_of, row, spoil_coreml, spoil_onnx
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.networks import from_checkpoint
from toolkit.recipe import Recipe
from toolkit.runtimes import RUNTIMES
from toolkit.training import train
from toolkit.validation import REPORT, ValidationResult, validate
from toolkit.workspace import Workspace

pytestmark = pytest.mark.usefixtures("in_process")


def mirrored(weights: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return weights[::-1]


@pytest.fixture(scope="module")
def result(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> ValidationResult:
    """Everything through everything, once."""
    import shutil

    folder = tmp_path_factory.mktemp("validated") / "tiny"
    shutil.copytree(exported.folder, folder)
    return validate(Workspace(folder, folder / "recipe.toml"), isolate=False)


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
    assert result.breaches == []
    assert {check.level for check in result.checks} == {"files", "golden", "contract", "preprocessing", "test set"}


def test_fp32_changes_no_prediction(result):
    rows = [each for each in result.rows if each.precision == "fp32"]
    assert len(rows) >= 4
    for each in rows:
        assert (each.changed, each.figures.accuracy) == ({}, each.figures.reference_accuracy)
        assert each.figures.max_abs_logit < 1e-3


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
    assert found.figures.accuracy == pytest.approx((logits.argmax(1) == data.test_labels.numpy()).mean())
    assert found.figures.max_abs_logit == pytest.approx(np.abs(logits - reference).max(), abs=1e-4)
    assert result.reference_predictions == reference.argmax(1).tolist()
    assert result.test_labels == data.test_labels.tolist()
    assert result.test_indices == list(range(360))
    assert row(result, "torch", "torch-cpu").figures.accuracy == Checkpoint.open(exported.checkpoint).card.metrics["test_accuracy"]


def test_pytorch_itself_is_the_reference_and_has_no_gate(result):
    reference = row(result, "torch", "torch-cpu")
    assert (reference.allowed_changed, reference.allowed_abs_logit, reference.figures.max_abs_logit) == (None, None, 0)


def test_slow_runtimes_see_a_stratified_subset_and_say_so(result):
    found = row(result, "onnx-fp32", "onnx-reference")
    assert found.images == len(found.indices) == RUNTIMES["onnx-reference"].most_images == 100
    data = load("digits")
    chosen, counts = [], dict.fromkeys(range(10), 0)
    for index, label in enumerate(data.test_labels.tolist()):  # ten of each class, the first ones: the plain way to say it
        if counts[label] < 10:
            counts[label] += 1
            chosen.append(index)
    assert found.indices == chosen
    reference = np.array(result.reference_predictions)[chosen]
    assert found.figures.reference_accuracy == pytest.approx((reference == data.test_labels.numpy()[chosen]).mean())
    assert found.changed == {}  # fp32: nothing changes


def test_limit_is_evenly_over_the_classes(quick, exported_copy):
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], limit=50)
    assert (found.limit, found.test_images, len(found.test_indices)) == (50, 360, 50)
    assert np.bincount(found.test_labels).tolist() == [5] * 10
    assert found.rows[0].images == 50
    data = load("digits")
    assert found.test_labels == data.test_labels[torch.tensor(found.test_indices)].tolist()


@pytest.mark.parametrize(("images", "allowed"), [(360, 4), (100, 1), (99, 1)])
def test_the_allowance_is_for_each_10000_images_rounded_up(quick, exported_copy, images, allowed):
    """100 of 10,000: 3.6 of 360 is 4."""
    lenient = exported_copy.recipe.read_text(encoding="utf-8") + "[gates.fp16]\nmax_changed = 100\nmax_abs_logit = 0.1\n"
    exported_copy.recipe.write_text(lenient, encoding="utf-8")
    found = quick(exported_copy, runtimes=["coreml-reference"], artifacts=["coreml-fp16"], limit=images)
    assert found.rows[0].allowed_changed == allowed


def test_a_changed_onnx_weight_is_a_breach(quick, exported_copy, capsys):
    spoil_onnx(exported_copy, lambda kernels: kernels * np.where(np.arange(16) == 3, -1, 1)[:, None, None, None].astype(np.float32))
    found = quick(exported_copy, runtimes=["onnxruntime-cpu", "onnx-reference"])
    assert not found.passed
    for each in found.rows:
        assert each.changed
        assert all(found.reference_predictions[index] != new for index, new in each.changed.items())
        names = {check.name for check in found.breaches if check.runtime == each.runtime}
        assert {"golden logits", "golden logits, as a whole", "only close calls change", "logits"} <= names
    assert cli("validate", path_of(exported_copy), "--runtime", "onnxruntime-cpu") == 1
    assert "onnx-fp32" in capsys.readouterr().out  # the table


def test_a_small_change_breaches_by_its_logits_alone(quick, exported_copy):
    """One weight of 144, off by 1 %: no prediction need change."""

    def change(kernels: Any) -> Any:
        kernels.flat[np.abs(kernels).argmax()] *= 1.01
        return kernels

    spoil_onnx(exported_copy, change)
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"])
    assert not found.passed
    assert 1e-3 < found.rows[0].figures.max_abs_logit < 1
    assert "logits" in failed(found)


@pytest.mark.parametrize("name", ["coreml-fp16", "coreml-fp32"])
def test_changed_core_ml_weights_are_a_breach(quick, exported_copy, name):
    spoil_coreml(exported_copy, name, mirrored)
    found = quick(exported_copy, runtimes=["coreml-reference"])
    assert not found.passed
    other = {"coreml-fp16": "coreml-fp32", "coreml-fp32": "coreml-fp16"}[name]
    assert {check.artifact for check in found.breaches} == {name}
    assert row(found, name, "coreml-reference").changed
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-reference", "--artifact", other) == 0
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-reference") == 1


def test_a_file_that_was_changed_and_not_signed_fails_and_the_others_are_still_judged(quick, exported_copy, capsys):
    (path,) = (exported_copy.exports / "coreml-fp16").rglob("weight.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    found = quick(exported_copy, runtimes=["coreml-reference", "onnxruntime-cpu"])
    (check,) = found.breaches
    assert (check.level, check.artifact, check.name) == ("files", "coreml-fp16", "files are those of the export")
    assert "weight.bin was changed after the export: sha256 expected" in check.detail
    assert [each.artifact for each in found.rows] == ["coreml-fp32", "onnx-fp32"]
    assert cli("validate", path_of(exported_copy), "--runtime", "onnxruntime-cpu") == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_a_breach(quick, exported_copy, bad):
    """A NaN passes every comparison that asks whether it is too large."""

    def spoil(kernels: Any) -> Any:
        kernels[0, 0, 0, 0] = bad
        return kernels

    spoil_onnx(exported_copy, spoil)
    with np.errstate(invalid="ignore"):
        found = quick(exported_copy, runtimes=["onnxruntime-cpu"])
    assert not found.passed
    assert "all logits are numbers" in failed(found)
    assert "give NaN or Inf" in failed(found)["golden logits"].detail
    text = (exported_copy.reports / REPORT).read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = ValidationResult.model_validate_json(text)
    assert not again.passed
    assert not math.isfinite(again.rows[0].figures.max_abs_logit)


def test_the_report_is_the_result(quick, exported_copy):
    found = quick(exported_copy, runtimes=["onnxruntime-cpu", "coreml-cpu"], limit=20)
    assert ValidationResult.model_validate_json((exported_copy.reports / REPORT).read_bytes()) == found
    assert not [path for path in exported_copy.reports.iterdir() if path.name.startswith(".")]  # nothing temporary is left


def test_the_reference_alone_proves_nothing(quick, exported_copy):
    """Nothing that was exported was compared: not passed, although nothing breached."""
    found = quick(exported_copy, runtimes=["torch-cpu"])
    assert found.breaches == []
    assert not found.passed
    assert cli("validate", path_of(exported_copy), "--runtime", "torch-cpu") == 1


def test_without_artifacts_nothing_passes_and_the_way_on_is_said(trained, tmp_path):
    import shutil

    shutil.copytree(trained.folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("exports"))
    found = validate(Workspace(tmp_path / "tiny", tmp_path / "tiny" / "recipe.toml"), isolate=False)
    assert not found.passed
    reasons = {each.runtime: each.reason for each in found.unavailable}
    assert reasons["onnxruntime-cpu"] == "there is no onnx artifact: toolkit export --format onnx"


def test_what_is_not_here_is_listed_and_not_counted(quick, exported_copy, monkeypatch):
    monkeypatch.setattr("toolkit.runtimes.coreml.why_not", lambda compute_unit: "there is no Mac")
    found = quick(exported_copy, cache=False, runtimes=["torch-cpu", "coreml-all"])
    assert [(each.artifact, each.runtime, each.reason) for each in found.unavailable] == [
        ("coreml-fp16", "coreml-all", "there is no Mac"),
        ("coreml-fp32", "coreml-all", "there is no Mac"),
    ]
    assert not found.passed
    with pytest.raises(ArtifactError, match=r"nothing could be validated here:\n  coreml-all: there is no Mac"):
        quick(exported_copy, cache=False, runtimes=["coreml-all"])
    assert cli("validate", path_of(exported_copy), "--runtime", "coreml-all") == 2


def test_null_is_compared_only_when_named_and_then_fails(quick, exported_copy):
    found = quick(exported_copy, runtimes=["null"])
    assert "all images give the same logits" in failed(found)["golden logits"].detail
    assert not found.passed


def test_unknown_names_are_answered_with_the_known_ones(quick, exported_copy):
    with pytest.raises(ToolkitError, match="there is no runtime 'tensorrt'; there are torch-cpu"):
        quick(exported_copy, runtimes=["tensorrt"])
    with pytest.raises(ArtifactError, match=r"there is no artifact 'coreml-int4' in .*; there are: .*coreml-fp16, coreml-fp32, onnx-fp32"):
        quick(exported_copy, artifacts=["coreml-int4"])


def test_only_the_named_artifact_is_compared(quick, exported_copy):
    found = quick(exported_copy, runtimes=["torch-cpu", "coreml-reference"], artifacts=["coreml-fp32"])
    assert [each.artifact for each in found.rows] == ["torch", "coreml-fp32"]


def test_artifacts_of_another_checkpoint_fail_and_say_so(quick, exported_copy):
    recipe = Recipe.read(exported_copy.recipe, ["train.epochs=1", "train.subset=64", "train.seed=5"])
    train(exported_copy, recipe, device="cpu", restart=True)
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"])
    check = failed(found)["made from this checkpoint"]
    assert (check.level, check.detail) == ("files", "Export again: toolkit export --format onnx")
    assert "golden outputs are those of the checkpoint" in failed(found)


def test_logits_in_another_shape_are_a_row_that_did_not_run(quick, exported_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    real = OnnxSession.__call__
    monkeypatch.setattr(OnnxSession, "__call__", lambda self, batch: {**real(self, batch), "logits": real(self, batch)["logits"][:, :9]})
    found = quick(exported_copy, cache=False, runtimes=["onnxruntime-cpu"])
    assert found.rows == []
    assert (
        failed(found)["runs to the end"].detail == "onnx-fp32 on onnxruntime-cpu gave logits (64, 9) for 64 images; (64, 10) are expected"
    )


def test_a_session_is_closed_even_when_it_fails(quick, exported_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    closed = []
    monkeypatch.setattr(OnnxSession, "close", lambda self: closed.append(self))

    def fail(self: Any, batch: Any) -> Any:
        raise ArtifactError("no")

    monkeypatch.setattr(OnnxSession, "__call__", fail)
    assert failed(quick(exported_copy, cache=False, runtimes=["onnxruntime-cpu"]))["runs to the end"].detail == "no"
    assert len(closed) == 1


def test_a_device_that_computes_wrongly_is_a_breach(quick, exported_copy, monkeypatch):
    """torch-mps over a stand-in whose answers are off: PyTorch on another device is held to the gate as well."""
    from toolkit import devices
    from toolkit.runtimes.torch import TorchSession

    monkeypatch.setitem(devices.BACKENDS, "mps", replace(devices.BACKENDS["mps"], torch_device="cpu", why_not=lambda: None))
    found = quick(exported_copy, cache=False, runtimes=["torch-mps"], limit=50)
    assert (found.breaches, found.passed) == ([], False)  # good, and no proof of what ships
    assert found.rows[0].allowed_changed is None
    real = TorchSession.__init__

    def off(self: Any, artifact: Any, torch_device: str, *more: Any) -> None:
        real(self, artifact, torch_device, *more)
        if len(made) % 2:  # the reference comes first
            self.model.classifier.network[-1].bias.data += 0.01
        made.append(self)

    made: list[Any] = []
    monkeypatch.setattr(TorchSession, "__init__", off)
    found = quick(exported_copy, cache=False, runtimes=["torch-mps"], limit=50)
    assert failed(found)["logits"].figure.startswith("max |Δ logit| 0.01")
    assert "the bias of the last layer" in failed(found)["golden logits"].detail


def test_apples_runtime_is_compared_with_the_evaluator_where_both_run(quick, exported_copy, fake_macos):
    found = quick(exported_copy, runtimes=["coreml-cpu", "coreml-reference"], artifacts=["coreml-fp16"], limit=20)
    (check,) = [each for each in found.checks if each.name == "agrees with the reference evaluator"]
    assert (check.runtime, check.passed) == ("coreml-cpu", True)
    assert found.passed
    assert len(fake_macos) > 20  # coremltools' MLModel was really asked


def test_apples_runtime_that_computes_something_else_is_found(quick, exported_copy, fake_macos, monkeypatch):
    from toolkit.runtimes.coreml import CoreMLSession

    real = CoreMLSession.__call__
    monkeypatch.setattr(
        CoreMLSession, "__call__", lambda self, batch: {**real(self, batch), "logits": real(self, batch)["logits"][:, ::-1]}
    )
    found = quick(exported_copy, cache=False, runtimes=["coreml-cpu", "coreml-reference"], artifacts=["coreml-fp16"], limit=20)
    assert "agrees with the reference evaluator" in failed(found)
    assert "labels are swapped" in failed(found)["golden logits"].detail


@pytest.mark.parametrize(("levels", "code"), [((), 1), (("golden",), 1), (("files",), 0), (("files", "test set"), 1)])
def test_fail_on_says_which_levels_decide(exported_copy, levels, code):
    spoil_onnx(exported_copy, lambda kernels: kernels[::-1].copy())
    options = [word for level in levels for word in ("--fail-on", level)]
    assert cli("validate", path_of(exported_copy), "--runtime", "onnxruntime-cpu", "--artifact", "onnx-fp32", *options) == code


def test_fail_on_an_unknown_level_lists_the_levels(exported, capsys):
    assert cli("validate", path_of(exported), "--fail-on", "speed") == 2
    assert "there are: files, golden, contract, preprocessing, test set" in capsys.readouterr().err


def test_a_prediction_may_change_where_it_was_a_close_call_and_nowhere_else():
    """Gate 0.1: the first image was decided by 0.15, the second by 0.5."""
    from toolkit.gates import Allowed
    from toolkit.validation.judge import Case, _test_set
    from toolkit.validation.metrics import figures

    reference = np.array([[1.0, 0.85], [1.0, 0.5], [1.0, 0.0]])
    gate = Allowed(None, 0.1, None, None, "")
    case = Case("a", "r", "fp16", np.arange(3), True, np.zeros(3, int), reference, reference, reference, (), gate, gate, lambda found: "")
    for found, clear in (([[0.9, 0.95], [1.0, 0.5], [1.0, 0.0]], 0), ([[1.0, 0.85], [0.7, 0.8], [1.0, 0.0]], 1)):
        logits = np.array(found)
        check = next(each for each in _test_set(case, figures(logits, reference, case.labels), 1, logits.argmax(1)) if "close" in each.name)
        assert (check.passed, check.figure) == (clear == 0, f"1 predictions changed, {clear} of them clear before")
