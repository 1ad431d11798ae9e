"""What a report is made from: the files of a model's workspace, read and checked against the checkpoint."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.files import kind_of, read_bytes
from toolkit.limits import MAX_METRICS_BYTES, MAX_REPORT_BYTES
from toolkit.printable import line
from toolkit.records import LARGEST, read_record
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.bench.result import BenchResult
    from toolkit.validation.result import ValidationResult

JUDGED = ("held_out_accuracy", "test_accuracy")  # records of the training loop between epochs: of one or of the other


@dataclass(frozen=True)
class Missing:
    """A part that the report cannot have, in words, with the command that would make it."""

    why: str


@dataclass(frozen=True)
class Part:
    """An exported artifact, or why its folder is not to be used, or why the validation says nothing of it."""

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
    doubts: list[str] = field(default_factory=list)  # what the validation says nothing of, or what speaks against it


def read(workspace: Workspace) -> Sources:
    """Raises CheckpointError without a checkpoint, and ToolkitError naming the file that is damaged."""
    from toolkit.bench import REPORT as BENCH
    from toolkit.validation import REPORT as VALIDATION

    checkpoint = checkpoint_of(workspace)
    sha256 = checkpoint.card.weights_sha256
    validation = _validation(workspace.reports / VALIDATION, sha256)
    parts = _parts(workspace, sha256, validation)
    return Sources(
        checkpoint=checkpoint,
        validation=validation,
        bench=_bench(workspace.reports / BENCH, sha256),
        records=_records(workspace.metrics),
        parts=parts,
        doubts=[] if isinstance(validation, Missing) else _doubts(workspace, validation, parts),
    )


def _doubts(workspace: Workspace, validation: "ValidationResult", parts: list[Part] | Missing) -> list[str]:
    """Nothing that the validation did not see may pass on the page, nor what another validation of the same model found to fail."""
    from toolkit.validation.places import Place, changed_recipe, failures

    found = [] if isinstance(parts, Missing) else [f"{part.id}: {part.problem}" for part in parts if part.problem]
    found += changed_recipe(workspace, Place.of(workspace.reports))
    return found + failures(workspace, validation)


def _validation(path: "Path", sha256: str) -> "ValidationResult | Missing":
    from toolkit.validation import ValidationResult

    if kind_of(path) is None:
        return Missing("not measured yet: run `toolkit validate`")
    result = read_record(path, ValidationResult, MAX_REPORT_BYTES, advice="Make it again: toolkit validate")
    return _stale(path, result.checkpoint_sha256, "validate", sha256) or result


def _bench(path: "Path", sha256: str) -> "BenchResult | Missing":
    from toolkit.bench import read

    if kind_of(path) is None:
        return Missing("not measured yet: run `toolkit bench`")
    result = read(path)
    return _stale(path, result.checkpoint_sha256, "bench", sha256) or result


def _stale(path: "Path", found: str | None, command: str, sha256: str) -> Missing | None:
    if found == sha256:
        return None
    return Missing(
        f"stale: {path.name} was made from another checkpoint ({str(found)[:12]}, now {sha256[:12]}); run `toolkit {command}` again"
    )


def _records(path: "Path") -> list[dict[str, Any]] | Missing:
    """Figures of the training loop and of the looks between epochs (see training/fit.py), in order of time."""
    if kind_of(path) is None:
        return Missing(f"not recorded: there is no {path.name} beside the checkpoint; run `toolkit train` for the curves")
    records = []
    for number, text in enumerate(read_bytes(path, MAX_METRICS_BYTES).decode("utf-8", "replace").splitlines(), start=1):
        try:
            record = json.loads(text)
            judged = [key for key in JUDGED if key in record]
            wanted = ("epoch", *judged) if judged else ("epoch", "step", "loss", "accuracy")
            records.append({**record, **{key: _number(record, key) for key in wanted}})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = line(error, 200) if not isinstance(error, RecursionError) else "it is nested too deeply"
            raise ToolkitError(
                f"{path}, line {number} cannot be read as a record of training: {reason}. Train again, or delete it"
            ) from error
    return records or Missing(f"not recorded: {path.name} is empty; run `toolkit train` for the curves")


def _number(record: dict[str, Any], key: str) -> float:
    """Raises KeyError, TypeError or ValueError for what is no number, or none that a chart can show."""
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise ValueError(f"{key} is no number from 0 to {LARGEST:.0e}")
    return float(value)


def _parts(workspace: Workspace, sha256: str, validation: "ValidationResult | Missing") -> list[Part] | Missing:
    """A damaged, stale or unvalidated artifact is listed with its fault: a report that left it out would hide it."""
    from toolkit.validation.evidence import not_proved

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
        problem = "not validated" if isinstance(validation, Missing) else not_proved(validation, artifact)
        again = f"{problem}; run `toolkit validate`" if problem else None
        if artifact.manifest.checkpoint_sha256 != sha256:
            again = f"made from another checkpoint; run `toolkit export --format {artifact.format}` again"
        found.append(Part(folder.name, artifact, again))
    return found
