"""The two protocols: a Runtime opens an artifact, a Session computes with it. Neither ever reads a clock."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError, RuntimeUnavailable
from toolkit.limits import thread_count
from toolkit.tensors import IMAGE, Batch, TensorSpec


class Session(Protocol):
    """One loaded model. Host arrays in, host arrays out, so that returning is synchronising. Does not change its inputs."""

    def __call__(self, batch: Batch) -> Batch:
        """{"image": (N, C, H, W) float32 0..255} → {"logits": (N, classes) float32, "probabilities": …}."""

    def placement(self) -> tuple[str, ...]:
        """Where it was asked to run the model; () when there is no choice."""

    def planned(self) -> dict[str, int]:
        """Device or provider → ops, as the runtime itself plans them; {} when it does not say. May take seconds."""

    def framework_ns(self) -> int | None:
        """The runtime's own timing of the last call, where it has one."""

    def close(self) -> None: ...


class FileSession(Session, Protocol):
    """Of a file from elsewhere, whose inputs and outputs are its own."""

    def inputs(self) -> list[TensorSpec] | None:
        """What it takes, in order; -1 in a shape where any length is taken. None where the file does not say."""


class RuntimeModule(Protocol):
    """What a module in this room offers. `options` are the keyword arguments of the RUNTIMES line."""

    def why_not(self, **options: Any) -> str | None:
        """None where it can run, else the reason in words."""

    def version(self) -> str: ...

    def open_session(self, artifact: Artifact, threads: int | None, **options: Any) -> Session: ...


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A line of RUNTIMES. `is_device` is False where results count but latencies mean nothing."""

    id: str
    module: str
    reads: str  # a format
    is_device: bool = True
    batch: int = 1  # images a call that serve it well when latency is not the question
    precision: str | None = None  # what it computes in, where that is not the artifact's own precision
    most_images: int | None = None  # slow ones validate on a stratified subset of so many, and say so
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def threaded(self) -> bool:
        """Whether it can be told a number of threads: PyTorch and ONNX Runtime on the CPU can."""
        return "cpu" in (self.options.get("device"), self.options.get("provider", "").removesuffix("ExecutionProvider").lower())

    def _module(self) -> RuntimeModule:
        return import_module(self.module)  # a module as an object with functions

    def why_not(self) -> str | None:
        return self._module().why_not(**self.options)

    def version(self) -> str:
        return self._module().version()

    def compile(self, artifact: Artifact, folder: Path) -> bool:
        """Compiles into `folder` what ships into what the device loads; False where that is no step of its own."""
        step = getattr(self._module(), "compile_artifact", None)
        if step is not None:
            step(artifact, folder)
        return step is not None

    def open_file(self, path: Path, threads: int | None = None, *, trust: bool = False) -> "FileSession":
        """Open a file from elsewhere, without a manifest. Raises ToolkitError when it cannot be loaded, or could run code.

        `trust`: it was admitted (see strangers.py), or whoever asks trusts who made it, and it may run code.
        """
        from toolkit.runtimes.files import open_file

        return open_file(path, self.reads, thread_count(threads), self.options, trust)

    def open(self, artifact: Artifact, threads: int | None = None) -> Session:
        """A loaded session. Raises RuntimeUnavailable, or ArtifactError when the artifact is of another format."""
        threads = thread_count(threads)
        if reason := self.why_not():
            raise RuntimeUnavailable(f"{self.id} cannot run here: {reason}")
        if artifact.format != self.reads:
            raise ArtifactError(f"{self.id} reads {self.reads} artifacts; {artifact.folder} is {artifact.format}")
        return self._module().open_session(artifact, threads, **self.options)


def images_of(batch: Batch, artifact: Artifact) -> Any:
    """The images of a batch. Raises ArtifactError when name, shape or type are not what the manifest says."""
    spec = artifact.manifest.inputs[0]
    if set(batch) != {IMAGE}:
        raise ArtifactError(f"{artifact.id} takes one input named {IMAGE!r}, got {sorted(batch)}")
    images = batch[IMAGE]
    if not isinstance(images, np.ndarray):
        raise ArtifactError(f"{artifact.id} takes {IMAGE!r} as a NumPy array, got {type(images).__name__}")
    if images.ndim != len(spec.shape) or images.shape[1:] != spec.shape[1:] or len(images) == 0 or str(images.dtype) != spec.dtype:
        raise ArtifactError(
            f"{artifact.id} takes {IMAGE!r} as (N, {', '.join(map(str, spec.shape[1:]))}) {spec.dtype}, got {images.shape} {images.dtype}"
        )
    return images
