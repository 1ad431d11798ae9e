"""A checkpoint reads back as it was written, and nothing that is not one is read, or run."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toolkit import checkpoint as module
from toolkit.checkpoint import CARD, RESUME, WEIGHTS, Checkpoint, sha256_of, write_checkpoint
from toolkit.errors import CheckpointError, RecipeError
from toolkit.limits import MAX_CARD_BYTES
from toolkit.networks import build, from_checkpoint
from toolkit.recipe import Recipe

RECIPE = Recipe.from_values(
    {"name": "tiny", "description": "for tests", "data": {"set": "digits"}, "network": {"builder": "small-cnn"}, "train": {"epochs": 2}},
    "here",
)


def card(recipe: Recipe = RECIPE) -> dict[str, object]:
    return {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": 7, "class_labels": list("0123456789"),
        "input_shape": (1, 28, 28), "device": "cpu", "finished": True, "epochs_done": 2.0, "metrics": {"test_accuracy": 0.5},
        "versions": {},
    }  # fmt: skip


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build(RECIPE, 10).state_dict()


@pytest.fixture
def written(tmp_path: Path, weights) -> Checkpoint:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    return write_checkpoint(folder, weights, card(), {"step": 3, "momentum": [torch.ones(2)]})


def edit(found: Checkpoint, **changes) -> None:
    path = found.folder / CARD
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def forge(found: Checkpoint, weights: dict[str, torch.Tensor] | bytes) -> Checkpoint:
    """Other weights, with a card that names them: what a checksum cannot find."""
    path = found.folder / WEIGHTS
    path.unlink()
    path.write_bytes(weights) if isinstance(weights, bytes) else save_file(weights, path)
    edit(found, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return Checkpoint.open(found.folder)


def refused(found: Checkpoint, message: str, action=lambda found: Checkpoint.open(found.folder)) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        action(found)
    assert str(found.folder) in str(caught.value)


def test_what_was_written_reads_back_equal(written: Checkpoint, weights):
    found = Checkpoint.open(written.folder)
    assert found == written
    assert found.recipe == RECIPE
    assert found.card.model_dump() == card() | {
        "schema_version": 1,
        "setting": {},  # of a card from before it was written
        "weights_sha256": hashlib.sha256(found.weights_path.read_bytes()).hexdigest(),
    }
    read = found.weights()
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in weights.items())
    state = found.resume_state()
    assert state["step"] == 3
    assert torch.equal(state["momentum"][0], torch.ones(2))


def test_the_network_of_a_checkpoint_computes_what_the_saved_one_computed(written: Checkpoint, weights):
    classifier = build(RECIPE, 10)
    classifier.load_state_dict(weights)
    images = torch.arange(2 * 28 * 28).reshape(2, 1, 28, 28) % 256 / 1.0
    with torch.inference_mode():
        assert torch.equal(from_checkpoint(written)(images), classifier.eval()(images))


def test_weights_are_written_from_any_layout(tmp_path: Path, weights):
    weights["network.0.weight"] = weights["network.0.weight"].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3).requires_grad_()
    found = write_checkpoint(tmp_path, weights, card(), None).weights()
    assert torch.equal(found["network.0.weight"], weights["network.0.weight"])


def test_sha256_is_that_of_hashlib(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_without_a_card_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(
        CheckpointError, match=r"there is no checkpoint in .*: checkpoint\.json is missing\. Train one first: toolkit train"
    ):
        Checkpoint.open(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1}', "\x00\xff", 100_000 * "["], ids=range(7))
def test_a_card_that_is_no_card_is_an_error(written: Checkpoint, text: str):
    (written.folder / CARD).write_text(text, encoding="latin-1")
    refused(written, r"checkpoint\.json cannot be read: ")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2}, {"unknown": 1}, {"class_labels": ["one"]}, {"input_shape": [1, 28]}, {"input_shape": [1, -28, 28]},
        {"input_shape": [1, 10**9, 10**9]}, {"weights_sha256": None}, {"recipe": {"name": "x"}}, {"recipe": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_with_a_wrong_value_is_an_error(written: Checkpoint, change):
    edit(written, **change)
    refused(written, r"checkpoint\.json cannot be read")


def test_a_card_that_is_larger_than_any_of_ours_is_not_read(written: Checkpoint):
    with (written.folder / CARD).open("ab") as file:
        file.truncate(MAX_CARD_BYTES + 1)
    refused(written, f"it has {MAX_CARD_BYTES + 1:,} bytes; at most {MAX_CARD_BYTES:,} are read")


def test_a_recipe_that_was_edited_in_the_card_is_an_error(written: Checkpoint):
    edit(written, recipe=RECIPE.model_dump(mode="json") | {"description": "edited"})
    refused(written, "the recipe's hash is .*, the card says .*: it was edited. Train again")


def test_missing_weights_are_an_error(written: Checkpoint):
    written.weights_path.unlink()
    refused(written, r"has no model\.safetensors\. Copy the whole folder", Checkpoint.weights)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""]
)
def test_weights_with_any_byte_changed_are_an_error_with_both_checksums(written: Checkpoint, damage):
    data = damage(written.weights_path.read_bytes())
    written.weights_path.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    refused(written, f"is not what was trained: sha256 expected {written.card.weights_sha256}, found {found}", Checkpoint.weights)


def test_weights_that_are_larger_than_any_of_ours_are_not_read(written: Checkpoint, monkeypatch):
    monkeypatch.setattr(module, "MAX_WEIGHTS_BYTES", 1000)
    refused(written, "at most 1,000 are read", Checkpoint.weights)


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", pickle.dumps({"a": 1}), b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}x"],
    ids=["empty", "text", "pickle", "header", "tail"],
)
def test_weights_that_are_no_safetensors_are_an_error(written: Checkpoint, data: bytes):
    refused(forge(written, data), "is not a safetensors file", Checkpoint.weights)


def test_weights_of_another_network_are_an_error_naming_what_does_not_fit(written: Checkpoint, weights):
    bias = weights.pop("network.8.bias")
    changed = {**weights, "other": bias.clone(), "network.0.bias": bias, "network.0.weight": weights["network.0.weight"].half()}
    with pytest.raises(CheckpointError, match="does not fit small-cnn: ") as caught:
        from_checkpoint(forge(written, changed))
    for fault in (
        "network.8.bias is missing",
        "other is not of this network",
        "network.0.bias is torch.float32 (10,), should be torch.float32 (16,)",
        "network.0.weight is torch.float16 (16, 1, 3, 3), should be torch.float32 (16, 1, 3, 3)",
    ):
        assert fault in str(caught.value)


def test_of_many_misfits_five_are_named_and_the_rest_counted(written: Checkpoint, weights):
    refused(forge(written, {"other": torch.ones(1)}), f"; and {len(weights) + 1 - 5} more$", from_checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_an_error_naming_them(written: Checkpoint, weights, value):
    weights["network.8.bias"][3] = value
    refused(forge(written, weights), r"holds NaN or Inf in network\.8\.bias: training diverged", from_checkpoint)


def test_a_card_whose_network_is_unknown_here_is_an_error(tmp_path: Path, weights):
    recipe = Recipe.from_values(RECIPE.model_dump(mode="json") | {"network": {"builder": "vision-9"}}, "here")
    with pytest.raises(RecipeError, match=r"network\.builder 'vision-9' is not known"):
        from_checkpoint(write_checkpoint(tmp_path, weights, card(recipe), None))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_resume_file_that_would_run_code_is_refused_and_runs_nothing(written: Checkpoint, tmp_path: Path, save: str):
    made, path = tmp_path / "made by the bomb", written.folder / RESUME
    state = {"weights_sha256": written.card.weights_sha256, "bomb": Bomb(made)}
    torch.save(state, path) if save == "torch" else path.write_bytes(pickle.dumps(state))
    refused(written, r"resume\.pt cannot be read as training state .*Begin anew: --restart", Checkpoint.resume_state)
    assert not made.exists()
    pickle.loads(pickle.dumps(Bomb(made)))  # the bomb itself is live
    assert made.exists()


def test_a_missing_resume_file_says_how_to_go_on(written: Checkpoint):
    (written.folder / RESUME).unlink()
    refused(written, r"has no resume\.pt, so training cannot go on\. Begin anew: --restart", Checkpoint.resume_state)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_resume_file_is_an_error(written: Checkpoint, cut: int):
    path = written.folder / RESUME
    path.write_bytes(path.read_bytes()[:cut])
    refused(written, r"resume\.pt cannot be read as training state \(\w+", Checkpoint.resume_state)


@pytest.mark.parametrize(
    "state", [{"step": 3}, {"weights_sha256": "of another"}, [1, 2], torch.ones(2)], ids=["none", "other", "list", "tensor"]
)
def test_a_resume_file_of_other_weights_is_an_error(written: Checkpoint, state):
    torch.save(state, written.folder / RESUME)
    refused(written, r"belongs to other weights than model\.safetensors", Checkpoint.resume_state)
