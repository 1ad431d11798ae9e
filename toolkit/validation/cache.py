"""Answers kept under the model's folder, by everything they depend on: what was not changed is not computed again."""

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import toolkit
from toolkit.artifact import Artifact
from toolkit.environment import describe
from toolkit.runtimes import Runtime
from toolkit.validation.worker import Answers

ROOMS = ("runtimes", "mil", "networks", "validation/worker.py", "data/pictures.py")  # the code that answers


class Cache:
    """`folder` None: nothing is kept and nothing is found."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.base = "" if folder is None else _code() + json.dumps(describe(), sort_keys=True)

    def path(self, artifact: Artifact, runtime: Runtime, images: Any, golden: Any) -> Path | None:
        """Where the answers of this artifact, runtime and these images are, or would be."""
        if self.folder is None:
            return None
        digest = hashlib.sha256(self.base.encode())
        about = [artifact.manifest.files, artifact.manifest.recipe_hash, runtime.id, runtime.version(), artifact.manifest.input_kind]
        digest.update(json.dumps(about, sort_keys=True).encode())
        for array in (images, golden):
            digest.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"

    def find(self, path: Path | None) -> Answers | None:
        """None where there are none, or where they cannot be read: they are then made again."""
        if path is None or not path.is_file():
            return None
        try:
            return Answers.load(path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None

    def keep(self, path: Path | None, answers: Answers) -> None:
        """Whole or not at all."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(suffix=".npz", dir=path.parent)
        os.close(handle)
        try:
            answers.save(Path(fresh))
            Path(fresh).replace(path)
        finally:
            Path(fresh).unlink(missing_ok=True)


def _code() -> str:
    home = Path(toolkit.__file__).parent
    digest = hashlib.sha256()
    for room in ROOMS:
        path = home / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
