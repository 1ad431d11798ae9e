"""What a report says, made again from its own rows, from the test set and from the checkpoint, as far as that goes without running files.

A report can be edited and hashed again. What follows from other figures must follow; whether a file computes what the rows say, only
another validation can tell.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset, stratified_subset
from toolkit.gates import UNIT_ROUNDOFF, rounding
from toolkit.golden import DIGITS
from toolkit.recipe import Gates
from toolkit.validation.result import ENDED, LEVELS, OPENED, REFERENCE, Check, RuntimeRow, ValidationResult
from toolkit.validation.statistics import Paired, exact_interval

Array = np.ndarray[Any, Any]
CLOSE = 1e-9  # of figures that are sums of the same numbers
RUN = tuple(level for level in LEVELS if level in ("golden", "contract", "test set"))  # asked of every file that ran
OTHER_MACHINE = 0.0005  # share of the test images: close calls that another machine may decide otherwise


@dataclass(frozen=True)
class Known:
    """What a report can be held against; None: it could not be had.

    `compressed`: artifacts of compressed weights, which have gates of their own. `truth`: (64, classes) float64, of the golden images
    from the checkpoint.
    """

    checkpoint: Checkpoint | None
    gates: Gates | None
    data: Dataset | None
    truth: Array | None
    compressed: frozenset[str] = frozenset()


def checks(result: ValidationResult, known: Known) -> Iterator[Check]:
    """Each kind of contradiction is one check; one that needs what is not there is left to the check that says so."""
    gates, data, checkpoint = known.gates, known.data, known.checkpoint
    faults = _shape(result)
    yield _check("fits itself", faults)
    if faults:
        return
    yield _check("figures follow from its rows", [fault for row in result.rows for fault in _figures(result, row)])
    verdicts = [fault for row in result.rows for fault in _verdicts(result, row, gates, row.artifact in known.compressed)]
    yield _check("verdicts follow from its figures", verdicts)
    yield _check("every question was asked", list(_asked(result)))
    if data is not None:
        yield _check("labels and classes are those of the test set", _data(result, data))
    if checkpoint is not None:
        yield _check("accuracy is that of the checkpoint's card", list(_accuracy(result, checkpoint)))
    if checkpoint is not None and data is not None and known.truth is not None:
        yield _check("PyTorch's predictions are those of the checkpoint", list(_predictions(result, checkpoint, data, known.truth)))


def _shape(result: ValidationResult) -> list[str]:
    """Faults that would make the rest meaningless."""
    images, classes, known = len(result.test_labels), len(result.class_labels), set(result.test_indices)
    faults = []
    if not images or len(known) != len(result.test_indices) or {len(result.test_indices), len(result.reference_predictions)} != {images}:
        faults.append(f"{images} labels, {len(known)} indices, {len(result.reference_predictions)} predictions")
    if not all(0 <= index < result.test_images for index in known):
        faults.append(f"indices beyond the {result.test_images} test images")
    if images != min(result.limit or result.test_images, result.test_images):
        faults.append(f"{images} images were compared of {result.test_images}, with a limit of {result.limit}")
    labels = [*result.test_labels, *result.reference_predictions, *(label for row in result.rows for label in row.changed.values())]
    if not all(0 <= label < classes for label in labels):
        faults.append(f"labels beyond the {classes} classes")
    pairs = [(row.artifact, row.runtime) for row in result.rows]
    if len(set(pairs)) != len(pairs) or not {row.artifact for row in result.rows} <= result.artifacts.keys():
        faults.append("rows of artifacts that are not listed, or twice the same")
    for row in result.rows:
        own = known if row.indices is None else set(row.indices)
        if not own or row.images != len(own) or not own <= known or not row.changed.keys() <= own:
            faults.append(f"{_who(row)}: its images are not those of the report")
    return faults


def _figures(result: ValidationResult, row: RuntimeRow) -> Iterator[str]:
    """The decisions of every image are in the report: what is counted from them can be counted again."""
    place = {index: number for number, index in enumerate(result.test_indices)}
    chosen = [place[index] for index in (result.test_indices if row.indices is None else row.indices)]
    labels, before = np.array(result.test_labels)[chosen], np.array(result.reference_predictions)[chosen]
    after = before.copy()
    for number, position in enumerate(chosen):
        after[number] = row.changed.get(result.test_indices[position], before[number])
    right, was_right = after == labels, before == labels
    paired = Paired(len(labels), int((was_right & ~right).sum()), int((right & ~was_right).sum()))
    wanted: dict[str, Any] = {
        "accuracy": right.mean(), "accuracy_interval": exact_interval(int(right.sum()), len(labels)),
        "reference_accuracy": was_right.mean(),
        "lost": paired.lost, "gained": paired.gained, "difference_interval": paired.interval(), "mcnemar_p": paired.p_value,
    }  # fmt: skip
    for name, value in wanted.items():
        if not np.allclose(getattr(row.figures, name), value, rtol=0, atol=CLOSE):
            yield f"{_who(row)}: {name.replace('_', ' ')} is {getattr(row.figures, name)}, its decisions give {value}"
    if any(before[number] == after[number] for number, position in enumerate(chosen) if result.test_indices[position] in row.changed):
        yield f"{_who(row)}: predictions that are called changed are the same"
    if row.runtime == REFERENCE and (row.changed or row.figures.max_abs_logit != 0):
        yield f"{_who(row)}: the reference differs from itself"


def _verdicts(result: ValidationResult, row: RuntimeRow, gates: Gates | None, compressed: bool) -> Iterator[str]:
    """A breach that its row shows must be a failed check."""
    if not row.proves or (row.artifact, row.runtime) in {(check.artifact, check.runtime) for check in result.breaches}:
        return
    figures = row.figures
    if row.allowed_changed is not None and len(row.changed) > row.allowed_changed:
        yield f"{_who(row)}: {len(row.changed)} predictions changed, {row.allowed_changed} are allowed, and no check failed"
    if row.allowed_abs_logit is not None and not figures.max_abs_logit <= row.allowed_abs_logit:
        yield f"{_who(row)}: max |Δ logit| {figures.max_abs_logit:.3g}, {row.allowed_abs_logit:.3g} is allowed, and no check failed"
    if figures.nan or figures.inf:
        yield f"{_who(row)}: {figures.nan} NaN and {figures.inf} Inf, and no check failed"
    if gates is None or row.precision not in UNIT_ROUNDOFF:
        return
    gate = gates.compressed if compressed else gates.of(row.precision)
    most = None if gate.max_changed is None else math.ceil(gate.max_changed * row.images / 10_000)
    if row.allowed_changed != most:
        yield f"{_who(row)}: {row.allowed_changed} changed predictions are allowed, the recipe allows {most}"
    if gate.max_abs_logit is not None and row.allowed_abs_logit != gate.max_abs_logit:
        yield f"{_who(row)}: |Δ logit| of {row.allowed_abs_logit} is allowed, the recipe allows {gate.max_abs_logit:g}"


def _asked(result: ValidationResult) -> Iterator[str]:
    """A check that would have failed may have been taken out."""
    for row in result.rows:
        own = [check for check in result.checks if (check.artifact, check.runtime) == (row.artifact, row.runtime)]
        missing = [level for level in RUN if not any(check.level == level for check in own)]
        if missing or (row.proves and not any(check.name == ENDED for check in own)):
            yield f"{_who(row)}: no checks of {', '.join(missing) or 'its process'}"
    for name in result.proved:
        if not any(check.artifact == name and check.name == OPENED for check in result.checks):
            yield f"{name}: no check of its files"


def _data(result: ValidationResult, data: Dataset) -> list[str]:
    if result.test_images != len(data.test_labels):
        return [f"{result.test_images} test images, {data.name} has {len(data.test_labels)}"]
    wrong = int((data.test_labels.numpy()[result.test_indices] != np.array(result.test_labels)).sum())
    faults = [f"{wrong} labels are not those of {data.name}"] if wrong else []
    return faults if result.class_labels == list(data.classes) else [*faults, f"class labels are not those of {data.name}"]


def _accuracy(result: ValidationResult, checkpoint: Checkpoint) -> Iterator[str]:
    """Both were measured with PyTorch in fp32 on a CPU, perhaps on two machines."""
    claimed, images = checkpoint.card.metrics.get("test_correct"), len(result.test_labels)
    if claimed is None or images != result.test_images:
        return
    right = sum(a == b for a, b in zip(result.reference_predictions, result.test_labels, strict=True))
    share = checkpoint.card.metrics.get("test_accuracy", 0.0)
    if not abs(right - claimed) <= math.ceil(OTHER_MACHINE * images) or not abs(share - claimed / images) <= CLOSE:
        yield f"{right} of {images} are right in the report, {claimed} on the card, which calls that {100 * share:.4g} %"


def _predictions(result: ValidationResult, checkpoint: Checkpoint, data: Dataset, truth: Array) -> Iterator[str]:
    """Of the golden images, which are test images as well; close calls aside, which fp32 may decide otherwise than float64."""
    said = dict(zip(result.test_indices, result.reference_predictions, strict=True))
    best = np.sort(truth[:DIGITS], axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * rounding(checkpoint, "fp32") * np.abs(truth).max()
    for index, logits, sure in zip(stratified_subset(data.test_labels, DIGITS).tolist(), truth, clear, strict=False):
        if sure and said.get(index, int(logits.argmax())) != int(logits.argmax()):
            yield f"test image {index}: {said[index]} in the report, {int(logits.argmax())} by the checkpoint"


def _who(row: RuntimeRow) -> str:
    return f"{row.artifact} on {row.runtime}"


def _check(name: str, faults: list[str]) -> Check:
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    found = "no" if faults else "yes"
    return Check(
        level="files", name=name, artifact="report", runtime=None, passed=not faults, figure=found, gate="yes",
        why="made again from what the report itself holds", detail="; ".join(faults[:3]) + more,
    )  # fmt: skip
