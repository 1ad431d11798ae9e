"""Ask workers: each artifact is opened in a process of its own, which is watched; or in this one, where a test asks for that."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from toolkit.errors import DiskError, ToolkitError
from toolkit.limits import Limits
from toolkit.validation.interface import Interface
from toolkit.validation.worker import INTERFACES, PROGRESS, Answers, Job, ask, interface, rows_of
from toolkit.workers import Message, WireError, WorkerLost, call


def run(job: Job, images: Any, limits: Limits, isolate: bool, update: Callable[[int], None]) -> Answers:
    """The answers for `images` (N, C, H, W) uint8. Raises WorkerLost, or the ToolkitError that the artifact or the runtime raised."""
    shards = np.array_split(images, min(limits.jobs, len(images)))
    done, stop = [0] * len(shards), threading.Event()
    limits = replace(limits, memory_bytes=limits.memory_bytes // len(shards))  # together they may use no more than one

    def one(number: int) -> Answers:
        def add(count: int) -> None:
            done[number] = count
            update(sum(done))

        return _isolated(job, shards[number], limits, stop, add) if isolate else ask(job, shards[number], add)

    with ThreadPoolExecutor(len(shards)) as pool:
        try:
            return in_order(list(pool.map(one, range(len(shards)))))
        except BaseException:  # Ctrl-C as well: the pool would wait for the other workers to their end
            stop.set()
            raise


def in_order(parts: list[Answers]) -> Answers:
    """The first worker's answers, with everybody's test images; their seconds are those of the slowest."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "probabilities", "labels")}
    return replace(parts[0], **joined, seconds=max(part.seconds for part in parts))


def _isolated(job: Job, images: Any, limits: Limits, stop: threading.Event, update: Callable[[int], None]) -> Answers:
    def heard(kind: str, message: Message) -> None:
        count = message.fields.get("images")
        if kind == PROGRESS and type(count) is int:
            update(min(max(count, 0), len(images)))

    found = call("answers", job.message(images), limits=limits, stop=stop, on_message=heard)
    try:
        return Answers.of(found, rows_of(job, len(images)), job.classes)
    except WireError as error:
        raise WorkerLost(f"its process gave answers that do not fit: {error}") from error


def answers_or_reason(job: Job, images: Any, limits: Limits, isolate: bool, update: Callable[[int], None]) -> Answers | str:
    """Answers, or in words why there are none. Raises DiskError."""
    try:
        return run(job, images, limits, isolate, update)
    except DiskError:  # that says nothing of the file
        raise
    except ToolkitError as error:
        return str(error)


def interfaces(folders: Sequence[Path], limits: Limits, isolate: bool) -> list[Interface | str]:
    """What the model file of each artifact says of itself, or in words why it cannot be read.

    One worker reads all of them. Where a file takes it down, each is read by a worker of its own, which shows the one to blame.
    """
    if not isolate or not folders:
        return [interface(folder) for folder in folders]
    try:
        message = call("interfaces", Message({"folders": [str(folder.absolute()) for folder in folders]}), limits=limits)
        found = INTERFACES.validate_python(message.fields.get("found"))
        if len(found) != len(folders):
            raise WorkerLost(f"{len(found)} answers about {len(folders)} files")
        return found
    except DiskError:
        raise
    except (ToolkitError, ValidationError) as error:
        if len(folders) > 1:
            return [each for folder in folders for each in interfaces([folder], limits, isolate)]
        return [f"{folders[0]}: its file took down the process that read it: {error}. Export again"]
