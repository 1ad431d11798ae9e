"""What every session owes: a row for each image, the same alone and in a batch, a refusal of what is no image, pictures as numbers."""

from typing import Any

import numpy as np
import pytest

from tests.validation.conftest import failed
from toolkit.runtimes.onnxruntime import OnnxSession

REAL = OnnxSession.__call__


@pytest.fixture
def session(monkeypatch, quick, exported_copy):
    """Validates onnx-fp32 with this in place of the session's call."""

    def validate(call: Any) -> Any:
        monkeypatch.setattr(OnnxSession, "__call__", call)
        return failed(quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20, cache=False))

    return validate


def test_eight_images_that_become_one_are_found(session):
    def drop(self: Any, batch: Any) -> Any:
        found = REAL(self, batch)
        return {name: rows[:1] for name, rows in found.items()} if len(batch["image"]) == 9 else found

    assert session(drop)["batches of 1, N and N + 1"].figure == "9 images give (1, 10)"


def test_images_that_influence_each_other_are_found(session):
    def mix(self: Any, batch: Any) -> Any:
        found = REAL(self, batch)
        return {**found, "logits": found["logits"] + 0.1 * found["logits"][:1]}

    assert "the same alone, in a batch, and in another order" in session(mix)


def test_a_wrong_size_that_is_taken_is_found(session):
    def take(self: Any, batch: Any) -> Any:
        images = batch["image"]
        if images.shape[-1] == 29:
            return REAL(self, {"image": images[..., :28, :28].copy()})
        return REAL(self, batch)

    check = session(take)["inputs that are none are refused"]
    assert check.figure == "another size: (1, 10)"


def test_a_refusal_without_words_is_found(session):
    def crash(self: Any, batch: Any) -> Any:
        if batch["image"].dtype == np.float64:
            raise TypeError("C++ says no")
        return REAL(self, batch)

    assert session(crash)["inputs that are none are refused"].figure == "float64: TypeError: C++ says no"


@pytest.mark.parametrize(("words", "spoil"), [
    ("softmax is missing, or over another axis", lambda p: p * 0 + 1),
    ("softmax is applied twice", lambda p: np.exp(p) / np.exp(p).sum(1, keepdims=True)),
    ("labels are swapped", lambda p: p[:, [1, 0, *range(2, 10)]]),
    ("some are no numbers", lambda p: p * np.nan),
])  # fmt: skip
def test_probabilities_that_are_not_softmax_of_the_logits_are_named(session, words, spoil):
    def change(self: Any, batch: Any) -> Any:
        found = REAL(self, batch)
        return {**found, "probabilities": spoil(found["probabilities"]).astype(np.float32)}

    check = session(change)["probabilities are softmax of the logits"]
    assert words in check.detail


def test_an_output_that_is_not_there_is_said_to_be_missing(session):
    found = session(lambda self, batch: {"logits": REAL(self, batch)["logits"]})
    assert found["runs to the end"].detail == "onnx-fp32 on onnxruntime-cpu gives logits, and no probabilities"


def test_one_kind_of_picture_that_differs_is_named(session, monkeypatch):
    from toolkit.validation import worker

    real = worker.read_picture

    def mirrored(path: Any, *more: Any, **options: Any) -> Any:
        found = real(path, *more, **options)
        return type(found)(found.pixels[..., ::-1].copy(), False) if path.suffix == ".jpg" else found

    monkeypatch.setattr(worker, "read_picture", mirrored)
    check = session(REAL)["picture files give the logits of their pixels"]
    assert "only these kinds of file differ: JPEG, gray" in check.detail
    assert "PNG" not in check.detail


def test_an_image_input_with_another_scale_than_its_numbers_is_found(quick, exported_copy, monkeypatch):
    from toolkit.mil import ReferenceEvaluator

    real = ReferenceEvaluator.predict
    monkeypatch.setattr(
        ReferenceEvaluator, "predict", lambda self, inputs: real(self, {"image": inputs["image"].point(lambda value: value // 2)})
    )
    found = failed(quick(exported_copy, runtimes=["coreml-reference"], artifacts=["coreml-fp16"], limit=20, cache=False))
    assert list(found) == ["a picture gives what its numbers give"]
