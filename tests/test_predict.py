"""A picture file is classified like the raw pixels it was made from."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.workers.scripted import SCRIPT, TASK
from toolkit import predict as room
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.errors import ArtifactError, CheckpointError, DataError, RuntimeUnavailable, ToolkitError
from toolkit.networks import from_checkpoint
from toolkit.predict import split_words
from toolkit.runtimes import RUNTIMES
from toolkit.workers import WorkerLost, call
from toolkit.workspace import DEFAULT_MODEL, Workspace

predict = partial(room.predict, isolate=False)  # in this process, but for the tests that say otherwise


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(40, 28, 28) uint8: test digits."""
    return load("digits").test_images[:40, 0].numpy()


@pytest.fixture
def files(images, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def expected(trained, images) -> np.ndarray:
    """(40, 10) probabilities, straight from the network."""
    with torch.inference_mode():
        logits = from_checkpoint(Checkpoint.open(trained.checkpoint))(torch.from_numpy(images)[:, None].float())
    return logits.double().softmax(1).numpy()


def test_a_digit_saved_as_a_picture_is_predicted_like_its_raw_pixels(trained, files, expected):
    result = predict(trained, files)
    assert (result.model, result.artifact, result.runtime) == ("tiny", "torch", "torch-cpu")
    assert [each.image for each in result.predictions] == files
    for found, row in zip(result.predictions, expected, strict=True):
        best = np.sort(row)[::-1][:3]
        assert not found.inverted
        assert [probability for _, probability in found.top] == pytest.approx(best.tolist(), abs=1e-5)
        assert row[[int(label) for label, _ in found.top]] == pytest.approx(best, abs=1e-5)


def test_dark_ink_on_paper_is_predicted_like_the_light_digit(trained, images, files, expected):
    for path, pixels in zip(files, images, strict=True):
        Image.fromarray(255 - pixels).save(path)
    result = predict(trained, files)
    assert all(each.inverted for each in result.predictions)
    assert [each.top[0][1] for each in result.predictions] == pytest.approx(expected.max(axis=1).tolist(), abs=1e-5)
    assert not any(each.inverted for each in predict(trained, files, invert=False).predictions)


@pytest.mark.parametrize(
    ("runtime", "artifact", "used"), [("onnxruntime-cpu", None, "onnx-fp32"), ("onnxruntime-cpu", "onnx-fp32", "onnx-fp32")]
)
def test_another_runtime_gives_the_same_classes(exported, files, expected, runtime, artifact, used):
    result = predict(exported, files, runtime=runtime, artifact=artifact)
    assert (result.artifact, result.runtime) == (used, runtime)
    assert [int(each.top[0][0]) for each in result.predictions] == expected.argmax(axis=1).tolist()


def test_a_named_artifact_that_the_runtime_does_not_read_is_an_error_and_not_another_model(exported, files):
    with pytest.raises(ArtifactError, match=r"torch-cpu reads torch artifacts; onnx-fp32 is onnx\. Choose another with --runtime"):
        predict(exported, files, artifact="onnx-fp32")


def test_a_runtime_without_an_artifact_says_how_to_make_one(exported_copy, files):
    (exported_copy.exports / "onnx-fp32").rename(exported_copy.exports / ".away")
    with pytest.raises(ArtifactError, match=r"onnxruntime-cpu reads onnx artifacts, and there is none.* toolkit export --format onnx"):
        predict(exported_copy, files, runtime="onnxruntime-cpu")


def test_an_unknown_artifact_or_runtime_lists_those_there_are(exported, files):
    with pytest.raises(ArtifactError, match="there is no artifact 'onnx-fp8' in"):
        predict(exported, files, artifact="onnx-fp8")
    with pytest.raises(ToolkitError, match="there is no runtime 'tpu'; there are torch-cpu"):
        predict(exported, files, runtime="tpu")


def test_a_runtime_that_cannot_run_here_is_an_error_with_its_reason(trained, files, monkeypatch):
    monkeypatch.setattr(type(RUNTIMES["torch-cpu"]), "why_not", lambda self: "it is made absent")
    with pytest.raises(RuntimeUnavailable, match="torch-cpu cannot run here: it is made absent"):
        predict(trained, files)


def test_a_model_that_was_not_trained_says_how(fresh, files):
    with pytest.raises(CheckpointError, match="Train one first: toolkit train"):
        predict(fresh, files)


def test_one_unreadable_picture_is_an_error_before_a_model_is_loaded(trained, files, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("text", encoding="utf-8")
    monkeypatch.setattr(type(RUNTIMES["torch-cpu"]), "open", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(DataError, match=r"text\.png is not a PNG or JPEG"):
        predict(trained, [*files, tmp_path / "text.png"])


def test_the_session_is_closed_when_a_call_fails(trained, files, monkeypatch):
    closed = []

    class Failing:
        def __call__(self, batch):
            raise ZeroDivisionError

        def close(self):
            closed.append(True)

    monkeypatch.setattr(type(RUNTIMES["torch-cpu"]), "open", lambda *_: Failing())
    with pytest.raises(ZeroDivisionError):
        predict(trained, files)
    assert closed == [True]


def test_the_first_word_is_a_model_where_it_names_one(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    a, b = Path("a.png"), Path("b.png")
    assert split_words(["resnet18-digits", "a.png", "b.png"]) == ("resnet18-digits", [a, b])
    assert split_words(["a.png", "b.png"]) == (DEFAULT_MODEL, [a, b])
    assert split_words(["a.png"]) == (DEFAULT_MODEL, [a])
    (tmp_path / "some").mkdir()
    assert split_words(["./some", "a.png"]) == ("./some", [a])


def test_a_file_named_like_a_model_is_a_picture_and_a_lone_word_too(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_words(["resnet18-digits"]) == (DEFAULT_MODEL, [Path("resnet18-digits")])
    (tmp_path / "resnet18-digits").touch()
    assert split_words(["resnet18-digits", "a.png"]) == (DEFAULT_MODEL, [Path("resnet18-digits"), Path("a.png")])


def test_a_worker_predicts_what_this_process_does(exported, files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = [Path(path.name) for path in files[:2]]
    for runtime in ("torch-cpu", "onnxruntime-cpu"):
        assert room.predict(exported, given, runtime=runtime) == predict(exported, given, runtime=runtime)
    with pytest.raises(DataError, match="absent"):
        room.predict(exported, [Path("absent.png")])


@pytest.mark.parametrize(("script", "said"), [
    ("import os; os.abort()", "its process was killed by SIGABRT"),
    ("result = Message({'predictions': 3})", "gave no result that can be read"),
    ("result = Message({'model': 'm', 'artifact': 'a', 'runtime': 'r', 'predictions': []})", "at 1 pictures gave 0 answers"),
])  # fmt: skip
def test_a_worker_that_is_lost_is_one_message(trained, files, monkeypatch, script, said):
    monkeypatch.setenv(SCRIPT, script)
    monkeypatch.setattr(room, "call", lambda task, *given, **named: call(TASK, *given, **named))
    with pytest.raises(WorkerLost, match=said):
        room.predict(trained, files[:1])


def test_a_model_in_another_place_is_predicted_with(trained, files):
    assert predict(Workspace.of(str(trained.folder)), files[:1]).model == "tiny"
