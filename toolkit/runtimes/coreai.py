"""coreai: Apple's own Core AI runtime from the coreai-core wheel, Linux included.

On Linux it is a correctness oracle (about four times slower than PyTorch eager), so its latencies are not reported.
"""

import asyncio
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import sha256_of
from toolkit.errors import ArtifactError
from toolkit.files import read_bytes
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import IMAGE, Batch

PROGRAM, HASH = "main.mlirb", "main.hash"
MAX_HASH_BYTES = 1024


def why_not() -> str | None:
    if find_spec("coreai") is None:
        machine = f"{platform.system()} {platform.machine()}"
        return f"coreai-core is not installed (pip install 'apple-deployment-toolkit[coreai]'; this is {machine})"
    return None


def version() -> str:
    return metadata.version("coreai-core")


def open_session(artifact: Artifact, threads: int | None) -> Session:
    return CoreAISession(artifact)


def check_program(entry: Path) -> None:
    """Raises ArtifactError where main.hash in the .aimodel is not the sha256 of main.mlirb; Apple's runtime on Linux does not look."""
    program, stated = entry / PROGRAM, entry / HASH
    if not program.is_file() or not stated.is_file():  # the runtime says what it misses
        return
    found, expected = sha256_of(program), read_bytes(stated, MAX_HASH_BYTES, raises=ArtifactError).hex()
    if found != expected:
        raise ArtifactError(
            f"{entry} was changed after it was written, or is damaged: {HASH} says {expected[:64] or 'nothing'}, and the sha256 of "
            f"{PROGRAM} is {found}. Export again, or get the file again"
        )


class CoreAISession:
    """Holds an event loop, because the runtime's model is an asynchronous context manager."""

    def __init__(self, artifact: Artifact) -> None:
        from coreai.authoring import AIModelAsset

        check_program(artifact.entry)
        self.artifact = artifact
        self.loop = asyncio.new_event_loop()
        try:
            # AIModel.load fails on Linux; an asset's executable does not.
            self.executable = AIModelAsset.load(artifact.entry).executable()
            self.function = self.loop.run_until_complete(self.executable.__aenter__()).load_function("main")
        except Exception as error:  # the binding raises RuntimeError, ValueError and its own types
            self.loop.close()
            raise ArtifactError(f"the Core AI runtime does not load {artifact.entry}: {error}") from error

    def __call__(self, batch: Batch) -> Batch:
        images = images_of(batch, self.artifact)
        rows = [self.loop.run_until_complete(self._one(image[None])) for image in images]  # the program takes batch 1
        return {name: np.concatenate([row[name] for row in rows]) for name in self.function.desc.output_names}

    async def _one(self, image: Any) -> dict[str, Any]:
        from coreai.runtime import NDArray

        found = await self.function({IMAGE: NDArray(np.ascontiguousarray(image))})
        return {name: found[name].numpy().copy() for name in self.function.desc.output_names}  # the buffer is reused

    def placement(self) -> tuple[str, ...]:
        return ()

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None:
        self.loop.run_until_complete(self.executable.__aexit__(None, None, None))
        self.loop.close()
