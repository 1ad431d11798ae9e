"""Check a folder again that was validated: `toolkit verify FOLDER` needs the folder, and no network.

Everything in it is compared with reports/evidence.json; what can be computed again, from the checkpoint and from the report's own rows, is.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import CARD, Checkpoint, sha256_of
from toolkit.data import Dataset, load
from toolkit.environment import describe
from toolkit.errors import DataError, ToolkitError
from toolkit.gates import allowed, rounding, wider
from toolkit.golden import golden_images
from toolkit.limits import Limits
from toolkit.recipe import Recipe
from toolkit.records import Frozen
from toolkit.runtimes import RUNTIMES, Runtime
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.validation import files, judge, outside, recomputed
from toolkit.validation.evidence import EVIDENCE, Evidence, files_of, proved_files, read_evidence, read_report
from toolkit.validation.interface import Interface
from toolkit.validation.outside import Signature
from toolkit.validation.result import REPORT, Check, Level, ValidationResult
from toolkit.validation.run import answers_or_reason, interfaces
from toolkit.validation.truth import Array, double
from toolkit.validation.worker import Job
from toolkit.workspace import Workspace

TRUST = (
    "This proves that the folder is consistent with itself. Who can change the folder can change its evidence: compare the digest with one "
    "that was kept elsewhere (--digest), or verify a signature (--signature, --key)"
)


class VerifyResult(Frozen):
    """`not_checked`: what could not be, and why; never counted as passed. `notes`: what a reader must know, though no check failed.

    `digest`: sha256 of evidence.json, which names the sha256 of everything else that counts. `vouched`: whether anything from outside of
    the folder spoke for it.
    """

    folder: str
    checks: list[Check]
    not_checked: list[str]
    notes: list[str]
    digest: str
    vouched: bool
    versions_then: dict[str, str]
    versions_now: dict[str, str]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)


@dataclass
class _Folder:
    """What the checks share. What is None could not be had, and a check or `not_checked` says why."""

    folder: Path
    evidence: Evidence
    isolate: bool
    recipe: Recipe | None = None
    checkpoint: Checkpoint | None = None
    data: Dataset | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)  # those whose files are whole
    not_checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    folder: Path, *, data_dir: Path | None = None, isolate: bool = True, digest: str | None = None, signature: Signature | None = None
) -> VerifyResult:
    """Check a model's folder against its evidence, and the evidence against a digest or a signature from elsewhere.

    `isolate`: each file runs in a process of its own, as in validation. `digest`: 64 hexadecimal digits, or a file that holds them.
    Raises ToolkitError where there is no evidence to check against, or where digest or signature could not be checked.
    """
    evidence, content = read_evidence(folder / "reports" / EVIDENCE)
    found = hashlib.sha256(content).hexdigest()
    checks = [] if digest is None else [_same("evidence", "digest", found, outside.digest_of(digest, folder))]
    checks += [] if signature is None else [outside.signature_check(content, signature, folder)]
    all_of = _Folder(folder, evidence, isolate)
    checks += [*_recipe(all_of), *_checkpoint(all_of), *_data(all_of, data_dir), *_files(all_of)]
    checks += [*_report(all_of), *_computed(all_of)]
    return VerifyResult(
        folder=str(folder), checks=checks, not_checked=all_of.not_checked, notes=list(dict.fromkeys(all_of.notes)), digest=found,
        vouched=digest is not None or signature is not None, versions_then=evidence.versions, versions_now=describe(),
    )  # fmt: skip


def _recipe(all_of: _Folder) -> Iterator[Check]:
    """The gates are in it: who widens them proves nothing."""
    path = all_of.folder / "recipe.toml"
    found = sha256_of(path) if path.is_file() else "missing"
    yield _same("recipe", "sha256 of recipe.toml", found, all_of.evidence.recipe_sha256)
    if path.is_file():
        try:
            all_of.recipe = Recipe.read(path)
        except ToolkitError as error:
            yield _check("recipe", "can be read", False, "no", "yes", str(error))


def _checkpoint(all_of: _Folder) -> Iterator[Check]:
    evidence, place = all_of.evidence, all_of.folder / "checkpoint"
    try:
        checkpoint = checkpoint_of(Workspace(all_of.folder, all_of.folder / "recipe.toml"))
        checkpoint.weights()  # with its sha256
    except ToolkitError as error:
        yield _check("checkpoint", "can be read", False, "no", "yes", str(error))
        return
    card = checkpoint.card
    yield _same("checkpoint", "sha256 of the weights", card.weights_sha256, evidence.checkpoint_sha256)
    yield _same("checkpoint", "sha256 of its card", sha256_of(place / CARD), evidence.card_sha256)
    yield _same("checkpoint", "recipe hash", card.recipe_hash, evidence.recipe_hash)
    yield _same("checkpoint", "seed", str(card.seed), str(evidence.seed))
    yield _same("checkpoint", "data set", checkpoint.recipe.data.set, evidence.dataset)
    all_of.checkpoint = checkpoint
    if all_of.recipe is not None and all_of.recipe.gates != checkpoint.recipe.gates:
        all_of.notes.append("recipe.toml has other gates than those that the model was trained with, which its card holds")


def _data(all_of: _Folder, data_dir: Path | None) -> Iterator[Check]:
    try:
        data = load(all_of.evidence.dataset, data_dir, download=False)
    except DataError as error:
        all_of.not_checked.append(f"the test set: {error}")
        return
    yield _same("data", "sha256 of the test set", data.test_sha256(), all_of.evidence.data_sha256)
    all_of.data = data


def _report(all_of: _Folder) -> Iterator[Check]:
    """What the report itself comes to, from its own checks and rows: the evidence only repeats it."""
    evidence = all_of.evidence
    try:
        result, found = read_report(all_of.folder / "reports" / REPORT)
    except ToolkitError as error:
        yield _check("report", "can be read", False, "no", "yes", str(error))
        return
    yield _same("report", "sha256 of the report", found, evidence.report_sha256)
    if found != evidence.report_sha256:
        return
    passed = result.passed and evidence.passed
    yield _check("report", "validation had passed", passed, "passed" if passed else "failed", "passed")
    for name in ("model", "dataset", "data_sha256", "recipe_hash", "checkpoint_sha256", "seed", "limit"):
        yield _same("report", name.replace("_", " "), str(getattr(evidence, name)), str(getattr(result, name)))
    same = proved_files(result) == evidence.artifacts and result.proved == evidence.images
    yield _check(
        "report", "artifacts", same, ", ".join(evidence.artifacts) or "none", ", ".join(result.proved) or "none",
        "the evidence lists other artifacts, files or numbers of images than the report: validate again",
    )  # fmt: skip
    yield _extent(result)
    all_of.not_checked += _stated(result)
    gates = None if all_of.recipe is None else all_of.recipe.gates
    compressed = frozenset(name for name, each in all_of.artifacts.items() if each.manifest.compression is not None)
    yield from recomputed.checks(result, recomputed.Known(all_of.checkpoint, gates, all_of.data, _truth(all_of), compressed))


def _truth(all_of: _Folder) -> Array | None:
    """(64, classes) float64, of the golden images from the checkpoint; None where one of the two is missing, or does not fit the other."""
    checkpoint, data = all_of.checkpoint, all_of.data
    if checkpoint is None or data is None or tuple(data.test_images.shape[1:]) != checkpoint.card.input_shape:
        return None
    return double(checkpoint, golden_images(data))


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


def _files(all_of: _Folder) -> Iterator[Check]:
    evidence, workspace = all_of.evidence, Workspace(all_of.folder, all_of.folder / "recipe.toml")
    there = {path.name for path in artifact_folders(workspace)}
    for name in sorted(there - set(evidence.artifacts)):
        yield _check(name, "was validated", False, "not in the evidence", "every artifact of the folder", "toolkit validate")
    for name, hashes in evidence.artifacts.items():
        if name not in there:  # nor is a name a path that leads somewhere else
            yield _check(name, "is there", False, "missing", "every artifact that was validated")
            continue
        try:
            artifact = all_of.artifacts[name] = Artifact.open(workspace.exports / name)
        except ToolkitError as error:
            yield _check(name, "files are whole", False, "no", "sha256 of each file", str(error))
            continue
        now = files_of(artifact)
        changed = sorted(file for file in hashes.keys() | now.keys() if hashes.get(file) != now.get(file))
        yield _check(
            name, "files are those that were validated", not changed, ", ".join(changed) or f"{len(hashes)} files", "the same sha256"
        )
        yield _same(name, "checkpoint", artifact.manifest.checkpoint_sha256, evidence.checkpoint_sha256)


def _computed(all_of: _Folder) -> Iterator[Check]:
    opened = all_of.artifacts
    if all_of.checkpoint is None or all_of.recipe is None:
        all_of.not_checked += [f"{name}: what it computes: there is no checkpoint, or no recipe, to compare it with" for name in opened]
        return
    said = interfaces([artifact.folder for artifact in opened.values()], Limits(), all_of.isolate)
    for artifact, own in zip(opened.values(), said, strict=True):
        yield from _of_the_checkpoint(all_of, artifact, own, all_of.checkpoint, all_of.recipe)


def _of_the_checkpoint(
    all_of: _Folder, artifact: Artifact, own: Interface | str, checkpoint: Checkpoint, recipe: Recipe
) -> Iterator[Check]:
    """Whether it says of itself, promises and computes what the checkpoint does. Golden logits are computed again: theirs may be forged."""
    said = [*files.checks(artifact, checkpoint, own), files.fits(artifact, checkpoint)]
    wrong = [check for check in said if not check.passed]
    yield from wrong or [_check(artifact.id, "what it says of itself", True, f"{len(said)} checks passed", "as the checkpoint has it")]
    if not said[-1].passed:  # other images, or other classes
        return
    try:
        images, _ = artifact.golden()
        truth = double(checkpoint, images)
        yield files.golden_images(artifact, all_of.data)
        yield files.golden_file(artifact, truth)
    except ToolkitError as error:
        yield _check(artifact.id, "golden outputs", False, "cannot be read", "can be read", str(error), "golden")
        return
    all_of.notes += wider(recipe.gates, checkpoint, artifact.manifest, float(np.abs(truth).max()))
    runtime = next((each for each in RUNTIMES.values() if each.reads == artifact.format and each.why_not() is None), None)
    if runtime is None:
        all_of.not_checked.append(f"{artifact.id}: nothing here runs {artifact.format}")
        return
    yield from _run(all_of, artifact, runtime, images, _case(checkpoint, recipe, artifact, runtime, images, truth))


def _case(checkpoint: Checkpoint, recipe: Recipe, artifact: Artifact, runtime: Runtime, images: Array, truth: Array) -> judge.Case:
    """The golden images are the test images as well: what a file makes of its own logits is judged on them."""
    gate = allowed(recipe.gates, checkpoint, artifact.manifest, float(np.abs(truth).max()))
    return judge.Case(
        artifact=artifact.id, runtime=runtime.id, precision=artifact.manifest.precision, indices=np.arange(len(images)), whole=True,
        labels=truth.argmax(1), reference=truth, golden=truth, pictures=truth[:0], picture_kinds=(), gate=gate, golden_gate=gate,
        explain=lambda found: "it is another model than the checkpoint", class_labels=tuple(checkpoint.card.class_labels),
        rounding=rounding(checkpoint, artifact.manifest.precision) if artifact.manifest.compression is not None else None,
    )  # fmt: skip


def _run(all_of: _Folder, artifact: Artifact, runtime: Runtime, images: Array, case: judge.Case) -> Iterator[Check]:
    """Run the file on its golden images, with the first runtime that reads it and runs here, in a process of its own."""
    job = Job(str(artifact.folder.absolute()), runtime.id, golden=images, classes=len(artifact.manifest.class_labels))
    answers = answers_or_reason(job, images.astype(np.uint8), Limits(), all_of.isolate, lambda done: None)
    if isinstance(answers, str):
        yield _check(artifact.id, f"golden logits on {runtime.id}", False, "does not run", "runs", answers, "golden")
        return
    if case.golden_gate.max_abs_logit is None:
        error = float(np.abs(answers.golden - case.golden).max())
        all_of.not_checked.append(f"{artifact.id}: compressed, judged by its accuracy and not by its golden logits (max |Δ| {error:.3g})")
    for check in (*judge.golden_and_contract(case, answers), *judge.own_answers(case, answers)):
        yield check.model_copy(update={"name": f"{check.name} on {runtime.id}"})


def _same(who: str, name: str, found: str, wanted: str) -> Check:
    return _check(who, name, found == wanted, found, wanted)


def _check(who: str, name: str, passed: bool, figure: str, gate: str, detail: str = "", level: Level = "files") -> Check:
    return Check(
        level=level, name=name, artifact=who, runtime=None, passed=passed, figure=figure, gate=gate,
        why="as reports/evidence.json has it", detail="" if passed else detail,
    )  # fmt: skip
