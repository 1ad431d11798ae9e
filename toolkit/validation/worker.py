"""Everything one runtime is asked of one artifact: `python -m toolkit.validation JOB.json` in a process of its own.

A runtime that kills its process, hangs or eats the memory takes nobody with it (run.py watches). Nothing is judged here.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.data.pictures import read_picture
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.runtimes import Runtime, Session, find
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES

Array = np.ndarray[Any, Any]
Update = Callable[[int], None]
FEW = 8  # images for questions that need no statistics


@dataclass(frozen=True)
class Job:
    """Paths as text. `images`: .npy (N, C, H, W) uint8, the test images; `golden`: likewise float32; `pictures`: image files.

    `pixels`: .npy of what the pictures hold (n, C, H, W) float32; empty where there are none.
    """

    folder: str
    runtime: str
    golden: str
    pictures: tuple[str, ...]
    threads: int | None
    pixels: str = ""
    images: str = ""
    out: str = ""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

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

    def save(self, path: Path) -> None:
        texts = json.dumps({"shapes": self.shapes, "refusals": self.refusals, "seconds": self.seconds})
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        np.savez(path, texts=np.array(texts), **arrays)

    @classmethod
    def load(cls, path: Path) -> "Answers":
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:  # NumPy leaves a damaged file open
            texts = json.loads(str(file["texts"]))
            fields: dict[str, Any] = {name: file[name] for name in file.files if name != "texts"}
            fields |= {name: tuple((str(a), str(b)) for a, b in texts[name]) for name in ("shapes", "refusals")}
            return cls(**fields, seconds=float(texts["seconds"]))


def ask(job: Job, update: Update) -> Answers:
    """Raises ToolkitError when the artifact or the runtime refuses what every artifact must do."""
    artifact, runtime = job.artifact, find(job.runtime)
    images, golden = np.load(job.images), np.load(job.golden)
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
        pixels = [session({IMAGE: each[None]})[LOGITS] for each in np.load(job.pixels)] if job.pixels else []
        logits, probabilities, labels, seconds = _run(session, runtime, images, artifact, update)
        return Answers(
            logits=logits, probabilities=probabilities, golden=golden_logits, golden_probabilities=golden_probabilities,
            singly=singly, backwards=backwards, pictures=np.concatenate(found) if found else golden_logits[:0],
            app=golden_logits[:0] if app is None else app, shapes=_shapes(session, golden),
            refusals=_refusals(session, golden), seconds=seconds, labels=labels,
            pixels=np.concatenate(pixels) if pixels else golden_logits[:0],
        )  # fmt: skip
    finally:
        session.close()


def _run(session: Session, runtime: Runtime, images: Array, artifact: Artifact, update: Update) -> tuple[Array, Array, Array, float]:
    """(logits, probabilities, labels, seconds). Raises ArtifactError when a batch comes back with another shape."""
    classes, seconds, labels = len(artifact.manifest.class_labels), 0.0, list[Array]()
    logits, probabilities = np.empty((len(images), classes), np.float32), np.empty((len(images), classes), np.float32)
    for start in range(0, len(images), runtime.batch):
        batch = {IMAGE: images[start : start + runtime.batch].astype(np.float32)}
        began = time.perf_counter()
        found = session(batch)
        seconds += time.perf_counter() - began
        for name, rows in ((LOGITS, logits), (PROBABILITIES, probabilities)):
            if name not in found:
                raise ArtifactError(f"{artifact.id} on {runtime.id} gives {', '.join(found)}, and no {name}")
            if found[name].shape != (len(batch[IMAGE]), classes):
                raise ArtifactError(f"{artifact.id} on {runtime.id} gave {name} {found[name].shape} for {len(batch[IMAGE])} images")
            rows[start : start + runtime.batch] = found[name]
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


def main() -> int:
    """Standard output has one number a line, how many images are done; the answers go into a file."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        ask(job, lambda done: print(done, flush=True)).save(Path(job.out))
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
