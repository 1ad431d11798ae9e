"""What is shown of a checkpoint and an artifact is what is in it, and both are verified on the way."""

from pathlib import Path

import pytest
import torch

from toolkit.artifact import Artifact
from toolkit.checkpoint import WEIGHTS, Checkpoint, write_checkpoint
from toolkit.errors import ArtifactError, CheckpointError, ToolkitError
from toolkit.inspection import inspect
from toolkit.networks import build
from toolkit.recipe import Recipe
from toolkit.workspace import shipped_folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/mine/ with an untrained ResNet18 as its checkpoint."""
    folder = tmp_path_factory.mktemp("inspected") / "models" / "mine"
    (folder / "checkpoint").mkdir(parents=True)
    text = (shipped_folder() / "resnet18-mnist-paper" / "recipe.toml").read_text(encoding="utf-8")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    recipe = Recipe.read(folder / "recipe.toml")
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": 7,
        "class_labels": list("0123456789"), "input_shape": (1, 28, 28),
        "device": "cpu", "finished": False, "epochs_done": 0.25, "metrics": {"test_accuracy": 0.0981}, "versions": {"torch": "9.9"},
    }  # fmt: skip
    torch.manual_seed(0)
    write_checkpoint(folder / "checkpoint", build(recipe, 10).state_dict(), card, None)
    return folder


def test_a_checkpoint_shows_the_table_of_parameters_and_what_its_card_says(resnet: Path):
    found = inspect(resnet / "checkpoint")
    assert found.title == "checkpoint of resnet18-mnist-paper"
    assert list(found.rows.items())[:4] == [
        ("total parameters", "11,172,810"), ("trainable parameters", "11,172,810"),
        ("non-trainable parameters", "0"), ("input size", "(1, 28, 28)"),
    ]  # fmt: skip
    card = Checkpoint.open(resnet / "checkpoint").card
    shown = {
        "network": "resnet18", "classes": "0 1 2 3 4 5 6 7 8 9", "trained on": "cpu, 0.25 epochs, not finished", "test accuracy": "0.0981",
        "seed": "7", "recipe hash": card.recipe_hash, "sha256": card.weights_sha256, "versions": "torch 9.9",
    }  # fmt: skip
    assert {name: found.rows[name] for name in shown} == shown


def test_a_models_folder_and_name_show_its_checkpoint(resnet: Path, monkeypatch):
    expected = inspect(resnet / "checkpoint")
    assert inspect(resnet) == expected
    monkeypatch.setenv("TOOLKIT_MODELS", str(resnet.parent))
    assert inspect(Path("mine")) == expected


def test_a_folder_of_a_model_in_the_current_folder_is_found_without_a_slash(resnet: Path, tmp_path, monkeypatch):
    (tmp_path / "here").symlink_to(resnet)
    monkeypatch.chdir(tmp_path)
    assert inspect(Path("here")) == inspect(resnet)
    monkeypatch.chdir(resnet)
    assert inspect(Path()) == inspect(resnet)


def test_a_model_that_was_not_trained_says_how(fresh):
    with pytest.raises(CheckpointError, match="Train one first: toolkit train"):
        inspect(fresh.folder)


@pytest.mark.parametrize("name", ["coreml-fp16", "onnx-fp32"])
def test_an_artifact_shows_what_its_manifest_says_and_the_size_on_disk(exported, name: str):
    folder = exported.exports / name
    manifest, found = Artifact.open(folder).manifest, inspect(folder)
    assert found.title == f"artifact {name} of tiny"
    rows = found.rows
    assert (rows["format"], rows["precision"]) == tuple(name.split("-"))
    entry = folder / manifest.entry
    size = sum(path.stat().st_size for path in ([entry] if entry.is_file() else entry.rglob("*")) if path.is_file())
    assert rows["size"] == f"{size / 1e6:.2f} MB"
    assert "0..255" in rows["input image"]
    assert any(row.startswith("output logits") for row in rows)
    assert rows["class labels"] == "0 1 2 3 4 5 6 7 8 9"
    assert rows["test accuracy"] == f"{100 * manifest.test_accuracy:.2f} % (PyTorch, before conversion)"
    assert rows["files"] == f"{len(manifest.files)}, all with the sha256 of the manifest"
    assert rows["checkpoint sha256"] == Checkpoint.open(exported.checkpoint).card.weights_sha256


def test_an_accuracy_that_was_not_measured_is_said_to_be_so(tmp_path: Path):
    import numpy as np

    from toolkit.artifact import image_spec, output_specs, write_artifact

    (tmp_path / "model.bin").write_bytes(b"model")
    fields = {
        "format": "onnx", "precision": "fp32", "model": "tiny", "entry": "model.bin", "input_kind": "tensor",
        "inputs": (image_spec((1, 2, 2)),),
        "outputs": output_specs(2), "class_labels": ["a", "b"], "preprocessing": "none", "recipe_hash": "0", "checkpoint_sha256": "1",
        "test_accuracy": None, "versions": {},
    }  # fmt: skip
    write_artifact(tmp_path, fields, np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 2)))
    assert inspect(tmp_path).rows["test accuracy"] == "not measured"


def test_a_damaged_artifact_and_checkpoint_are_errors(exported_copy):
    (exported_copy.exports / "onnx-fp32" / "golden.npz").write_bytes(b"")
    with pytest.raises(ArtifactError, match="was changed after the export"):
        inspect(exported_copy.exports / "onnx-fp32")
    (exported_copy.checkpoint / WEIGHTS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not what was trained"):
        inspect(exported_copy.checkpoint)


@pytest.mark.parametrize("name", ["nothing", "file", "folder"])
def test_anything_else_is_an_error_saying_what_it_is_not_and_naming_the_models(tmp_path: Path, name: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        ToolkitError, match=r"is neither an artifact \(manifest.json\), nor a checkpoint \(.*\), nor a model \(.*resnet18-mnist"
    ):
        inspect(tmp_path / name)
