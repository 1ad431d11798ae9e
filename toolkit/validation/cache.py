"""Answers kept in the user's cache folder, by everything they depend on: what was not changed is not computed again.

Not in the model's folder: a downloaded model would bring its own answers along.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import toolkit
from toolkit.artifact import Artifact
from toolkit.environment import describe
from toolkit.errors import DiskError
from toolkit.progress import say
from toolkit.runtimes import Runtime
from toolkit.scratch import NEW, recover, scratch, unwritable
from toolkit.validation.worker import Answers, Job, rows_of
from toolkit.workers import wire

# The code that answers.
ROOMS = ("runtimes", "mil", "networks", "validation/worker.py", "validation/pictures.py", "data/pictures.py", "artifact.py", "tensors.py")


def home() -> Path:
    import platformdirs

    return Path(os.environ.get("TOOLKIT_CACHE") or platformdirs.user_cache_path("toolkit")) / "validation"


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
        about = [artifact.manifest.model_dump(mode="json"), runtime.id, runtime.version()]
        digest.update(json.dumps(about, sort_keys=True).encode())
        for array in (images, golden):
            digest.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.answers"

    def find(self, path: Path | None, job: Job, images: int) -> Answers | None:
        """The answers to `job` on so many images. None where there are none, or they cannot be read or do not fit: they are made again."""
        if path is None or not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                frame = wire.read(file)
            return None if frame is None else Answers.of(frame[1], rows_of(job, images), job.classes)
        except (OSError, wire.WireError):
            return None

    def keep(self, path: Path | None, answers: Answers) -> None:
        """Whole or not at all. A disk that is full or not to be written costs the next run some time, and this one nothing."""
        if path is None:
            return
        try:
            recover(path.parent)
            with scratch(path) as place:
                with (place / NEW).open("wb") as file:
                    wire.write(file, "answers", answers.message())
                (place / NEW).replace(path)
        except (OSError, DiskError) as error:
            say(f"answers are not remembered: {error if isinstance(error, DiskError) else unwritable(path.parent, error)}")


def _code() -> str:
    room_of = Path(toolkit.__file__).parent
    digest = hashlib.sha256()
    for room in ROOMS:
        path = room_of / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
