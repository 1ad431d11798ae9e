"""Everything one runtime is asked of one artifact, in a worker (toolkit/workers): nothing is judged here.

A runtime that kills its process, hangs or eats the memory takes nobody with it. What comes back is checked by `Answers.of` before
it is used: whoever opened a stranger's file may say anything.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data.pictures import read_picture
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.runtimes import Runtime, Session, find
from toolkit.runtimes.outputs import rows_of as rows_of_output
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES
from toolkit.validation.interface import Interface, read
from toolkit.workers.child import Link
from toolkit.workers.wire import Message, WireError

Array = np.ndarray[Any, Any]
Update = Callable[[int], None]
FEW = 8  # images for questions that need no statistics
MOST_TEXT = 2000  # characters of what a runtime said to one question
PROGRESS = "done"


@dataclass(frozen=True)
class Job:
    """What is asked. `golden`: (G, C, H, W) float32. `pictures`: image files, and `pixels` (P, C, H, W) float32 what they hold.

    `folder`: of an artifact, or of a checkpoint. `classes`: how many logits there must be for each image.
    """

    folder: str
    runtime: str
    golden: Array
    classes: int
    pictures: tuple[str, ...] = ()
    pixels: Array = field(default_factory=lambda: np.empty((0, 1, 1, 1), np.float32))
    threads: int | None = None

    def message(self, images: Array) -> Message:
        """With the test images (N, C, H, W) uint8."""
        fields = {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}
        return Message(fields, {"golden": self.golden, "pixels": self.pixels, "images": images})

    @classmethod
    def of(cls, message: Message) -> tuple["Job", Array]:
        """The job and its test images."""
        given: dict[str, Any] = {**message.fields, **message.arrays}
        images = given.pop("images")
        return cls(**{**given, "pictures": tuple(given["pictures"])}), images

    @property
    def artifact(self) -> Artifact:
        """Raises ToolkitError when the file is not what its manifest, or the checkpoint not what its card says."""
        folder = Path(self.folder)
        return Artifact.of_checkpoint(Checkpoint.open(folder)) if (folder / "checkpoint.json").is_file() else Artifact.open(folder)


@dataclass(frozen=True)
class Answers:
    """Logits (N, classes) float32 throughout, but for `probabilities`. `shapes`, `refusals`: a question, and what came of it.

    `singly` and `backwards` are of the first images of `golden`: one by one, and in reverse order within one batch.
    `app`: of the first picture by the path that an app takes, where the runtime has one of its own; else empty.
    `pixels`: of the pictures' true pixels. `labels` (N,): the class label that the file itself says, of the test images; else empty.
    """

    logits: Array
    probabilities: Array
    golden: Array
    golden_probabilities: Array
    singly: Array
    backwards: Array
    pictures: Array
    app: Array
    shapes: tuple[tuple[str, str], ...]
    refusals: tuple[tuple[str, str], ...]
    seconds: float
    pixels: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    labels: Array = field(default_factory=lambda: np.empty(0, "U1"))

    def message(self) -> Message:
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return Message({"shapes": self.shapes, "refusals": self.refusals, "seconds": self.seconds}, arrays)

    @classmethod
    def of(cls, message: Message, rows: dict[str, Sequence[int]], classes: int) -> "Answers":
        """Check what came back, or what was kept. `rows`: array → the numbers of rows it may have. Raises WireError."""
        wanted = {name for name, kind in cls.__annotations__.items() if kind is Array}
        if set(message.arrays) != wanted or set(message.fields) != {"shapes", "refusals", "seconds"}:
            raise WireError(f"answers have {', '.join(sorted({*message.arrays, *message.fields}))}")
        for name, array in message.arrays.items():
            if name == "labels":
                fits = array.dtype.kind == "U" and array.ndim == 1
            else:
                empty = array.ndim == 2 and not len(array)
                fits = array.dtype == np.float32 and (empty or array.shape[1:] == (classes,))
            if not fits or len(array) not in rows[name]:
                raise WireError(f"answers have {name} {array.dtype} {array.shape} for {classes} classes and {list(rows[name])} rows")
        if message.arrays["singly"].shape != message.arrays["backwards"].shape:
            raise WireError("answers to the same images one by one and backwards are not as many")
        try:
            texts = {name: _PAIRS.validate_python(message.fields[name]) for name in ("shapes", "refusals")}
            seconds = _SECONDS.validate_python(message.fields["seconds"])
        except ValidationError as error:
            raise WireError(f"answers cannot be read: {error.errors(include_url=False)[0]['msg']}") from error
        cut = {name: tuple((one[:MOST_TEXT], other[:MOST_TEXT]) for one, other in pairs) for name, pairs in texts.items()}
        values: dict[str, Any] = {**message.arrays, **cut, "seconds": seconds}
        return cls(**values)


_PAIRS = TypeAdapter(tuple[tuple[str, str], ...])
_SECONDS = TypeAdapter(float)


def rows_of(job: Job, images: int) -> dict[str, Sequence[int]]:
    """How many rows each array of the answers to `job` on so many images has; 0 where there may be no such answer."""
    golden, few = len(job.golden), min(FEW, len(job.golden))
    return {
        "logits": (images,), "probabilities": (images,), "labels": (0, images), "golden": (golden,), "golden_probabilities": (golden,),
        "singly": (few,), "backwards": (few,), "pictures": (len(job.pictures),), "app": (0, 1), "pixels": (len(job.pixels),),
    }  # fmt: skip


def answer(request: Message, link: Link) -> Message:
    """The task `answers`. It says how many test images are done."""
    job, images = Job.of(request)
    return ask(job, images, lambda done: link.tell(PROGRESS, images=done)).message()


def ask(job: Job, images: Array, update: Update) -> Answers:
    """The answers for `images` (N, C, H, W) uint8. Raises ToolkitError when artifact or runtime refuse what every artifact must do."""
    artifact, runtime, golden = job.artifact, find(job.runtime), job.golden
    session = runtime.open(artifact, job.threads)
    try:
        golden_logits, golden_probabilities, _, _ = _run(session, runtime, golden, artifact, lambda done: None)
        few = golden[: min(FEW, len(golden))]
        singly = np.concatenate([session({IMAGE: image[None]})[LOGITS] for image in few])
        backwards = session({IMAGE: np.ascontiguousarray(few[::-1])})[LOGITS][::-1]
        shape = artifact.manifest.inputs[0].shape[1:]
        pictures = [read_picture(Path(path), shape, invert=False).pixels for path in job.pictures]  # type: ignore[arg-type]
        found = [session({IMAGE: picture[None]})[LOGITS] for picture in pictures]
        app = _as_an_app(session, artifact, pictures[0]) if pictures else None
        pixels = [session({IMAGE: each[None]})[LOGITS] for each in job.pixels]
        logits, probabilities, labels, seconds = _run(session, runtime, images, artifact, update)
        return _float32(
            logits=logits, probabilities=probabilities, golden=golden_logits, golden_probabilities=golden_probabilities,
            singly=singly, backwards=backwards, pictures=np.concatenate(found) if found else golden_logits[:0],
            app=golden_logits[:0] if app is None else app, shapes=_shapes(session, golden),
            refusals=_refusals(session, golden), seconds=seconds, labels=labels,
            pixels=np.concatenate(pixels) if pixels else golden_logits[:0],
        )  # fmt: skip
    finally:
        session.close()


def _float32(**fields: Any) -> Answers:
    """A runtime may give its logits in another number format."""
    values: dict[str, Any] = {
        name: value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
        for name, value in fields.items()
    }
    return Answers(**values)


def _run(session: Session, runtime: Runtime, images: Array, artifact: Artifact, update: Update) -> tuple[Array, Array, Array, float]:
    """(logits, probabilities, labels, seconds). Raises ArtifactError when a batch comes back with another shape."""
    who, classes, seconds, labels = f"{artifact.id} on {runtime.id}", len(artifact.manifest.class_labels), 0.0, list[Array]()
    logits, probabilities = np.empty((len(images), classes), np.float32), np.empty((len(images), classes), np.float32)
    for start in range(0, len(images), runtime.batch):
        batch = {IMAGE: images[start : start + runtime.batch].astype(np.float32)}
        began = time.perf_counter()
        found = session(batch)
        seconds += time.perf_counter() - began
        for name, rows in ((LOGITS, logits), (PROBABILITIES, probabilities)):
            rows[start : start + runtime.batch] = rows_of_output(found, name, who, len(batch[IMAGE]), classes)
        labels += [np.asarray(found[CLASS_LABEL]).astype(str).reshape(-1)] if CLASS_LABEL in found else []
        update(min(start + runtime.batch, len(images)))
    return logits, probabilities, np.concatenate(labels) if labels else np.empty(0, "U1"), seconds


def _as_an_app(session: Session, artifact: Artifact, pixels: Array) -> Array | None:
    """Core ML's image input, given a picture and not numbers; None where the session takes that path anyway, or has none."""
    evaluator = getattr(session, "evaluator", None)
    if evaluator is None or artifact.manifest.input_kind != "image":
        return None
    from toolkit.runtimes.coreml import picture

    return np.asarray(evaluator.predict({IMAGE: picture(pixels)})[LOGITS], np.float32).reshape(1, -1)


def _shapes(session: Session, golden: Array) -> tuple[tuple[str, str], ...]:
    """Batches of 1, N and N + 1: a program of flexible shape has been seen to turn eight images into one without a word."""
    counts = (1, FEW, FEW + 1)
    return tuple((str(count), _outcome(session, np.resize(golden, (count, *golden.shape[1:])).astype(np.float32))) for count in counts)


def _refusals(session: Session, golden: Array) -> tuple[tuple[str, str], ...]:
    """What is no image of this model must be refused in words: 'refused: …', or what came instead."""
    _, channels, height, width = golden.shape
    wrong = {
        "another size": np.zeros((1, channels, height + 1, width + 1), np.float32),
        "another number of channels": np.zeros((1, channels + 1, height, width), np.float32),
        "no batch axis": np.zeros((channels, height, width), np.float32),
        "float64": np.zeros((1, channels, height, width)),
        "no image at all": np.zeros((0, channels, height, width), np.float32),
    }
    return tuple((name, _outcome(session, images)) for name, images in wrong.items())


def _outcome(session: Session, images: Array) -> str:
    """The shape of the logits, or in words what came instead."""
    try:
        return str(session({IMAGE: images})[LOGITS].shape)
    except ToolkitError as error:
        return f"refused: {error}"
    except Exception as error:  # the very thing that is asked: whatever a runtime raises is its answer
        return f"{type(error).__name__}: {error}"


def interfaces(request: Message, link: Link) -> Message:
    """The task `interfaces`: of each artifact's folder what its file says of itself, or in words why it cannot be read."""
    return Message({"found": INTERFACES.dump_python([interface(Path(folder)) for folder in request.fields["folders"]], mode="json")})


def interface(folder: Path) -> Interface | str:
    try:
        return read(Artifact.open(folder))
    except ArtifactError as error:
        return str(error)


INTERFACES = TypeAdapter(list[Interface | str])
