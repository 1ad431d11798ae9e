"""Convert, and run what came out, in a worker where the libraries of a format could take the command down: the tasks `convert`, `run`.

Core AI's abort the whole process where they cannot write (LLVM: "IO failure on output stream"). A worker that is lost is an
ExportError, and nothing is left behind.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ExportError
from toolkit.export.formats import Converted, Exporter, Options, Source, find
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.runtimes import find as find_runtime
from toolkit.runtimes.outputs import rows_of
from toolkit.tensors import IMAGE, LOGITS
from toolkit.workers import Message, WorkerLost, call
from toolkit.workers.child import Link

Array = np.ndarray[Any, Any]
_CONVERTED = TypeAdapter(Converted)


def convert(exporter: Exporter, name: str, source: Source, route: str, folder: Path) -> Converted:
    """What the exporter makes in `folder`. Raises ExportError, also where its process is lost."""
    if not exporter.alone:
        return exporter.convert(source, route, folder)
    exporter.require()
    fields = {
        "checkpoint": str(source.checkpoint.folder.absolute()), "name": name, "precision": source.precision,
        "options": asdict(source.options), "route": route, "folder": str(folder.absolute()),
    }  # fmt: skip
    try:
        return _CONVERTED.validate_python(call("convert", Message(fields)).fields)
    except WorkerLost as lost:
        raise ExportError(f"the process that converted to {name} was lost: {lost}") from lost
    except ValidationError as error:
        raise ExportError(f"the process that converted to {name} gave no result that can be read: {error}") from error


def run(exporter: Exporter, artifact: Artifact, images: Array) -> Array:
    """Logits (N, classes) of what was converted, from the runtime that proves it. Raises ToolkitError where it does not run."""
    if not exporter.alone:
        return _run(artifact, exporter.prover, images)
    try:
        request = Message({"folder": str(artifact.folder.absolute()), "runtime": exporter.prover}, {"images": images})
        found = call("run", request).arrays.get(LOGITS)
    except WorkerLost as lost:
        raise ExportError(f"the process that ran {artifact.id} was lost: {lost}") from lost
    if found is None or found.shape != (len(images), len(artifact.manifest.class_labels)) or found.dtype.kind != "f":
        raise ExportError(f"the process that ran {artifact.id} gave no logits for {len(images)} images")
    return found


def task(request: Message, link: Link) -> Message:
    """The task `convert`."""
    given = request.fields
    checkpoint = Checkpoint.open(Path(given["checkpoint"]))
    options = Options(**{**given["options"], "keep_fp32": tuple(given["options"]["keep_fp32"])})
    model = WithProbabilities(from_checkpoint(checkpoint)).eval()
    source = Source(checkpoint=checkpoint, model=model, precision=given["precision"], options=options)
    converted = find(given["name"]).convert(source, given["route"], Path(given["folder"]))
    return Message(_CONVERTED.dump_python(converted, mode="json"))


def run_task(request: Message, link: Link) -> Message:
    """The task `run`."""
    artifact = Artifact.open(Path(request.fields["folder"]))
    return Message({}, {LOGITS: _run(artifact, request.fields["runtime"], request.arrays["images"])})


def _run(artifact: Artifact, runtime: str, images: Array) -> Array:
    session = find_runtime(runtime).open(artifact)
    try:
        return rows_of(session({IMAGE: images}), LOGITS, f"{artifact.id} on {runtime}", len(images), len(artifact.manifest.class_labels))
    finally:
        session.close()
