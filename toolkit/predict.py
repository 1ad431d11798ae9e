"""Classify image files with any runtime: the picture is brought to the form of the training images first.

Pictures and model files come from anywhere: both are opened in a worker (toolkit/workers), the task `predict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from toolkit.data.pictures import read_picture
from toolkit.errors import ArtifactError
from toolkit.runtimes import find
from toolkit.runtimes.outputs import finite, rows_of
from toolkit.selection import artifacts_of, checkpoint_of
from toolkit.tensors import IMAGE, PROBABILITIES
from toolkit.workers import Message, WorkerLost, call
from toolkit.workers.child import Link
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
    workspace: Workspace, images: Sequence[Path], *, runtime: str = "torch-cpu", artifact: str | None = None, invert: bool | None = None,
    isolate: bool = True,
) -> PredictResult:  # fmt: skip
    """Top three classes of each image file. Raises DataError for a file that is no picture, ArtifactError, RuntimeUnavailable.

    `isolate`: pictures and model are opened in a worker. Raises WorkerLost where one of them takes it down.
    """
    find(runtime)
    if not isolate:
        return _predict(workspace, images, runtime, artifact, invert)
    request = Message({
        "folder": str(workspace.folder.absolute()), "recipe": str(workspace.recipe.absolute()), "images": [str(path) for path in images],
        "places": [str(path.absolute()) for path in images], "runtime": runtime, "artifact": artifact, "invert": invert,
    })  # fmt: skip
    try:
        found = _RESULT.validate_python(call("predict", request).fields)
    except ValidationError as error:
        raise WorkerLost(f"the process that looked at the pictures gave no result that can be read: {error}") from error
    if len(found.predictions) != len(images):
        raise WorkerLost(f"the process that looked at {len(images)} pictures gave {len(found.predictions)} answers")
    return replace(found, predictions=[replace(each, image=path) for each, path in zip(found.predictions, images, strict=True)])


def task(request: Message, link: Link) -> Message:
    """The task `predict`."""
    given = request.fields
    workspace, places = Workspace(Path(given["folder"]), Path(given["recipe"])), [Path(place) for place in given["places"]]
    result = _predict(workspace, places, given["runtime"], given["artifact"], given["invert"])
    return Message(_RESULT.dump_python(result, mode="json"))


def _predict(workspace: Workspace, images: Sequence[Path], runtime: str, artifact: str | None, invert: bool | None) -> PredictResult:
    chosen = find(runtime)
    checkpoint = checkpoint_of(workspace)
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
        who, classes = f"{readable[0].id} on {runtime}", len(checkpoint.card.class_labels)
        found_rows = [rows_of(session({IMAGE: picture.pixels[None]}), PROBABILITIES, who, 1, classes) for picture in pictures]
        rows = [finite(each, PROBABILITIES, who)[0] for each in found_rows]
    finally:
        session.close()
    labels = checkpoint.card.class_labels
    predictions = [
        Prediction(path, picture.inverted, [(labels[k], float(row[k])) for k in row.argsort()[::-1][:TOP]])
        for path, picture, row in zip(images, pictures, rows, strict=True)
    ]
    return PredictResult(checkpoint.recipe.name, readable[0].id, runtime, predictions)


_RESULT = TypeAdapter(PredictResult)


def split_words(words: Sequence[str]) -> tuple[str, list[Path]]:
    """(model, images) of `[MODEL] IMAGE…`: the first word is a model where it names one and is no file."""
    first, *rest = words
    if rest and not Path(first).is_file() and (first in known_models() or Path(first).is_dir()):
        return first, [Path(word) for word in rest]
    return DEFAULT_MODEL, [Path(word) for word in words]
