"""onnxruntime-cpu and onnxruntime-coreml: ONNX Runtime with one execution provider."""

import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime

from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError
from toolkit.runtimes.base import Session, images_of
from toolkit.tensors import IMAGE, Batch


def why_not(provider: str) -> str | None:
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {provider}; it is part of the macOS builds, this is {sys.platform}"
    return None


def version() -> str:
    return metadata.version("onnxruntime")


def open_session(artifact: Artifact, threads: int | None, provider: str) -> Session:
    return OnnxSession(artifact, threads, provider)


def load(path: Path, threads: int | None, provider: str) -> Any:
    """An InferenceSession that knows where its nodes go. Raises ArtifactError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # before 1.24 an unknown key, and ignored
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # onnxruntime's exception types are private to its binding
        raise ArtifactError(f"onnxruntime does not load {path}: {error}") from error


def planned(session: Any) -> dict[str, int]:
    """Execution provider → nodes of the graph."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    found: Counter[str] = Counter()
    for part in ask() if ask is not None else ():
        found[part.ep_name] += len(part.get_nodes())
    return dict(found)


class OnnxSession:
    def __init__(self, artifact: Artifact, threads: int | None, provider: str) -> None:
        self.session = load(artifact.entry, threads, provider)
        self.artifact, self.provider = artifact, provider
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, batch: Batch) -> Batch:
        images_of(batch, self.artifact)
        try:
            outputs = self.session.run(self.names, batch)
        except Exception as error:  # as above: a graph that loads and does not run, such as one with its batch size baked in
            raise ArtifactError(f"onnxruntime does not run {self.artifact.entry} on {batch[IMAGE].shape}: {error}") from error
        return dict(zip(self.names, outputs, strict=True))

    def placement(self) -> tuple[str, ...]:
        return (self.provider,)  # get_providers() has the CPU's as well, which nobody asked for

    def planned(self) -> dict[str, int]:
        return planned(self.session)

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None:
        del self.session
