"""From answers to checks: what a runtime said, against PyTorch, against its gate. Pure: nothing runs and nothing is read here."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.gates import Allowed
from toolkit.validation.metrics import figures, log_softmax, snr_db
from toolkit.validation.result import REFERENCE, Check, Figures, Level, RuntimeRow
from toolkit.validation.statistics import Paired
from toolkit.validation.worker import Answers

Array = np.ndarray[Any, Any]
SOFTMAX_ROUNDOFF = {"fp16": 2e-3, "bf16": 1.6e-2}  # four units in the last place of a probability near 1; fp32 below
SOFTMAX_FP32 = 1e-5
WORST = 8  # images that a row lists


@dataclass(frozen=True)
class Case:
    """One artifact on one runtime, and what PyTorch says of the same images.

    `reference` (N, classes): fp32, of the test images; `golden`: float64, of the golden ones; `pictures`: fp32, of the
    picture files' true pixels. `gate` of the test images, `golden_gate` of the golden ones: their largest logits differ.
    `rounding`: of compressed weights, which PyTorch does not have, how far one file may be off from itself, as a share of its
    largest logit; None: the gates hold for that as well.
    """

    artifact: str
    runtime: str
    precision: str
    indices: Array
    whole: bool
    labels: Array
    reference: Array
    golden: Array
    pictures: Array
    picture_kinds: tuple[str, ...]
    gate: Allowed
    golden_gate: Allowed
    explain: Callable[[Array], str]  # of golden logits found: the mistake that gives them, or ""
    rounding: float | None = None
    class_labels: tuple[str, ...] = ()

    def own_gate(self, own: Array) -> tuple[float | None, str]:
        """(how far one file's logits may lie apart, why): `own` are its logits."""
        if self.rounding is None:
            return self.golden_gate.max_abs_logit, self.golden_gate.why
        return self.rounding * float(
            np.abs(own[np.isfinite(own)]).max(initial=0.0)
        ), "the weights are the same on both sides: only rounding"

    def check(self, level: Level, name: str, passed: bool | None, figure: str, gate: str, why: str, detail: str = "") -> Check:
        return Check(
            level=level, name=name, artifact=self.artifact, runtime=self.runtime, passed=passed, figure=figure, gate=gate, why=why,
            detail="" if passed else detail,
        )  # fmt: skip


def row(case: Case, answers: Answers, cached: bool) -> RuntimeRow:
    found = figures(answers.logits, case.reference, case.labels, answers.probabilities)
    predicted, expected = answers.logits.argmax(1), case.reference.argmax(1)
    places = np.flatnonzero(predicted != expected)
    judged = case.runtime != REFERENCE
    return RuntimeRow(
        artifact=case.artifact, runtime=case.runtime, precision=case.precision, images=len(case.labels),
        indices=None if case.whole else case.indices.tolist(), figures=found,
        changed=dict(zip(case.indices[places].tolist(), predicted[places].tolist(), strict=True)),
        golden_abs_logit=_largest(answers.golden, case.golden), seconds=answers.seconds, cached=cached,
        allowed_changed=_most_changed(case) if judged else None, allowed_abs_logit=case.gate.max_abs_logit if judged else None,
        worst=_worst(case, answers.logits),
    )  # fmt: skip


def _worst(case: Case, logits: Array) -> list[int]:
    """What is no number first."""
    with np.errstate(all="ignore"):
        off = np.nan_to_num(np.abs(logits.astype(np.float64) - case.reference).max(1), nan=np.inf, posinf=np.inf)
    return [int(case.indices[place]) for place in np.argsort(-off, kind="stable")[:WORST] if off[place] > 0]


def checks(case: Case, answers: Answers, found: RuntimeRow) -> Iterator[Check]:
    """All levels that need answers. PyTorch on the CPU is the reference: on the test set it is not compared with itself."""
    yield from golden_and_contract(case, answers)
    yield from _preprocessing(case, answers)
    yield _numbers(case, found.figures)
    yield from own_answers(case, answers)
    if case.runtime != REFERENCE:
        yield from _test_set(case, found.figures, len(found.changed), answers.logits.argmax(1))


def golden_and_contract(case: Case, answers: Answers) -> Iterator[Check]:
    """What needs no test set."""
    yield from _golden(case, answers)
    yield from _contract(case, answers)


def _golden(case: Case, answers: Answers) -> Iterator[Check]:
    largest, gate = _largest(answers.golden, case.golden), case.golden_gate
    if gate.max_abs_logit is not None:
        yield case.check(
            "golden", "golden logits", largest <= gate.max_abs_logit, f"max |Δ logit| {largest:.3g}", f"≤ {gate.max_abs_logit:.3g}",
            gate.why, case.explain(answers.golden) if not largest <= gate.max_abs_logit else "",
        )  # fmt: skip
    if gate.min_snr_db is not None:
        signal = snr_db(case.golden, answers.golden)
        yield case.check(
            "golden", "golden logits, as a whole", signal >= gate.min_snr_db, f"{signal:.1f} dB", f"≥ {gate.min_snr_db:.1f} dB", gate.why,
            case.explain(answers.golden) if not signal >= gate.min_snr_db else "",
        )  # fmt: skip
    yield _softmax(case, "golden", "probabilities are softmax of the logits", answers.golden, answers.golden_probabilities)


def own_answers(case: Case, answers: Answers) -> Iterator[Check]:
    """What the file itself makes of its logits, on every test image: what an app shows."""
    yield _softmax(case, "test set", "every image's probabilities are softmax of its logits", answers.logits, answers.probabilities)
    if len(answers.labels) and case.class_labels:
        best, wrong = answers.probabilities.max(1), 0
        for row, label, most in zip(answers.probabilities, answers.labels.tolist(), best, strict=True):
            place = case.class_labels.index(label) if label in case.class_labels else None
            wrong += place is None or row[place] != most  # where two are alike, either may be named
        yield case.check(
            "test set", "the class label is that of the largest probability", not wrong,
            f"{wrong} of {len(answers.labels)} are not", "none",
            "it is what an app shows", "labels are in another order in the file, or of other classes",
        )  # fmt: skip


def _softmax(case: Case, level: Level, name: str, logits: Array, probabilities: Array) -> Check:
    with np.errstate(all="ignore"):
        expected = np.exp(log_softmax(logits))
    error = float(np.abs(probabilities - expected).max())
    allowed = SOFTMAX_ROUNDOFF.get(case.precision, SOFTMAX_FP32)
    return case.check(
        level, name, error <= allowed, f"max |Δ probability| {error:.2g}", f"≤ {allowed:g}",
        "softmax exactly once, over the classes, and each under its own label",
        "" if error <= allowed else _misled(probabilities, expected),
    )  # fmt: skip


def _misled(found: Array, expected: Array) -> str:
    if not np.isfinite(found).all():
        return "some are no numbers"
    sums = found.sum(1)
    if np.abs(sums - 1).max() > 0.01:
        return f"they add up to {sums.min():.3g}…{sums.max():.3g} and not to 1: softmax is missing, or over another axis"
    order = [int(np.linalg.norm(expected.T - column, axis=1).argmin()) for column in found.T]
    if np.abs(found - expected[:, order]).max() < 0.01:
        return f"they match in another order of classes ({' '.join(map(str, order))}): labels are swapped"
    with np.errstate(all="ignore"):
        twice = np.exp(log_softmax(expected))
    return "softmax is applied twice" if np.abs(found - twice).max() < 0.01 else ""


def _contract(case: Case, answers: Answers) -> Iterator[Check]:
    classes = case.golden.shape[1]
    wrong = [f"{count} images give {shape}" for count, shape in answers.shapes if shape != f"({count}, {classes})"]
    yield case.check(
        "contract", "batches of 1, N and N + 1", not wrong, "; ".join(wrong) or f"({answers.shapes[-1][0]}, {classes}) and the like",
        "a row for each image", "a program of flexible shape can drop images without a word (apple/coremltools#2730)",
    )  # fmt: skip
    taken = [f"{what}: {outcome}" for what, outcome in answers.refusals if not outcome.startswith("refused: ")]
    yield case.check(
        "contract", "inputs that are none are refused", not taken, "; ".join(taken) or f"{len(answers.refusals)} refused",
        "one clear message each", "a wrong size must not become a wrong answer",
    )  # fmt: skip
    allowed, why = case.own_gate(answers.golden)
    if allowed is not None:
        few = answers.golden[: len(answers.singly)]
        error = max(_largest(answers.singly, few), _largest(answers.backwards, few))
        yield case.check(
            "contract", "the same alone, in a batch, and in another order", error <= 2 * allowed, f"max |Δ logit| {error:.3g}",
            f"≤ {2 * allowed:.3g}", f"twice the gate of the logits: {why}",
            "images of one batch influence each other",
        )  # fmt: skip


def _preprocessing(case: Case, answers: Answers) -> Iterator[Check]:
    """Against PyTorch; of compressed weights, against what the file itself says of the same pixels."""
    allowed, why = case.own_gate(answers.golden)
    if allowed is None or not len(case.pictures):
        return
    errors = np.abs(answers.pictures - (case.pictures if case.rounding is None else answers.pixels)).max(1)
    wrong = [f"{kind} ({error:.3g})" for kind, error in zip(case.picture_kinds, errors, strict=True) if not error <= allowed]
    every = len(wrong) == len(case.picture_kinds)
    detail = "every kind of file: see the golden logits" if every else f"only these kinds of file differ: {', '.join(wrong)}"
    yield case.check(
        "preprocessing", "picture files give the logits of their pixels", not wrong,
            f"max |Δ logit| {errors.max():.3g}", f"≤ {allowed:.3g}",
        f"{len(case.picture_kinds)} kinds of PNG and JPEG against the training path; {why}", detail,
    )  # fmt: skip
    if len(answers.app):
        error = _largest(answers.app, answers.pictures[:1])
        yield case.check(
            "preprocessing", "a picture gives what its numbers give", error <= allowed, f"max |Δ logit| {error:.3g}", f"≤ {allowed:.3g}",
            "Core ML's image input has a scale, a bias and a colour layout of its own", "scale, bias or colour layout of the image input",
        )  # fmt: skip


def _numbers(case: Case, found: Figures) -> Check:
    stuck = found.saturated if case.precision == "fp16" else 0  # fp32 goes on after 65504
    return case.check(
        "test set", "all logits are numbers", not found.nan + found.inf + stuck,
        f"{found.nan} NaN, {found.inf} Inf, {stuck} at the end of fp16", "none",
        "NaN compares as anything, and where fp16 ends a device may give 65504 instead of Inf",
        "a value overflows on some images: toolkit debug names the layer",
    )  # fmt: skip


def _test_set(case: Case, found: Figures, changed: int, predicted: Array) -> Iterator[Check]:
    gate = case.gate
    if (most := _most_changed(case)) is not None:
        yield case.check(
            "test set", "changed predictions", changed <= most, f"{changed} predictions changed of {len(case.labels)}", f"≤ {most}",
            "set by the recipe: what an app shows is the decision",
        )  # fmt: skip
    if gate.max_abs_logit is not None:
        clear = _clear_changes(case, predicted, 2 * gate.max_abs_logit)
        yield case.check(
            "test set", "only close calls change", not clear, f"{changed} predictions changed, {clear} of them clear before",
            "0 clear ones",
            f"rounding changes a decision only where PyTorch's two best classes were within twice the gate, {2 * gate.max_abs_logit:.2g}",
        )  # fmt: skip
    if gate.max_abs_logit is not None:
        yield case.check(
            "test set", "logits", found.max_abs_logit <= gate.max_abs_logit, f"max |Δ logit| {found.max_abs_logit:.3g}",
            f"≤ {gate.max_abs_logit:.3g}", gate.why,
        )  # fmt: skip
    if gate.min_snr_db is not None:
        yield case.check(
            "test set",
            "logits, as a whole",
            found.snr_db >= gate.min_snr_db,
            f"{found.snr_db:.1f} dB",
            f"≥ {gate.min_snr_db:.1f} dB",
            gate.why,
        )
    if gate.max_accuracy_loss is not None:
        yield _accuracy(case, found, gate.max_accuracy_loss)


def _accuracy(case: Case, found: Figures, margin: float) -> Check:
    """Not judged where so few images could not rule the loss out even though nothing changed; a loss beyond doubt fails on any number."""
    low, high = found.difference_interval
    blind = -Paired(len(case.labels), 0, 0).interval()[0]
    few = blind > margin and high >= -margin
    points = f"{100 * (found.accuracy - found.reference_accuracy):+.2f} points, 95 % interval {100 * low:+.2f}…{100 * high:+.2f}"
    more = f"so few images cannot rule out {100 * blind:.2f} points, even where no prediction changed: take more, or --all-images"
    return case.check(
        "test set", "accuracy is not lost", None if few else low >= -margin,
        f"not judged on {len(case.labels)} images: {points}" if few else points, f"a loss of {100 * margin:g} points ruled out",
        "non-inferiority on the same images, exact", more if few else "",
    )  # fmt: skip


def agreement(case: Case, answers: Answers, evaluator: Answers) -> Check:
    """One of Apple's runtimes against the reference evaluator on the same file and images."""
    error = _largest(answers.logits, evaluator.logits)
    differ = int((answers.logits.argmax(1) != evaluator.logits.argmax(1)).sum())
    gate = case.gate.max_abs_logit if case.rounding is None else case.own_gate(evaluator.logits)[0]
    allowed = math.inf if gate is None else 2 * gate
    return case.check(
        "test set", "agrees with the reference evaluator", error <= allowed,
        f"max |Δ logit| {error:.3g}, {differ} predictions differ", f"≤ {allowed:.3g}",
        "each may be off by its gate; beyond that one of the two computes something else",
        "either the evaluator is wrong, or the device computes otherwise than the file says: toolkit debug on this machine",
    )  # fmt: skip


def _clear_changes(case: Case, predicted: Array, margin: float) -> int:
    """Images whose class changed although PyTorch's best two were further apart than `margin`."""
    best = np.sort(case.reference, axis=1)
    clear = best[:, -1] - best[:, -2] > margin
    return int((clear & (predicted != case.reference.argmax(1))).sum())


def _most_changed(case: Case) -> int | None:
    """Rounded up: what may happen once in so many images may happen among fewer. None at all is none at all."""
    return None if case.gate.max_changed is None else math.ceil(case.gate.max_changed * len(case.labels) / 10_000)


def _largest(found: Array, wanted: Array) -> float:
    """NaN where anything is, which is never within a gate."""
    return float(np.abs(found.astype(np.float64) - wanted).max())
