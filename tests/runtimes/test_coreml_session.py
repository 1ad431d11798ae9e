"""CoreMLSession over coremltools' MLModel, which the drop-in lets predict here. On a Mac: `pytest -m mac` (test_contract.py)."""

import numpy as np
import pytest
from PIL import Image

from toolkit.artifact import Artifact
from toolkit.export import Options, export
from toolkit.runtimes import RUNTIMES
from toolkit.runtimes.coreml import picture

UNITS = {"coreml-cpu": "CPU_ONLY", "coreml-gpu": "CPU_AND_GPU", "coreml-ane": "CPU_AND_NE", "coreml-all": "ALL"}


@pytest.mark.parametrize(("runtime_id", "unit"), UNITS.items())
def test_the_compute_unit_is_the_one_of_the_id(exported, fake_macos, runtime_id, unit):
    """Names of coremltools.ComputeUnit."""
    from toolkit.mil._coremltools import import_coremltools

    session = RUNTIMES[runtime_id].open(Artifact.open(exported.exports / "coreml-fp32"))
    assert session.model.compute_unit == import_coremltools().ComputeUnit[unit]
    assert unit in import_coremltools().ComputeUnit.__members__
    assert session.placement() == (f"requested {unit}",)


def test_a_picture_input_is_given_gray_pictures(exported, fake_macos, images, truth):
    session = RUNTIMES["coreml-all"].open(Artifact.open(exported.exports / "coreml-fp32"))
    found = session({"image": images})
    assert [(type(given), given.mode, given.size) for given in fake_macos] == [(Image.Image, "L", (28, 28))] * 12
    np.testing.assert_array_equal(np.stack([np.asarray(given) for given in fake_macos]), images[:, 0])
    assert np.abs(found["logits"] - truth).max() < 1e-3
    assert (found["logits"].dtype, found["probabilities"].dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-5)
    assert (found["probabilities"].argmax(1) == truth.argmax(1)).all()  # in the order of the labels, not of the dictionary
    assert found["classLabel"].tolist() == [str(label) for label in truth.argmax(1)]
    assert session.framework_ns() == 12_000  # of all twelve calls


def test_a_tensor_input_is_given_arrays(exported_copy, fake_macos, images, truth):
    (result,) = export(exported_copy, ["coreml"], Options(input_kind="tensor", precision="fp32"))
    session = RUNTIMES["coreml-cpu"].open(Artifact.open(result.folder))
    found = session({"image": images})
    assert {given.shape for given in fake_macos} == {(1, 1, 28, 28)}
    assert {given.dtype for given in fake_macos} == {np.dtype(np.float32)}
    assert np.abs(found["logits"] - truth).max() < 1e-3


def test_without_a_clock_of_its_own_it_says_nothing(exported, fake_macos, images, monkeypatch):
    """coremltools' attribute is there from 9.0 on, on macOS only."""
    session = RUNTIMES["coreml-all"].open(Artifact.open(exported.exports / "coreml-fp32"))
    monkeypatch.delattr(type(session.model), "last_predict_duration_in_nano_seconds")
    session({"image": images[:2]})
    assert session.framework_ns() is None


def test_values_between_whole_numbers_are_rounded():
    """A picture holds whole numbers; halves go to the even one, as NumPy rounds."""
    pixels = np.array([[[0.0, 0.4, 0.6, 254.4], [1.5, 2.5, 254.6, 255.0]]], np.float32)
    assert np.asarray(picture(pixels)).tolist() == [[0, 0, 1, 254], [2, 2, 255, 255]]
