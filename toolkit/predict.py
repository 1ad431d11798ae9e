"""Classify image files with any runtime: the picture is brought to the form of the training images first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint import Checkpoint
from toolkit.data.pictures import read_picture
from toolkit.errors import ArtifactError
from toolkit.runtimes import find
from toolkit.selection import artifacts_of
from toolkit.tensors import IMAGE, PROBABILITIES
from toolkit.workspace import DEFAULT_MODEL, Workspace, known_models

TOP = 3


@dataclass(frozen=True)
class Prediction:
    """`top` holds (class label, probability), best first. `inverted`: dark strokes on light were turned round."""

    image: Path
    inverted: bool
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class PredictResult:
    model: str
    artifact: str
    runtime: str
    predictions: list[Prediction]


def predict(
    workspace: Workspace, images: Sequence[Path], *, runtime: str = "torch-cpu", artifact: str | None = None, invert: bool | None = None
) -> PredictResult:
    """Top three classes of each image file. Raises DataError for a file that is no picture, ArtifactError, RuntimeUnavailable."""
    chosen = find(runtime)
    checkpoint = Checkpoint.open(workspace.checkpoint)
    found = [each for each in artifacts_of(workspace, checkpoint, [artifact] if artifact else None) if artifact in (None, each.id)]
    readable = [each for each in found if each.format == chosen.reads]
    if artifact and not readable:
        raise ArtifactError(f"{runtime} reads {chosen.reads} artifacts; {artifact} is {found[0].format}. Choose another with --runtime")
    if not readable:
        raise ArtifactError(
            f"{runtime} reads {chosen.reads} artifacts, and there is none. Make one: toolkit export --format {chosen.reads}"
        )
    pictures = [read_picture(path, checkpoint.card.input_shape, invert) for path in images]  # all, before a model is loaded
    session = chosen.open(readable[0])
    try:
        rows = [session({IMAGE: picture.pixels[None]})[PROBABILITIES][0] for picture in pictures]
    finally:
        session.close()
    labels = checkpoint.card.class_labels
    predictions = [
        Prediction(path, picture.inverted, [(labels[k], float(row[k])) for k in row.argsort()[::-1][:TOP]])
        for path, picture, row in zip(images, pictures, rows, strict=True)
    ]
    return PredictResult(checkpoint.recipe.name, readable[0].id, runtime, predictions)


def split_words(words: Sequence[str]) -> tuple[str, list[Path]]:
    """(model, images) of `[MODEL] IMAGE…`: the first word is a model where it names one and is no file."""
    first, *rest = words
    if rest and not Path(first).is_file() and (first in known_models() or Path(first).is_dir()):
        return first, [Path(word) for word in rest]
    return DEFAULT_MODEL, [Path(word) for word in words]
