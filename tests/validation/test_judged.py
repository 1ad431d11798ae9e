"""What cannot be judged is no pass; compressed weights are held against the file itself, and what it says against softmax."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from tests.validation.conftest import cli, failed, path_of, sign
from toolkit.artifact import TORCH
from toolkit.gates import Allowed
from toolkit.report import tables
from toolkit.validation import Check, junit
from toolkit.validation.judge import Case, agreement, checks, row
from toolkit.validation.result import LEVELS
from toolkit.validation.worker import Answers

FREE = Allowed(None, None, None, 0.01, "compressed: judged by its accuracy")
CLASSES = 10


def right(images: int) -> np.ndarray:
    """Logits that are sure of class i % 10."""
    return (10 * np.eye(CLASSES)[np.arange(images) % CLASSES]).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def answers(logits: np.ndarray, **fields: Any) -> Answers:
    golden, few = right(64), right(64)[:3]
    return Answers(**{
        "logits": logits, "probabilities": softmax(logits), "golden": golden, "golden_probabilities": softmax(golden),
        "singly": golden[:8], "backwards": golden[:8], "pictures": few, "app": few[:0], "pixels": few,
        "shapes": (("1", "(1, 10)"),), "refusals": (), "seconds": 1.0, **fields,
    })  # fmt: skip


def case(images: int, gate: Allowed = FREE, rounding: float | None = 0.004, **fields: Any) -> Case:
    return Case(**{
        "artifact": "coreml-int8", "runtime": "coreml-reference", "precision": "fp16", "indices": np.arange(images), "whole": True,
        "labels": np.arange(images) % CLASSES, "reference": right(images), "golden": right(64), "pictures": right(64)[:3] + 0.5,
        "picture_kinds": ("a", "b", "c"), "gate": gate, "golden_gate": gate, "explain": lambda found: "", "rounding": rounding, **fields,
    })  # fmt: skip


def judged(about: Case, found: Answers) -> dict[str, Check]:
    return {each.name: each for each in checks(about, found, row(about, found, False))}


@pytest.mark.parametrize(("images", "wrong", "passed"), [
    (20, 0, None), (100, 1, None), (20, 18, False), (100, 91, False), (5000, 0, True), (5000, 400, False),
])  # fmt: skip
def test_accuracy_of_compressed_weights_is_a_pass_a_breach_or_not_judged(images, wrong, passed):
    logits = right(images)
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    assert judged(case(images), answers(logits))["accuracy is not lost"].passed is passed


def test_compressed_weights_are_held_against_the_files_own_answers():
    good = judged(case(20), answers(right(20)))
    names = ("the same alone, in a batch, and in another order", "picture files give the logits of their pixels")
    assert [good[name].passed for name in names] == [True, True]
    bad = judged(case(20), answers(right(20), singly=right(64)[:8] + 1, pictures=right(64)[:3] + 1))
    assert [bad[name].passed for name in names] == [False, False]


def test_two_runtimes_of_one_compressed_file_must_agree():
    assert agreement(case(20), answers(right(20) + 0.01), answers(right(20))).passed
    assert not agreement(case(20), answers(right(20)[::-1]), answers(right(20))).passed


def test_probabilities_and_labels_are_judged_on_every_test_image():
    labels = tuple("abcdefghij")
    said = np.array([labels[number % CLASSES] for number in range(20)])
    about = case(20, class_labels=labels)
    name, label = "every image's probabilities are softmax of its logits", "the class label is that of the largest probability"
    good = judged(about, answers(right(20), labels=said))
    assert (good[name].passed, good[label].passed) == (True, True)
    wrong = softmax(right(20))
    wrong[7] = wrong[7][::-1]
    assert judged(about, answers(right(20), probabilities=wrong))[name].passed is False
    assert judged(about, answers(right(20), labels=np.roll(said, 1)))[label].passed is False
    assert row(about, answers(right(20), probabilities=wrong), False).figures.max_abs_probability > 0.9


@pytest.mark.parametrize(("precision", "passed"), [("fp16", False), ("fp32", True)])
def test_where_fp16_ends_a_logit_is_no_number(precision, passed):
    logits = right(20)
    logits[3, 3] = 65504
    assert judged(case(20, precision=precision), answers(logits))["all logits are numbers"].passed is passed


def test_the_images_that_are_furthest_off_are_listed_worst_first():
    logits = right(20)
    logits[4] += 0.5
    logits[9] = np.nan
    assert row(case(20, indices=np.arange(100, 120)), answers(logits), False).worst == [109, 104]


def test_what_was_not_judged_is_no_pass_in_verdict_or_report(quick, exported_copy, tmp_path):
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20)
    assert (found.passed, found.proved) == (True, {"onnx-fp32": 20})
    unjudged = found.checks[-1].model_copy(update={"passed": None, "figure": "not judged on 20 images", "runtime": "onnxruntime-cpu"})
    open_ = found.model_copy(update={"checks": [*found.checks, unjudged]})
    assert (open_.passed, open_.breaches, open_.proved, open_.unproved) == (False, [], {}, ["onnx-fp32"])
    assert open_.fails_on(())
    assert open_.fails_on((unjudged.level,))
    other = next(level for level in LEVELS if level != unjudged.level)
    assert not open_.fails_on((other,))  # of that level everything was judged
    assert open_.model_copy(update={"rows": []}).fails_on((other,))
    assert tables.verdict_line(open_).startswith("FAILED: nothing was compared")
    assert tables.verdict(open_, open_.rows[0]) == "not judged"
    junit.write(open_, tmp_path / "out.xml")
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert len(root.findall(".//skipped")) == 1
    assert [each.get("type") for each in root.findall(".//failure")] == ["nothing"]  # as the exit code says


def test_pytorch_on_another_device_proves_nothing(quick, exported_copy, monkeypatch):
    from dataclasses import replace

    from toolkit import devices

    monkeypatch.setitem(devices.BACKENDS, "mps", replace(devices.BACKENDS["mps"], torch_device="cpu", why_not=lambda: None))
    found = quick(exported_copy, cache=False, runtimes=["torch-mps"], limit=20)
    assert [(each.artifact, each.proves) for each in found.rows] == [(TORCH, False)]
    assert (found.breaches, found.passed, found.fails_on(())) == ([], False, True)
    assert found.fails_on(("files",))


def test_a_misfit_fails_whatever_level_decides(exported_copy, quick):
    folder = exported_copy.exports / "onnx-fp32"
    image = {"name": "image", "shape": [-1, 1, 27, 27], "dtype": "float32", "low": 0, "high": 255}
    sign(folder, inputs=[image])
    found = quick(exported_copy, runtimes=["onnxruntime-cpu", "coreml-reference"], limit=20)
    assert "takes this model's images" in failed(found)
    words = ("validate", path_of(exported_copy), "--runtime", "coreml-reference", "--limit", "20", "--fail-on", "test set")
    assert cli(*words) == 1


def test_a_manifest_with_names_of_its_own_is_found(exported_copy, quick):
    import json

    folder = exported_copy.exports / "onnx-fp32"
    outputs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["outputs"]
    sign(folder, outputs=[{**each, "name": "scores"} if each["name"] == "logits" else each for each in outputs])
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20)
    assert "every artifact has logits, probabilities" in failed(found)["inputs and outputs"].figure


def test_slow_runtimes_see_every_image_where_asked(quick, exported_copy):
    found = quick(exported_copy, runtimes=["onnx-reference"], artifacts=["onnx-fp32"], limit=110, all_images=True)
    assert (found.rows[0].images, found.rows[0].indices) == (110, None)
