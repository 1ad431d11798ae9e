"""The first level: is the file whole, is it of this checkpoint, and does it say of itself what the manifest says? Nothing runs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from toolkit.artifact import KEPT, Artifact, describe_preprocessing, image_spec, output_specs
from toolkit.checkpoint import Checkpoint
from toolkit.data import Dataset
from toolkit.errors import ArtifactError
from toolkit.golden import COUNT, made_images
from toolkit.golden import golden_images as taken_images
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES, TensorSpec
from toolkit.validation.interface import Interface, Shape
from toolkit.validation.result import FITS, OPENED, READ, Check

INDICES = frozenset({"int32", "int64", "bool"})  # shapes and places: no weights
LEAST_GOLDEN = 32  # different images
EXACT = 1e-9  # float64 again on another machine: the order of sums, no more


def open_artifact(folder: Path) -> tuple[Artifact | None, Check]:
    """The artifact, and the check that its files are those that the export wrote. None where it cannot be used at all."""
    name = OPENED
    why = "a release is what its manifest lists, byte for byte"
    try:
        artifact = Artifact.open(folder)
    except ArtifactError as error:
        return None, _check(folder.name, name, False, "not so", "sha256 of each file in the manifest", why, str(error))
    return artifact, _check(folder.name, name, True, f"{len(artifact.manifest.files)} files", "sha256 of each file in the manifest", why)


def checks(artifact: Artifact, checkpoint: Checkpoint, own: Interface | str) -> Iterator[Check]:
    """What can be known without running anything. `own`: what the file says of itself, or in words why it cannot be read."""
    manifest, card, who = artifact.manifest, checkpoint.card, artifact.id
    again = f"Export again: toolkit export --format {artifact.format}"
    yield _equal(
        who, "made from this checkpoint", manifest.checkpoint_sha256, card.weights_sha256, "another checkpoint is another model", again
    )
    yield _equal(who, "made from this recipe", manifest.recipe_hash, card.recipe_hash, "the recipe holds the preprocessing", again)
    yield _equal(
        who, "accuracy in the manifest", manifest.test_accuracy, card.metrics.get("test_accuracy"), "a claim that was never measured", again
    )
    yield _equal(
        who,
        "preprocessing in the manifest",
        manifest.preprocessing,
        describe_preprocessing(checkpoint),
        "the app's authors believe it",
        again,
    )
    yield _equal(who, "model", manifest.model, checkpoint.recipe.name, "the manifest may belong to another model", again)
    if isinstance(own, str):
        yield _check(who, READ, False, "not so", "it can", "what cannot be read cannot ship", own)
        return
    yield from _labels(artifact, checkpoint, own)
    yield from _features(artifact, checkpoint, own)
    about = {"recipe": manifest.model, "recipe_hash": manifest.recipe_hash, "checkpoint_sha256": manifest.checkpoint_sha256,
             "precision": manifest.precision}  # fmt: skip
    wrong = [
        f"{key} is {own.metadata.get(key, 'missing')!r}, not {value!r}" for key, value in about.items() if own.metadata.get(key) != value
    ]
    yield _check(
        who, "metadata in the file", not wrong, "; ".join(wrong) or "the same", "as in the manifest",
        "who has only the model file must learn which model it is", again if wrong else "",
    )  # fmt: skip
    if own.weights:
        yield _number_format(artifact, own)
    yield _check(
        who, "compression", (manifest.compression is not None) == own.compressed, "compressed" if own.compressed else "plain weights",
        manifest.compression or "plain weights", "of compressed weights only accuracy is judged, so nobody may just claim them", again,
    )  # fmt: skip


def fits(artifact: Artifact, checkpoint: Checkpoint) -> Check:
    """Whether it takes the images of this checkpoint and gives its classes: otherwise there is nothing to compare."""
    manifest, card = artifact.manifest, checkpoint.card
    found = f"{manifest.inputs[0].shape[1:]}, {len(manifest.class_labels)} classes"
    wanted = f"{card.input_shape}, {len(card.class_labels)} classes"
    return _check(
        artifact.id, FITS, found == wanted, found, wanted, "otherwise there is nothing to compare",
        "" if found == wanted else f"Export again: toolkit export --format {artifact.format}",
    )  # fmt: skip


def golden_file(artifact: Artifact, truth: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> Check:
    """Whether golden.npz holds what PyTorch computes. `truth`: (N, classes) float64 for its images, from the checkpoint."""
    images, logits = artifact.golden()
    largest = float(np.abs(truth).max())
    error = np.abs(logits - truth)
    rows = np.flatnonzero(~(error.max(1) <= EXACT * largest))  # NaN is never within
    detail = ""
    if len(rows):
        best = np.abs(logits[rows[0]] - truth).max(1)
        other = f"; row {rows[0]} holds the logits of image {best.argmin()}" if best.min() <= EXACT * largest else ""
        detail = f"golden.npz is wrong, whatever the model is: {len(rows)} of {len(logits)} rows{other}. Export again"
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    if distinct < LEAST_GOLDEN:
        detail = f"golden.npz proves little: {distinct} different images among its {len(images)}, {LEAST_GOLDEN} are needed. Export again"
    return Check(
        level="golden", name="golden outputs are those of the checkpoint", artifact=artifact.id, runtime=None, passed=not detail,
        figure=f"max |Δ logit| {error.max():.3g}", gate=f"≤ {EXACT * largest:.1e}", why="float64 against float64: only the order of sums",
        detail=detail,
    )  # fmt: skip


def golden_images(artifact: Artifact, data: Dataset | None) -> Check:
    """Whether golden.npz holds the images that an export takes; without the data set: as many, with the made ones at their end.

    Whoever may choose the images chooses those on which another model agrees.
    """
    images = artifact.golden()[0]
    made = made_images(images.shape[1:])
    if data is None:
        same = len(images) == COUNT and np.array_equal(images[-len(made) :], made)
    else:
        same = np.array_equal(images, taken_images(data))
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    return Check(
        level="golden", name="golden images are those of the export", artifact=artifact.id, runtime=None, passed=same,
        figure=f"{len(images)} images, {distinct} different ones",
        gate=f"{COUNT}: test images evenly over the classes, and {len(made)} made ones",
        why="whoever chooses the images chooses those on which another model agrees",
        detail="" if same else "these are other images than an export of this toolkit takes. Export again",
    )  # fmt: skip


def _labels(artifact: Artifact, checkpoint: Checkpoint, own: Interface) -> Iterator[Check]:
    why, again = "a right index under a wrong name is a wrong answer", f"Export again: toolkit export --format {artifact.format}"
    trained = checkpoint.card.class_labels
    yield _equal(artifact.id, "class labels of the manifest", artifact.manifest.class_labels, trained, why, again)
    if own.labels is not None:
        yield _equal(artifact.id, "class labels in the file", own.labels, trained, why, again)


def _features(artifact: Artifact, checkpoint: Checkpoint, own: Interface) -> Iterator[Check]:
    """Names and shapes, against the manifest and the checkpoint."""
    manifest, wrong = artifact.manifest, list[str]()
    if own.input_kind is not None and own.input_kind != manifest.input_kind:
        wrong.append(f"the file takes a {own.input_kind}, the manifest says {manifest.input_kind}")
    for spec, contract in _promised(artifact, checkpoint):
        wrong += [
            f"{spec.name}: the manifest's {field} is {getattr(spec, field)}, not {getattr(contract, field)}"
            for field in ("shape", "dtype", "low", "high")
            if spec.name == contract.name and getattr(spec, field) != getattr(contract, field)
        ]
    for what, specs, needed in (("input", manifest.inputs, {IMAGE}), ("output", manifest.outputs, {LOGITS, PROBABILITIES})):
        names = {spec.name for spec in specs}
        if not needed <= names or not names <= needed | {CLASS_LABEL}:
            wrong.append(f"the manifest's {what}s are {', '.join(sorted(names))}; every artifact has {', '.join(sorted(needed))}")
    for what, specs, found in (("input", manifest.inputs, own.inputs), ("output", manifest.outputs, own.outputs)):
        if not found:
            continue  # a format that does not say
        declared = {spec.name: spec.shape for spec in specs}
        if set(found) != set(declared):
            wrong.append(f"{what}s in the file are {', '.join(sorted(found))}; the manifest names {', '.join(sorted(declared))}")
        wrong += [
            f"{what} {name} has shape {shape} in the file, {declared[name]} in the manifest"
            for name, shape in found.items()
            if name in declared and shape and not _fits(shape, declared[name], artifact.format)
        ]
    yield _check(
        artifact.id, "inputs and outputs", not wrong, "; ".join(wrong) or "the same", "names and shapes as in the manifest",
        "an app finds them by name", "" if own.inputs else "the format does not say: only the manifest was checked",
    )  # fmt: skip


def _promised(artifact: Artifact, checkpoint: Checkpoint) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    """(what the manifest says, what every artifact of this checkpoint must be), name by name."""
    manifest, card = artifact.manifest, checkpoint.card
    contract = {spec.name: spec for spec in (image_spec(card.input_shape), *output_specs(len(card.class_labels), labels=True))}
    yield from ((spec, contract[spec.name]) for spec in (*manifest.inputs, *manifest.outputs) if spec.name in contract)


def _fits(shape: Shape, declared: tuple[int, ...], form: str) -> bool:
    """-1 in the manifest is any batch: Core ML programs take one at a time, ONNX files must leave it open."""
    if len(shape) != len(declared):
        return False
    batch = shape[0] in (None, 1) if form == "coreml" else shape[0] is None
    return (batch if declared[0] == -1 else shape[0] == declared[0]) and all(
        size is None or size == wanted for size, wanted in zip(shape[1:], declared[1:], strict=True)
    )


def _number_format(artifact: Artifact, own: Interface) -> Check:
    weights = {name: count for name, count in own.weights.most_common() if name not in INDICES}
    precision, total = artifact.manifest.precision, sum(weights.values())
    found = ", ".join(f"{100 * count / total:.4g} % {name}" for name, count in weights.items()) if total else "weights without a number"
    alien = {name: count for name, count in weights.items() if name != precision}
    kept = precision == "fp16" and set(alien) <= {"fp32"} and any(note.startswith(KEPT) for note in artifact.manifest.notes)
    return _check(
        artifact.id, "number format of the weights", not alien or artifact.manifest.compression is not None or kept, found, precision,
        "size, speed and rounding follow from it",
    )  # fmt: skip


def _equal(who: str, name: str, found: object, wanted: object, why: str, detail: str) -> Check:
    same = found == wanted
    return _check(who, name, same, _short(found), "the same" if same else _short(wanted), why, "" if same else detail)


def _short(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _check(who: str, name: str, passed: bool, figure: str, gate: str, why: str, detail: str = "") -> Check:
    return Check(level="files", name=name, artifact=who, runtime=None, passed=passed, figure=figure, gate=gate, why=why, detail=detail)
