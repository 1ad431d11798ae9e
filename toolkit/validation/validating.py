"""The verb: is each file the model that was trained? Level by level, cheapest first, through every runtime there is."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.artifact import TORCH, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset, load, stratified_subset
from toolkit.disks import require_temporary_room
from toolkit.environment import describe
from toolkit.errors import ArtifactError
from toolkit.gates import allowed, rounding
from toolkit.limits import Limits
from toolkit.networks import Classifier, from_checkpoint
from toolkit.progress import progress, say
from toolkit.ranks import Ranks
from toolkit.recipe import Gates, Recipe
from toolkit.runtimes import RUNTIMES, Runtime, select
from toolkit.selection import artifact_folders, checkpoint_of
from toolkit.validation import evidence, files, hypotheses, judge, pictures, places
from toolkit.validation.cache import Cache, home
from toolkit.validation.result import ENDED, REFERENCE, Check, RuntimeRow, Unavailable, ValidationResult
from toolkit.validation.run import interfaces
from toolkit.validation.sharing import Crew, shared
from toolkit.validation.truth import double, golden_of
from toolkit.validation.worker import Answers, Job
from toolkit.workspace import Workspace
from toolkit.writing import check_files

EVALUATOR = "coreml-reference"
Array = np.ndarray[Any, Any]


def validate(
    workspace: Workspace, *, runtimes: Sequence[str] | None = None, artifacts: Sequence[str] | None = None, limit: int | None = None,
    all_images: bool = False, data_dir: Path | None = None, isolate: bool = True, cache: bool | Path = True, limits: Limits | None = None,
    fit: bool = True, ranks: Ranks | None = None,
) -> ValidationResult:  # fmt: skip
    """Compare, and write reports/validation.json and evidence.json; a lesser validation goes beside a better one (places.py).

    Raises ToolkitError where there is nothing to compare, or nothing to compare with.

    `all_images`: slow runtimes, which see a part of the test set by themselves, see all of it. `isolate`: each runtime in its own
    process, under `limits`. `cache`: answers to questions asked before are not computed again; a folder, if not the user's own.
    `fit`: where logits differ, another mean and standard deviation are searched for as well. `ranks`: processes that all call
    this (toolkit/ranks.py): each computes its share, the first one writes, and the others raise Dismissed where that one fails.
    """
    began = time.monotonic()

    def validation(crew: Crew) -> ValidationResult:
        chosen = select(runtimes)
        require_temporary_room()
        place = places.Place.of(workspace.reports)
        check_files(workspace.folder, place.report, place.evidence)
        with tempfile.TemporaryDirectory() as folder:
            bench = _Bench.of(workspace, limit, data_dir, cache, crew, Path(folder))
            bench.fit, bench.all_images = fit, all_images
            result = _result(workspace, bench, chosen, artifacts, limit, began)
        places.keep(workspace, result, partial=any((limit, artifacts, runtimes)))
        return result

    return shared(validation, ranks or Ranks(), (limits or Limits()).fitting(say), isolate)


def _result(
    workspace: Workspace, bench: "_Bench", chosen: Sequence[Runtime], artifacts: Sequence[str] | None, limit: int | None, began: float
) -> ValidationResult:
    """All levels of all artifacts on all runtimes."""
    rows, checks, unavailable = list[RuntimeRow](), list[Check](), list[Unavailable]()
    found, broken = [Artifact.of_checkpoint(bench.checkpoint)], set[str]()
    opened = [(folder, *files.open_artifact(folder)) for folder in artifact_folders(workspace, artifacts)]
    whole = [folder for folder, artifact, _ in opened if artifact is not None]
    said = dict(zip(whole, interfaces(whole, bench.crew.limits, bench.crew.isolate), strict=True))
    for folder, artifact, check in opened:
        checks.append(check)
        if artifact is None:
            broken.add(folder.name)
            continue
        checks += [*files.checks(artifact, bench.checkpoint, said[folder]), bench.golden_file(artifact)]
        checks.append(files.fits(artifact, bench.checkpoint))
        if checks[-1].passed:
            found.append(artifact)
        else:
            broken.add(folder.name)
    for runtime in chosen:
        readable = [artifact for artifact in found if artifact.format == runtime.reads]
        reason = runtime.why_not() if readable else _no_artifact(runtime, broken)
        if reason is not None:
            ids: list[str | None] = [artifact.id for artifact in readable] or [None]
            unavailable += [Unavailable(artifact=each, runtime=runtime.id, reason=reason) for each in ids]
            continue
        for artifact in readable:
            row, judged = bench.compare(artifact, runtime)
            rows += [row] if row is not None else []
            checks += judged
    checks += bench.agreements()
    if not rows and not any(check.passed is False for check in checks):
        raise ArtifactError("nothing could be validated here:\n  " + "\n  ".join(f"{u.runtime}: {u.reason}" for u in unavailable))
    data, card = bench.data, bench.checkpoint.card
    return ValidationResult(
        model=bench.checkpoint.recipe.name, dataset=data.name, data_sha256=data.test_sha256(), recipe_hash=card.recipe_hash,
        checkpoint_sha256=card.weights_sha256, seed=card.seed, test_images=len(data.test_labels), limit=limit, rows=rows, checks=checks,
        unavailable=unavailable, artifacts={each.id: _files(each) for each in found}, class_labels=list(data.classes),
        test_labels=data.test_labels[bench.indices].tolist(), test_indices=bench.indices.tolist(),
        reference_predictions=bench.reference.logits.argmax(1).tolist(), seconds=time.monotonic() - began, environment=describe(),
    )  # fmt: skip


def _files(artifact: Artifact) -> dict[str, str]:
    """File → sha256, with manifest.json itself: labels, compression and preprocessing are said there."""
    return artifact.manifest.files if artifact.id == TORCH else evidence.files_of(artifact)


def _no_artifact(runtime: Runtime, broken: set[str]) -> str:
    damaged = sorted(name for name in broken if name.startswith(f"{runtime.reads}-"))
    if damaged:
        return f"{', '.join(damaged)} cannot be used: see the checks of its files"
    return f"there is no {runtime.reads} artifact: toolkit export --format {runtime.reads}"


@dataclass
class _Bench:
    """What every comparison needs: the checkpoint, the images, PyTorch's own answers, and how to ask others."""

    checkpoint: Checkpoint
    classifier: Classifier
    gates: Gates
    data: Dataset
    indices: Array
    golden: tuple[Array, Array]
    picture_pixels: Array
    picture_files: dict[str, Path]
    cache: Cache
    crew: Crew
    folder: Path
    reference: Answers
    asked: dict[tuple[str, str], tuple[judge.Case, Answers]] = field(default_factory=dict)
    explained: list[tuple[float | None, Array, str]] = field(default_factory=list)  # gate, golden logits, what was said of them
    fit: bool = True
    all_images: bool = False

    @classmethod
    def of(cls, workspace: Workspace, limit: int | None, data_dir: Path | None, cache: bool | Path, crew: Crew, folder: Path) -> "_Bench":
        checkpoint = checkpoint_of(workspace)
        data = load(checkpoint.recipe.data.set, data_dir)
        indices = stratified_subset(data.test_labels, limit or len(data.test_labels)).numpy()
        classifier = from_checkpoint(checkpoint)
        gray = data.test_images.shape[1] == 1  # pictures are read as gray
        written, pixels = pictures.write(data.test_images[:64].numpy(), folder) if gray else ({}, np.empty((0, 1, 1, 1)))
        self = cls(
            checkpoint, classifier, Recipe.read(workspace.recipe).gates, data, indices, golden_of(checkpoint, data), pixels, written,
            Cache(home() if cache is True else cache or None), crew, folder, reference=None,  # type: ignore[arg-type]
        )  # fmt: skip
        answers, _ = self.ask(Artifact.of_checkpoint(checkpoint), RUNTIMES[REFERENCE], indices)
        if isinstance(answers, str):
            raise ArtifactError(f"PyTorch itself gives no logits to compare with: {answers}")
        self.reference = answers
        return self

    def golden_file(self, artifact: Artifact) -> Check:
        """golden.npz against the checkpoint in float64."""
        try:
            images, logits = artifact.golden()
            if (images.shape[1:], logits.shape[1]) != (self.checkpoint.card.input_shape, len(self.data.classes)):
                raise ArtifactError(f"its images {images.shape[1:]} and {logits.shape[1]} classes are those of another model. Export again")
        except ArtifactError as error:
            return Check(
                level="golden", name="golden outputs are those of the checkpoint", artifact=artifact.id, runtime=None, passed=False,
                figure="not readable", gate="readable", why="they prove the file wherever it goes", detail=str(error),
            )  # fmt: skip
        return files.golden_file(artifact, self.double(images))

    def double(self, images: Array) -> Array:
        """(N, classes) float64."""
        known, logits = self.golden
        return logits if np.array_equal(known, images) else double(self.checkpoint, images)

    def ask(self, artifact: Artifact, runtime: Runtime, indices: Array) -> tuple[Answers | str, bool]:
        """(answers or why there are none, whether they were known before)."""
        images = self.data.test_images[indices].numpy()
        place = self.cache.path(artifact, runtime, images, self.golden[0])
        job = Job(
            folder=str(artifact.folder.absolute()), runtime=runtime.id, golden=self.golden[0], classes=len(self.data.classes),
            pictures=tuple(map(str, self.picture_files.values())), pixels=self.picture_pixels.astype(np.float32),
            threads=self.crew.threads,
        )  # fmt: skip
        if (known := self.cache.find(place, job, len(images))) is not None:
            return known, True
        with progress(f"{artifact.id} on {runtime.id}", len(images)) as update:
            answers = self.crew.ask(job, images, update)
        if isinstance(answers, Answers):
            self.cache.keep(place, answers)
        return answers, False

    def compare(self, artifact: Artifact, runtime: Runtime) -> tuple[RuntimeRow | None, list[Check]]:
        """One artifact through one runtime; slow runtimes see a stratified subset, which the row says by its `indices`."""
        places = np.arange(len(self.indices))
        if not self.all_images and runtime.most_images is not None and len(places) > runtime.most_images:
            places = stratified_subset(self.data.test_labels[self.indices], runtime.most_images).numpy()
        indices = self.indices[places]
        if runtime.id == REFERENCE:
            answers, cached = self.reference, False  # not twice the same
        else:
            asked, cached = self.ask(artifact, runtime, indices)
            if isinstance(asked, str):
                return None, [_lost(artifact, runtime, asked)]
            answers = asked
        case = self.case(artifact, runtime, places)
        self.asked[artifact.id, runtime.id] = case, answers
        row = judge.row(case, answers, cached)
        return row, [_ended(artifact, runtime), *judge.checks(case, answers, row)]

    def agreements(self) -> list[Check]:
        """Apple's runtimes against our evaluator, where both ran: the evaluator judges where Apple's runtimes are not."""
        pairs = [(key, (key[0], EVALUATOR)) for key in self.asked if key[1].startswith("coreml-") and key[1] != EVALUATOR]
        return [judge.agreement(*self.asked[own], self.asked[other][1]) for own, other in pairs if other in self.asked]

    def case(self, artifact: Artifact, runtime: Runtime, places: Array) -> judge.Case:
        reference, truth = self.reference.logits[places], self.golden[1]
        precision = runtime.precision or artifact.manifest.precision

        def gate(logits: Array) -> Any:
            return allowed(self.gates, self.checkpoint, artifact.manifest, float(np.abs(logits).max()), precision)

        def explain(found: Array) -> str:
            return self.explain(found, gate(truth).max_abs_logit)

        return judge.Case(
            artifact=artifact.id, runtime=runtime.id, precision=precision, indices=self.indices[places],
            whole=len(places) == len(self.indices), labels=self.data.test_labels[self.indices[places]].numpy(), reference=reference,
            golden=truth, pictures=self._of_pictures(), picture_kinds=tuple(self.picture_files), gate=gate(reference),
            golden_gate=gate(truth), explain=explain, class_labels=tuple(artifact.manifest.class_labels),
            rounding=rounding(self.checkpoint, precision) if artifact.manifest.compression is not None else None,
        )  # fmt: skip

    def explain(self, found: Array, allowed: float | None) -> str:
        """Once for each distinct answer: what agrees to within the gate with one that was explained has the same explanation."""
        for gate, known, text in self.explained:
            if gate == allowed and allowed is not None and _largest(found, known) <= allowed:
                return text
        images, truth = self.golden
        text = hypotheses.name(self.classifier, images, found, truth, allowed, self.fit)
        self.explained.append((allowed, found, text))
        return text

    def _of_pictures(self) -> Array:
        if not self.picture_files:
            return np.empty((0, len(self.data.classes)))
        with torch.inference_mode():
            return self.classifier(torch.from_numpy(self.picture_pixels)).numpy()  # type: ignore[no-any-return]


def _largest(one: Array, other: Array) -> float:
    """NaN where either holds what is no number, but for the same at the same places."""
    return 0.0 if np.array_equal(one, other, equal_nan=True) else float(np.abs(one - other).max())


def _ended(artifact: Artifact, runtime: Runtime) -> Check:
    return Check(
        level="golden", name=ENDED, artifact=artifact.id, runtime=runtime.id, passed=True, figure="yes", gate="yes",
        why="in a process of its own, watched",
    )  # fmt: skip


def _lost(artifact: Artifact, runtime: Runtime, reason: str) -> Check:
    return _ended(artifact, runtime).model_copy(update={"passed": False, "figure": "no", "detail": reason})
