"""What a release rests on, and checking it again: `toolkit verify FOLDER` needs the folder, and no network.

reports/evidence.json   sha256 of the data, the checkpoint, every file of every artifact and the report; seed, versions
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint, sha256_of
from toolkit.data import load
from toolkit.environment import describe
from toolkit.errors import DataError, ToolkitError
from toolkit.gates import allowed
from toolkit.limits import Limits
from toolkit.recipe import Recipe
from toolkit.records import Frozen, fault_rows
from toolkit.runtimes import RUNTIMES
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.validation.result import REPORT, Check, Level, ValidationResult
from toolkit.validation.run import answers_or_reason
from toolkit.validation.worker import Answers, Job
from toolkit.workspace import Workspace
from toolkit.writing import write_text

EVIDENCE = "evidence.json"
MAX_EVIDENCE_BYTES = 16 << 20
MAX_REPORT_BYTES = 1 << 28


class Evidence(Frozen):
    """`artifacts`: name → file → sha256, of those that a runtime was compared on. `passed`: what validation said when it was written.

    `recipe_sha256`: of recipe.toml, which holds the gates. `limit`: test images, where not all were taken. `images`: name → how many
    an artifact was compared on. What the report says as well is taken from there, and must be the same here.
    """

    schema_version: Literal[3] = 3
    model: str
    dataset: str
    data_sha256: str
    recipe_hash: str
    recipe_sha256: str
    checkpoint_sha256: str
    seed: int
    limit: int | None
    artifacts: dict[str, dict[str, str]]
    images: dict[str, int]
    report_sha256: str
    passed: bool
    versions: dict[str, str]


class VerifyResult(Frozen):
    """`not_checked`: what could not be, and why; never counted as passed."""

    folder: str
    checks: list[Check]
    not_checked: list[str]
    versions_then: dict[str, str]
    versions_now: dict[str, str]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)


def write(workspace: Workspace, result: ValidationResult, report: Path) -> None:
    """Beside the report, after every validation."""
    evidence = Evidence(
        model=result.model, dataset=result.dataset, data_sha256=result.data_sha256, recipe_hash=result.recipe_hash,
        recipe_sha256=sha256_of(workspace.recipe), checkpoint_sha256=result.checkpoint_sha256, seed=result.seed, limit=result.limit,
        report_sha256=sha256_of(report), passed=result.passed, versions=result.environment,
        artifacts=_proved(result), images=result.proved,
    )  # fmt: skip
    write_text(workspace.reports / EVIDENCE, evidence.model_dump_json(indent=1), workspace.folder)


def files_of(artifact: Artifact) -> dict[str, str]:
    """File → sha256 of all that it consists of."""
    return artifact.manifest.files | {MANIFEST: sha256_of(artifact.folder / MANIFEST)}


def _proved(result: ValidationResult) -> dict[str, dict[str, str]]:
    return {name: files for name, files in result.artifacts.items() if name in result.proved}


def verify(folder: Path, *, data_dir: Path | None = None, isolate: bool = True) -> VerifyResult:
    """Checks a model's folder against its evidence. Raises ToolkitError where there is none to check against.

    `isolate`: each file runs in a process of its own, as in validation.
    """
    path = folder / "reports" / EVIDENCE
    try:
        if path.stat().st_size > MAX_EVIDENCE_BYTES:
            raise ToolkitError(f"{path} has {path.stat().st_size} bytes, more than any evidence of ours")
        evidence = Evidence.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ToolkitError(f"{path} cannot be read as evidence: {'; '.join(fault_rows(error))}. Validate again") from error
    except OSError as error:
        raise ToolkitError(
            f"{path} cannot be read: {error.strerror}. Give the folder of a model that was validated: toolkit validate"
        ) from error
    not_checked: list[str] = []
    result, found = _read_report(folder, evidence)
    not_checked += [] if result is None else _stated(result)
    checks = [
        *found, *([] if result is None else _report(result, evidence)), *_recipe(folder, evidence), *_checkpoint(folder, evidence),
        *_data(evidence, data_dir, not_checked), *_artifacts(folder, evidence, isolate, not_checked),
    ]  # fmt: skip
    return VerifyResult(
        folder=str(folder), checks=checks, not_checked=not_checked, versions_then=evidence.versions, versions_now=describe()
    )


def _read_report(folder: Path, evidence: Evidence) -> tuple[ValidationResult | None, list[Check]]:
    """The report, where it is the one that the evidence names."""
    path = folder / "reports" / REPORT
    found = sha256_of(path) if path.is_file() else "missing"
    checks = [_same("report", "sha256 of the report", found, evidence.report_sha256)]
    if found != evidence.report_sha256:
        return None, checks
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ToolkitError(f"{path} has {path.stat().st_size} bytes, more than any report of ours")
        return ValidationResult.model_validate_json(path.read_bytes()), checks
    except (ValidationError, ToolkitError) as error:
        return None, [*checks, _check("report", "can be read", False, "no", "yes", str(error).splitlines()[0])]


def _report(result: ValidationResult, evidence: Evidence) -> Iterator[Check]:
    """What the report itself comes to, from its own checks and rows: the evidence only repeats it."""
    passed = result.passed and evidence.passed
    yield _check("report", "validation had passed", passed, "passed" if passed else "failed", "passed")
    for name in ("model", "dataset", "data_sha256", "recipe_hash", "checkpoint_sha256", "seed", "limit"):
        yield _same("report", name.replace("_", " "), str(getattr(evidence, name)), str(getattr(result, name)))
    same = _proved(result) == evidence.artifacts and result.proved == evidence.images
    yield _check(
        "report", "artifacts", same, ", ".join(evidence.artifacts) or "none", ", ".join(result.proved) or "none",
        "the evidence lists other artifacts, files or numbers of images than the report: validate again",
    )  # fmt: skip
    yield _extent(result)


def _extent(result: ValidationResult) -> Check:
    """Only the whole test set is evidence; of a format that has slow runtimes alone, their part of it, which is said (see not_checked)."""
    partly = [f"{name} on {images}" for name, images in result.proved.items() if images < result.test_images and not _slow(result, name)]
    detail = "validate again, without --limit, and with a runtime that sees all, or --all-images"
    return _check("report", "validated on", not partly, ", ".join(partly) or "the whole test set", "the whole test set", detail)


def _slow(result: ValidationResult, name: str) -> bool:
    form = name.partition("-")[0]
    return result.limit is None and not any(each.reads == form and each.most_images is None for each in RUNTIMES.values())


def _stated(result: ValidationResult) -> list[str]:
    return [
        f"{name} on all of the test set: it was compared on {images} of {result.test_images} images; all: toolkit validate --all-images"
        for name, images in result.proved.items()
        if images < result.test_images and _slow(result, name)
    ]


def _recipe(folder: Path, evidence: Evidence) -> Iterator[Check]:
    """The gates are in it: who widens them proves nothing."""
    path = folder / "recipe.toml"
    found = sha256_of(path) if path.is_file() else "missing"
    yield _same("recipe", "sha256 of recipe.toml", found, evidence.recipe_sha256)


def _checkpoint(folder: Path, evidence: Evidence) -> Iterator[Check]:
    try:
        checkpoint = checkpoint_of(Workspace(folder, folder / "recipe.toml"))
        checkpoint.weights()  # with its sha256
    except ToolkitError as error:
        yield _check("checkpoint", "can be read", False, "no", "yes", str(error))
        return
    card = checkpoint.card
    yield _same("checkpoint", "sha256 of the weights", card.weights_sha256, evidence.checkpoint_sha256)
    yield _same("checkpoint", "recipe hash", card.recipe_hash, evidence.recipe_hash)
    yield _same("checkpoint", "seed", str(card.seed), str(evidence.seed))


def _data(evidence: Evidence, data_dir: Path | None, not_checked: list[str]) -> Iterator[Check]:
    try:
        data = load(evidence.dataset, data_dir, download=False)
    except DataError as error:
        not_checked.append(f"the test set: {error}")
        return
    yield _same("data", "sha256 of the test set", data.test_sha256(), evidence.data_sha256)


def _artifacts(folder: Path, evidence: Evidence, isolate: bool, not_checked: list[str]) -> Iterator[Check]:
    there = {path.name for path in artifact_folders(Workspace(folder, folder / "recipe.toml"))}
    for name in sorted(there - set(evidence.artifacts)):
        yield _check(name, "was validated", False, "not in the evidence", "every artifact of the folder", "toolkit validate")
    for name, files in evidence.artifacts.items():
        if name not in there:  # nor is a name a path that leads somewhere else
            yield _check(name, "is there", False, "missing", "every artifact that was validated")
            continue
        try:
            artifact = Artifact.open(folder / "exports" / name)
        except ToolkitError as error:
            yield _check(name, "files are whole", False, "no", "sha256 of each file", str(error))
            continue
        there_now = files_of(artifact)
        changed = sorted(file for file in files.keys() | there_now.keys() if files.get(file) != there_now.get(file))
        yield _check(
            name, "files are those that were validated", not changed, ", ".join(changed) or f"{len(files)} files", "the same sha256"
        )
        yield _same(name, "checkpoint", artifact.manifest.checkpoint_sha256, evidence.checkpoint_sha256)
        yield from _golden(folder, artifact, isolate, not_checked)


def _golden(folder: Path, artifact: Artifact, isolate: bool, not_checked: list[str]) -> Iterator[Check]:
    """Runs the file again on its golden images, with the first runtime that reads it and runs here, in a process of its own."""
    runtime = next((each for each in RUNTIMES.values() if each.reads == artifact.format and each.why_not() is None), None)
    if runtime is None:
        not_checked.append(f"{artifact.id}: nothing here runs {artifact.format}")
        return
    gate: float | None = None
    answers: Answers | str
    try:
        images, logits = artifact.golden()
        gates, checkpoint = Recipe.read(folder / "recipe.toml").gates, Checkpoint.open(folder / "checkpoint")
        gate = allowed(gates, checkpoint, artifact.manifest, float(np.abs(logits).max())).max_abs_logit
        job = Job(str(artifact.folder.absolute()), runtime.id, golden=images, classes=len(artifact.manifest.class_labels))
        answers = answers_or_reason(job, images[:1].astype(np.uint8), Limits(), isolate, lambda done: None)
    except ToolkitError as failure:
        answers = str(failure)
    if isinstance(answers, str):
        yield _check(artifact.id, f"golden logits on {runtime.id}", False, "does not run", "runs", answers, "golden")
        return
    error = float(np.abs(answers.golden - logits).max())
    if gate is None:
        not_checked.append(f"{artifact.id}: compressed, judged by its accuracy and not by its golden logits (max |Δ| {error:.3g})")
        return
    yield _check(
        artifact.id, f"golden logits on {runtime.id}", error <= gate, f"max |Δ logit| {error:.3g} on {len(images)} images", f"≤ {gate:.3g}",
        level="golden",
    )  # fmt: skip


def _same(who: str, name: str, found: str, wanted: str) -> Check:
    return _check(who, name, found == wanted, found, wanted)


def _check(who: str, name: str, passed: bool, figure: str, gate: str, detail: str = "", level: Level = "files") -> Check:
    return Check(
        level=level, name=name, artifact=who, runtime=None, passed=passed, figure=figure, gate=gate,
        why="as reports/evidence.json has it", detail="" if passed else detail,
    )  # fmt: skip
