"""A model to attack, in a folder beside which a user's own files lie."""

import shutil
from pathlib import Path

import pytest

from toolkit.workspace import Workspace


@pytest.fixture(scope="session")
def released(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with recipe, checkpoint, exports, and the report and evidence of a validation. Shared: copy it."""
    from toolkit.validation import validate

    folder = tmp_path_factory.mktemp("released") / "models" / "tiny"
    shutil.copytree(exported.folder, folder)
    validate(Workspace(folder, folder / "recipe.toml"), runtimes=["torch-cpu", "onnxruntime-cpu", "coreml-reference"])
    return folder


@pytest.fixture
def model(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it at `tmp_path/models/tiny`, and a user's own files in `tmp_path/victim`."""
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(released, folder, symlinks=True)
    for name in ("Documents/letter.txt", "Documents/photos/1.txt", "emacs/init.el", ".emacs.d/init.el", ".checkpoint.bak/kept.txt"):
        path = tmp_path / "victim" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the user's own {name}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return folder
