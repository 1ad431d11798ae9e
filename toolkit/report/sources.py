"""What a report is made from: the files of a model's workspace, read and checked against the checkpoint."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.bench.result import BenchResult
    from toolkit.validation.result import ValidationResult

Result = TypeVar("Result", bound=BaseModel)
JUDGED = ("held_out_accuracy", "test_accuracy")  # records of the training loop between epochs: of one or of the other


@dataclass(frozen=True)
class Missing:
    """A part that the report cannot have, in words, with the command that would make it."""

    why: str


@dataclass(frozen=True)
class Part:
    """An exported artifact, or why its folder is not to be used."""

    id: str
    artifact: Artifact | None
    problem: str | None


@dataclass(frozen=True)
class Sources:
    checkpoint: Checkpoint
    validation: "ValidationResult | Missing"
    bench: "BenchResult | Missing"
    records: list[dict[str, Any]] | Missing
    parts: list[Part] | Missing


def read(workspace: Workspace) -> Sources:
    """Raises CheckpointError without a checkpoint, and ToolkitError naming the file that is damaged."""
    from toolkit.bench import REPORT as BENCH
    from toolkit.bench import BenchResult
    from toolkit.validation import REPORT as VALIDATION
    from toolkit.validation import ValidationResult

    checkpoint = checkpoint_of(workspace)
    sha256 = checkpoint.card.weights_sha256
    return Sources(
        checkpoint=checkpoint,
        validation=_result(workspace.reports / VALIDATION, ValidationResult, "validate", sha256),
        bench=_result(workspace.reports / BENCH, BenchResult, "bench", sha256),
        records=_records(workspace.metrics),
        parts=_parts(workspace, sha256),
    )


def _result(path: "Path", kind: type[Result], command: str, sha256: str) -> Result | Missing:
    if not path.is_file():
        return Missing(f"not measured yet: run `toolkit {command}`")
    try:
        result = kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ToolkitError(f"{path} cannot be read: {_first_line(error)}. Make it again: toolkit {command}") from error
    if (found := getattr(result, "checkpoint_sha256", None)) != sha256:
        return Missing(
            f"stale: {path.name} was made from another checkpoint ({str(found)[:12]}, now {sha256[:12]}); run `toolkit {command}` again"
        )
    return result


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    return str(error)


def _records(path: "Path") -> list[dict[str, Any]] | Missing:
    """Figures of the training loop and of the looks between epochs (see training/fit.py), in order of time."""
    if not path.is_file():
        return Missing(f"not recorded: there is no {path.name} beside the checkpoint; run `toolkit train` for the curves")
    records = []
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(text)
            judged = [key for key in JUDGED if key in record]
            wanted = ("epoch", *judged) if judged else ("epoch", "step", "loss", "accuracy")
            records.append({**record, **{key: float(record[key]) for key in wanted}})
        except (ValueError, TypeError, KeyError) as error:
            raise ToolkitError(f"{path}, line {line} cannot be read as a record of training: {error}. Train again, or delete it") from error
    return records or Missing(f"not recorded: {path.name} is empty; run `toolkit train` for the curves")


def _parts(workspace: Workspace, sha256: str) -> list[Part] | Missing:
    """A damaged or stale artifact is listed with its fault: a report that left it out would hide it."""
    folders = [folder for folder in artifact_folders(workspace) if (folder / MANIFEST).is_file()]
    if not folders:
        return Missing("nothing exported yet: run `toolkit export --format coreml`")
    found = []
    for folder in folders:
        try:
            artifact = Artifact.open(folder)
        except ArtifactError as error:
            found.append(Part(folder.name, None, str(error)))
            continue
        stale = artifact.manifest.checkpoint_sha256 != sha256
        again = f"made from another checkpoint; run `toolkit export --format {artifact.format}` again"
        found.append(Part(folder.name, artifact, again if stale else None))
    return found
