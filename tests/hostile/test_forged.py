"""Forged folders, with everything hashed again: `verify` computes again what it can, and says what it cannot."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import Workspace
from tests.hostile.forged import FORGERIES, OTHER_FORMATS, Forgery, hash_again, onnx_and_golden, recipe_with
from toolkit.validation import validate, verify


def _validated(exported: Workspace, folder: Path, *names: str) -> Path:
    shutil.copytree(exported.folder, folder, ignore=shutil.ignore_patterns("reports"))
    for path in (folder / "exports").iterdir():
        if path.name not in names:
            shutil.rmtree(path)
    runtimes = ["torch-cpu", "onnxruntime-cpu", "coreml-reference", "coreai"]
    assert validate(Workspace(folder, folder / "recipe.toml"), runtimes=runtimes, isolate=False).passed
    return folder


@pytest.fixture(scope="module")
def genuine(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validated model with an ONNX file alone: quick to verify. Shared: copy it."""
    return _validated(exported, tmp_path_factory.mktemp("genuine") / "tiny", "onnx-fp32")


@pytest.fixture(scope="module")
def others(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _validated(exported, tmp_path_factory.mktemp("others") / "tiny", "coreml-fp16", "coreai-fp32")


def failed(folder: Path) -> list[str]:
    return [check.name for check in verify(folder, isolate=False).checks if not check.passed]


def _forged(genuine: Path, folder: Path, forgery: Forgery) -> Path:
    shutil.copytree(genuine, folder)
    forgery.forge(folder)
    if forgery.hashed:
        hash_again(folder)
    return folder


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda each: each.name)
def test_a_forgery_is_found(forgery: Forgery, genuine: Path, tmp_path: Path):
    assert forgery.caught in failed(_forged(genuine, tmp_path / "tiny", forgery))


@pytest.mark.parametrize("forgery", OTHER_FORMATS, ids=lambda each: each.name)
def test_a_forgery_of_another_format_is_found(forgery: Forgery, others: Path, tmp_path: Path):
    if "Core AI" in forgery.name and not find_spec("coreai_torch"):
        pytest.skip("coreai is not installed")
    assert forgery.caught in failed(_forged(others, tmp_path / "tiny", forgery))


def test_hashing_again_what_was_not_changed_changes_nothing(genuine: Path, tmp_path: Path):
    """The forger works: it is not his hashes that are found."""
    shutil.copytree(genuine, tmp_path / "tiny")
    hash_again(tmp_path / "tiny")
    assert failed(tmp_path / "tiny") == []


@pytest.mark.parametrize(("gates", "says"), [
    ("[gates.fp32]\nmax_abs_logit = 50.0\nmin_snr_db = 1.0\n", "gates.fp32.max_abs_logit is 50, by default it would be 0.000"),
    ("[gates.fp32]\nmax_abs_logit = 50.0\nmin_snr_db = 1.0\n", "gates.fp32.min_snr_db is 1"),
    ("[gates.fp32]\nmax_abs_logit = 50.0\nmin_snr_db = 1.0\n", "other gates than those that the model was trained with"),
])  # fmt: skip
def test_widened_gates_are_said_to_be_wide(gates: str, says: str, genuine: Path, tmp_path: Path):
    """A user may set them, so that no check fails: but nobody shall believe them unseen."""
    shutil.copytree(genuine, tmp_path / "tiny")
    recipe_with(gates)(tmp_path / "tiny")
    hash_again(tmp_path / "tiny")
    assert says in " ".join(verify(tmp_path / "tiny", isolate=False).notes)


def test_gates_that_are_narrower_are_not_worth_a_word(genuine: Path, tmp_path: Path):
    from toolkit.artifact import Artifact
    from toolkit.checkpoint import Checkpoint
    from toolkit.gates import wider
    from toolkit.recipe import Gate, Gates

    checkpoint, manifest = Checkpoint.open(genuine / "checkpoint"), Artifact.open(genuine / "exports/onnx-fp32").manifest
    assert wider(Gates(), checkpoint, manifest, 10.0) == []
    assert wider(Gates(fp32=Gate(max_changed=0, max_abs_logit=1e-6, max_accuracy_loss=0.5)), checkpoint, manifest, 10.0) == []
    loose = Gates(compressed=Gate(max_accuracy_loss=0.2))
    assert "compressed.max_accuracy_loss is 0.2" in wider(loose, checkpoint, manifest.model_copy(update={"compression": "int8"}), 10.0)[0]


def test_a_folder_that_is_another_model_throughout_is_found_by_its_digest_alone(genuine: Path, tmp_path: Path):
    """Checkpoint, exports and reports are real ones, of another training: nothing inside can tell."""
    from toolkit.export import Options, export
    from toolkit.recipe import Recipe
    from toolkit.training import train

    digest = verify(genuine, isolate=False).digest
    shutil.copytree(genuine, tmp_path / "tiny")
    workspace = Workspace(tmp_path / "tiny", tmp_path / "tiny/recipe.toml")
    train(workspace, Recipe.read(workspace.recipe, ["train.weight_decay=0.0002"]), device="cpu", restart=True)
    export(workspace, ["onnx"], Options())
    validate(workspace, isolate=False)
    found = verify(workspace.folder, isolate=False)
    assert found.passed
    assert not found.vouched
    against = verify(workspace.folder, isolate=False, digest=digest)
    assert [check.name for check in against.checks if not check.passed] == ["digest"]


def test_without_a_checkpoint_nothing_is_believed(genuine: Path, tmp_path: Path):
    shutil.copytree(genuine, tmp_path / "tiny")
    onnx_and_golden(tmp_path / "tiny")
    hash_again(tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny/checkpoint")
    result = verify(tmp_path / "tiny", isolate=False)
    assert not result.passed
    assert any("what it computes" in line for line in result.not_checked)
