"""Nobody may claim what was not shown: by the manifest, by a part of the checks, or by a part of the data."""

import json
import shutil

import numpy as np
import onnx
import pytest

from tests.validation.conftest import sign
from toolkit.artifact import GOLDEN, MANIFEST, Artifact
from toolkit.errors import ArtifactError
from toolkit.validation import validate, verify
from toolkit.validation.hypotheses import name
from toolkit.validation.result import LEVELS


def failed(result, artifact: str) -> set[str]:
    return {check.name for check in result.breaches if check.artifact == artifact}


@pytest.mark.parametrize(("claim", "check"), [
    ({"compression": "int8"}, "compression"), ({"input_kind": "tensor"}, "inputs and outputs"),
    ({"precision": "fp32"}, "number format of the weights"),
])  # fmt: skip
def test_a_claim_of_the_manifest_is_compared_with_the_file(quick, exported_copy, claim, check):
    sign(exported_copy.exports / "coreml-fp16", **claim)
    found = quick(exported_copy, runtimes=["coreml-reference"], artifacts=["coreml-fp16"], limit=20)
    assert check in failed(found, "coreml-fp16")


@pytest.mark.parametrize("field", [{"format": "tflite"}, {"precision": "int8"}, {"precision": "compressed"}])
def test_a_format_or_precision_that_there_is_not_is_a_failed_check_and_the_others_go_on(quick, exported_copy, field):
    sign(exported_copy.exports / "onnx-fp32", **field)
    found = quick(exported_copy, runtimes=["coreml-reference", "onnxruntime-cpu"], limit=20)
    assert failed(found, "onnx-fp32") == {"files are those of the export"}
    assert "coreml-fp16" in {row.artifact for row in found.rows}


@pytest.mark.parametrize("change", ["classes", "channels"])
def test_an_artifact_of_another_shape_is_failed_checks_and_is_not_run(quick, exported_copy, change):
    folder = exported_copy.exports / "onnx-fp32"
    manifest = json.loads((folder / MANIFEST).read_text())
    with np.load(folder / GOLDEN) as stored:
        images, logits = stored["images"], stored["logits"]
    if change == "classes":
        manifest["class_labels"], logits = manifest["class_labels"][:5], logits[:, :5]
    else:
        manifest["inputs"][0]["shape"][1], images = 3, np.repeat(images, 3, 1)
    np.savez(folder / GOLDEN, images=images, logits=logits)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    sign(folder)
    found = quick(exported_copy, runtimes=["onnxruntime-cpu", "coreml-reference"], limit=20)
    assert {"golden outputs are those of the checkpoint"} < failed(found, "onnx-fp32")
    assert "onnx-fp32" not in {row.artifact for row in found.rows}


def test_an_artifact_that_cannot_be_opened_or_run_fails_every_level(quick, exported_copy):
    entry = exported_copy.exports / "onnx-fp32/model.onnx"
    entry.write_bytes(entry.read_bytes()[:-100])
    found = quick(exported_copy, runtimes=["coreml-reference", "onnxruntime-cpu"], limit=20)
    assert all(found.fails_on((level,)) for level in LEVELS)


def test_weights_beside_an_onnx_file_are_refused(quick, exported_copy):
    folder = exported_copy.exports / "onnx-fp32"
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    sign(folder)
    with pytest.raises(ArtifactError, match=r"weights\.bin is not in the manifest"):
        Artifact.open(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": {**manifest["files"], "weights.bin": "0"}}))
    sign(folder)
    found = quick(exported_copy, runtimes=["coreml-reference"], limit=20)
    assert "the file can be read" in failed(found, "onnx-fp32")


def test_golden_outputs_of_few_images_prove_too_little(quick, exported_copy):
    folder = exported_copy.exports / "onnx-fp32"
    with np.load(folder / GOLDEN) as stored:
        np.savez(folder / "few.npz", images=stored["images"][:1], logits=stored["logits"][:1])
    (folder / "few.npz").rename(folder / GOLDEN)
    sign(folder)
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20)
    assert failed(found, "onnx-fp32") == {"golden outputs are those of the checkpoint"}


def test_what_no_runtime_ran_is_no_evidence(exported_copy):
    """Validated on one runtime alone: the other format's file is in the folder, and in no evidence."""
    found = validate(exported_copy, runtimes=["onnxruntime-cpu"], isolate=False)
    assert "coreml-fp16" in found.unproved
    checks = {(each.artifact, each.name): each.passed for each in verify(exported_copy.folder, isolate=False).checks}
    assert checks["coreml-fp16", "was validated"] is False
    assert checks["onnx-fp32", "golden logits on onnxruntime-cpu"] is True


def test_a_part_of_the_test_set_is_no_evidence(exported_copy):
    shutil.rmtree(exported_copy.exports / "coreml-fp32")
    names = validate(exported_copy, limit=20, isolate=False).proved
    (wrong,) = [each for each in verify(exported_copy.folder, isolate=False).checks if not each.passed]
    assert (wrong.name, wrong.figure) == ("validated on", ", ".join(f"{name} on 20" for name in names))


def test_gates_that_were_widened_afterwards_are_seen(exported_copy):
    validate(exported_copy, isolate=False)
    assert verify(exported_copy.folder, isolate=False).passed
    with exported_copy.recipe.open("a") as file:
        file.write("[gates.fp32]\nmax_abs_logit = 1e9\n")
    wrong = [each for each in verify(exported_copy.folder, isolate=False).checks if not each.passed]
    assert [(each.artifact, each.name) for each in wrong] == [
        ("recipe", "sha256 of recipe.toml"), ("report", "verdicts follow from its figures"),
    ]  # fmt: skip


def test_a_file_that_gives_no_logits_is_a_failed_check_of_verify(exported_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    validate(exported_copy, isolate=False)
    monkeypatch.setattr(OnnxSession, "__call__", lambda self, batch: {"other": np.zeros((len(batch["image"]), 10))})
    wrong = [each for each in verify(exported_copy.folder, isolate=False).checks if not each.passed]
    assert [(each.artifact, each.figure) for each in wrong] == [("onnx-fp32", "does not run")]


def test_accuracy_is_not_judged_on_images_too_few_to_tell(quick, exported_copy):
    """Of 20 images not even an unchanged file can rule out a loss of one point; of 10,000 it can."""
    with exported_copy.recipe.open("a") as file:
        file.write("[gates.fp32]\nmax_accuracy_loss = 0.01\n")
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20)
    (check,) = [each for each in found.checks if each.name == "accuracy is not lost"]
    assert (check.passed, check.figure.partition(":")[0], found.passed) == (None, "not judged on 20 images", False)


def test_a_fit_that_only_comes_near_is_no_cause(classifier_of, exported):
    """The second convolution off by 1 % is nearly, and only nearly, another mean and deviation."""
    import copy

    import torch

    classifier = classifier_of(exported)
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        [module for module in other.modules() if isinstance(module, torch.nn.Conv2d)][1].weight *= 1.01
    images = Artifact.open(exported.exports / "onnx-fp32").golden()[0]
    with torch.inference_mode():
        found, truth = (model(torch.from_numpy(images)).numpy() for model in (other, classifier))
    assert "standard deviation" not in name(classifier, images, found, truth, 1e-4)


def test_a_deviation_of_one_gray_level_is_no_crash(classifier_of, exported):
    import torch

    classifier = classifier_of(exported)
    classifier.scale = torch.tensor(1.0)  # 1 / (255 · 1/255)
    images = Artifact.open(exported.exports / "onnx-fp32").golden()[0]
    with torch.inference_mode():
        truth = classifier(torch.from_numpy(images)).numpy()
    assert isinstance(name(classifier, images, truth + np.random.default_rng(0).normal(size=truth.shape), truth, 1e-4), str)


@pytest.fixture
def classifier_of():
    from toolkit.checkpoint import Checkpoint
    from toolkit.networks import from_checkpoint

    return lambda workspace: from_checkpoint(Checkpoint.open(workspace.checkpoint))
