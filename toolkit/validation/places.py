"""Where a validation is kept: its report and its evidence. A lesser validation goes beside a better one, which stays.

reports/validation.json, evidence.json                   the best validation of the model as it is
reports/validation-partial.json, evidence-partial.json   one that compared less, if there was one; then -partial-2, …
"""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

from toolkit.artifact import TORCH, Artifact
from toolkit.checkpoint import sha256_of
from toolkit.errors import ToolkitError
from toolkit.files import FILE, kind_of
from toolkit.progress import say
from toolkit.validation.evidence import EVIDENCE, Evidence, evidence_of, files_of, read_evidence, read_report
from toolkit.validation.result import REPORT, ValidationResult
from toolkit.workspace import Workspace, keep_recipe
from toolkit.writing import write_text

# Where one of these differs, the validation that is there is of another model, or was judged by other gates
SAME = ("recipe_hash", "recipe_sha256", "checkpoint_sha256", "card_sha256", "data_sha256")


@dataclass(frozen=True)
class Place:
    report: Path
    evidence: Path

    @classmethod
    def of(cls, reports: Path, suffix: str = "") -> "Place":
        return cls(*(reports / f"{Path(name).stem}{suffix}.json" for name in (REPORT, EVIDENCE)))


def keep(workspace: Workspace, result: ValidationResult, *, partial: bool) -> Place:
    """Write report and evidence, beside those of a better validation where one is there, and say so. Return where they are.

    Better is one of the same checkpoint, data and recipe that compared something more: an artifact, a runtime, or more images, of files
    that have not changed since. `partial`: a part was asked for; such a validation does not replace what cannot be read either.
    Raises ToolkitError where nothing can be written.
    """
    keep_recipe(workspace)
    text = result.model_dump_json(indent=1)
    evidence = evidence_of(workspace, result, text)
    own = place = Place.of(workspace.reports)
    first = reason = _stays(workspace, result, evidence, own, partial)
    for number in itertools.count(1):
        if reason is None:
            break
        place = Place.of(workspace.reports, f"-partial{'' if number == 1 else f'-{number}'}")
        reason = _stays(workspace, result, evidence, place, partial)
    if first is not None:
        say(f"{own.report} stays as it is: {first}. This validation goes to {place.report}")
    write_text(place.report, text, workspace.folder)
    write_text(place.evidence, evidence.model_dump_json(indent=1), workspace.folder)
    return place


def digest_of_last(workspace: Workspace, result: ValidationResult) -> str | None:
    """Return the digest (sha256 of evidence.json) where it is the evidence of that validation; None where that lies beside a better one."""
    try:
        evidence, content = read_evidence(Place.of(workspace.reports).evidence)
    except ToolkitError:  # it cannot be read, and stays; what that validation found lies beside it
        return None
    own = evidence.report_sha256 == hashlib.sha256(result.model_dump_json(indent=1).encode()).hexdigest()
    return hashlib.sha256(content).hexdigest() if own else None


def changed_recipe(workspace: Workspace, place: Place) -> list[str]:
    """Say that the gates may be others than those a validation was judged by; nothing where there is no evidence to tell."""
    try:
        proof, _ = read_evidence(place.evidence)
    except ToolkitError:
        return []
    return (
        []
        if proof.recipe_sha256 == sha256_of(workspace.recipe)
        else ["recipe.toml, which holds the gates, was changed since the validation"]
    )


def failures(workspace: Workspace, result: ValidationResult) -> list[str]:
    """Lesser validations of the same checkpoint and files that failed."""
    found = []
    for path in sorted(workspace.reports.glob(f"{Path(REPORT).stem}-partial*.json")):
        try:
            other, _ = read_report(path)
        except ToolkitError:  # nothing rests on it
            continue
        same = other.checkpoint_sha256 == result.checkpoint_sha256 and other.artifacts.items() <= result.artifacts.items()
        if same and not other.passed:
            found.append(f"{path.name}: another validation of the same files failed")
    return found


def _stays(workspace: Workspace, result: ValidationResult, evidence: Evidence, place: Place, partial: bool) -> str | None:
    """Why what is there must not be replaced; None where it may be, or nothing is there."""
    for path in (place.report, place.evidence):
        if (kind := kind_of(path)) not in (None, FILE):
            return f"{path} is {kind}"
    if kind_of(place.report) is None:
        return None
    try:
        there, sha256 = read_report(place.report)
        proof, _ = read_evidence(place.evidence)
        if proof.report_sha256 != sha256:
            raise ToolkitError(f"{place.evidence} is of another report")
    except ToolkitError as error:
        return f"{error}, and this validation is of a part only" if partial else None
    if any(getattr(proof, name) != getattr(evidence, name) for name in SAME):
        return None
    asked = _asked(result)
    for row in there.rows:
        images = asked.get((row.artifact, row.runtime), 0)
        if images < row.images and _unchanged(workspace, there, result, row.artifact):
            return f"it compared {row.artifact} on {row.runtime} on {row.images} images, this one on {images or 'none'}"
    return None


def _asked(result: ValidationResult) -> dict[tuple[str, str], int]:
    """(artifact, runtime) → images; one that was asked and did not answer was asked about all of them."""
    tried = {(check.artifact, check.runtime): len(result.test_indices) for check in result.checks if check.runtime is not None}
    return tried | {(row.artifact, row.runtime): row.images for row in result.rows}


def _unchanged(workspace: Workspace, there: ValidationResult, result: ValidationResult, name: str) -> bool:
    """Whether the files that were compared are those of today."""
    if name == TORCH:  # its checkpoint is the same
        return True
    if name in result.artifacts:
        return result.artifacts[name] == there.artifacts.get(name)
    try:
        return files_of(Artifact.open(workspace.exports / name)) == there.artifacts.get(name)
    except ToolkitError:  # gone, or damaged
        return False
