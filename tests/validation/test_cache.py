"""What was asked before is not asked again, and anything that could change an answer is another question."""

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.runtimes import RUNTIMES
from toolkit.validation.cache import Cache

IMAGES, GOLDEN = np.zeros((2, 1, 28, 28), np.uint8), np.zeros((1, 1, 28, 28), np.float32)


@pytest.fixture
def artifact(exported):
    return Artifact.open(exported.exports / "onnx-fp32")


def test_every_input_of_an_answer_is_part_of_its_name(artifact, tmp_path, monkeypatch):
    from dataclasses import replace

    cache, runtime = Cache(tmp_path), RUNTIMES["onnxruntime-cpu"]
    base = cache.path(artifact, runtime, IMAGES, GOLDEN)
    assert base == cache.path(artifact, runtime, IMAGES.copy(), GOLDEN)
    manifest = artifact.manifest
    others = [
        cache.path(artifact, runtime, IMAGES + 1, GOLDEN),
        cache.path(artifact, runtime, IMAGES, GOLDEN + 1),
        cache.path(artifact, RUNTIMES["onnx-reference"], IMAGES, GOLDEN),
        cache.path(replace(artifact, manifest=manifest.model_copy(update={"files": {"model.onnx": "0" * 64}})), runtime, IMAGES, GOLDEN),
    ]
    monkeypatch.setattr("toolkit.runtimes.onnxruntime.version", lambda: "0.0")
    others.append(cache.path(artifact, runtime, IMAGES, GOLDEN))
    monkeypatch.setattr("toolkit.validation.cache.describe", lambda: {"processor": "another"})
    others.append(Cache(tmp_path).path(artifact, runtime, IMAGES, GOLDEN))
    assert len({base, *others}) == len(others) + 1


def test_a_damaged_answer_is_none(tmp_path):
    path = tmp_path / "x.npz"
    for content in (b"", b"PK\x03\x04 and then nothing", b"\x93NUMPY"):
        path.write_bytes(content)
        assert Cache(tmp_path).find(path) is None


def test_without_a_folder_nothing_is_kept_and_nothing_found(artifact):
    cache = Cache(None)
    assert cache.path(artifact, RUNTIMES["onnxruntime-cpu"], IMAGES, GOLDEN) is None
    assert cache.find(None) is None


def test_no_cache_asks_again(quick, exported_copy, monkeypatch):
    asked = []
    from toolkit.validation import run

    real = run.ask
    monkeypatch.setattr(run, "ask", lambda job, update: asked.append(job.runtime) or real(job, update))
    quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"])
    assert asked == []
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], cache=False)
    assert asked == ["torch-cpu", "onnxruntime-cpu"]
    assert [row.cached for row in found.rows] == [False]
