"""What was asked before is not asked again, and anything that could change an answer is another question."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.runtimes import RUNTIMES
from toolkit.validation.cache import Cache
from toolkit.validation.worker import Job

IMAGES, GOLDEN = np.zeros((2, 1, 28, 28), np.uint8), np.zeros((1, 1, 28, 28), np.float32)
JOB = Job(folder="nowhere", runtime="torch-cpu", golden=GOLDEN, classes=3)


@pytest.fixture
def artifact(exported):
    return Artifact.open(exported.exports / "onnx-fp32")


def test_every_input_of_an_answer_is_part_of_its_name(artifact, tmp_path, monkeypatch):
    cache, runtime = Cache(tmp_path), RUNTIMES["onnxruntime-cpu"]
    base = cache.path(artifact, runtime, IMAGES, GOLDEN)
    assert base == cache.path(artifact, runtime, IMAGES.copy(), GOLDEN)
    manifest = artifact.manifest
    others = [
        cache.path(artifact, runtime, IMAGES + 1, GOLDEN),
        cache.path(artifact, runtime, IMAGES, GOLDEN + 1),
        cache.path(artifact, RUNTIMES["onnx-reference"], IMAGES, GOLDEN),
        *(
            cache.path(replace(artifact, manifest=manifest.model_copy(update=changed)), runtime, IMAGES, GOLDEN)
            for changed in ({"files": {"model.onnx": "0" * 64}}, {"entry": "other.onnx"}, {"class_labels": manifest.class_labels[::-1]})
        ),
    ]
    monkeypatch.setattr("toolkit.runtimes.onnxruntime.version", lambda: "0.0")
    others.append(cache.path(artifact, runtime, IMAGES, GOLDEN))
    monkeypatch.setattr("toolkit.validation.cache.describe", lambda: {"processor": "another"})
    others.append(Cache(tmp_path).path(artifact, runtime, IMAGES, GOLDEN))
    assert len({base, *others}) == len(others) + 1


def test_a_damaged_answer_is_none(tmp_path):
    path = tmp_path / "x.answers"
    from tests.validation.test_run import answers

    Cache(tmp_path).keep(path, answers(np.zeros((2, 3))))
    whole = path.read_bytes()
    assert Cache(tmp_path).find(path, JOB, 2) is not None
    for content in (b"", b"PK\x03\x04 and then nothing", b"\x93NUMPY", whole[:-1], whole[:40], whole[:8] + b"[" * len(whole), b"TKW1" * 9):
        path.write_bytes(content)
        assert Cache(tmp_path).find(path, JOB, 2) is None


def test_without_a_folder_nothing_is_kept_and_nothing_found(artifact):
    cache = Cache(None)
    assert cache.path(artifact, RUNTIMES["onnxruntime-cpu"], IMAGES, GOLDEN) is None
    assert cache.find(None, JOB, 2) is None


def test_no_cache_asks_again(quick, exported_copy, monkeypatch):
    asked = []
    from toolkit.validation import run

    real = run.ask
    monkeypatch.setattr(run, "ask", lambda job, *given: asked.append(job.runtime) or real(job, *given))
    quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"])
    assert asked == []
    found = quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], cache=False)
    assert asked == ["torch-cpu", "onnxruntime-cpu"]
    assert [row.cached for row in found.rows] == [False]


def test_answers_for_other_images_or_classes_are_none(tmp_path):
    from tests.validation.test_run import answers

    cache, path = Cache(tmp_path), tmp_path / "x.answers"
    cache.keep(path, answers(np.zeros((4, 3))))
    assert cache.find(path, JOB, 4) is not None
    assert cache.find(path, JOB, 5) is None
    assert cache.find(path, replace(JOB, classes=10), 4) is None
    assert cache.find(path, replace(JOB, golden=np.zeros((2, 1, 28, 28), np.float32)), 4) is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, capsys):
    from tests.validation.test_run import answers

    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    cache.keep(tmp_path / "file/x.answers", answers(np.zeros((1, 3), np.float32)))
    assert "answers are not remembered" in capsys.readouterr().err


def test_answers_lie_in_the_users_cache_and_not_in_the_model(quick, exported_copy, monkeypatch, tmp_path):
    """Who downloads a model's folder must not download its answers."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "mine"))
    quick(exported_copy, runtimes=["onnxruntime-cpu"], artifacts=["onnx-fp32"], limit=20)
    assert list((tmp_path / "mine/validation").glob("*.answers"))
    assert not (exported_copy.folder / ".cache").exists()
