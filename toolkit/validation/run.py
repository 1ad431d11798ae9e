"""Runs workers: each in its own process, watched for its memory and its time, some at once where asked, or here for tests."""

import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.processes import watched
from toolkit.validation.worker import Answers, Job, ask


@dataclass(frozen=True)
class Limits:
    """Of one worker. `memory_bytes`: resident, children included. `jobs`: workers at once, each with a share of the images."""

    seconds: float = 3600.0
    memory_bytes: int = 16 << 30
    jobs: int = 1


class WorkerLost(Exception):
    """How a worker ended that gave no answer, with its last words."""


def run(job: Job, images: Any, limits: Limits, isolate: bool, update: Callable[[int], None]) -> Answers:
    """The answers for `images` (N, C, H, W) uint8. Raises WorkerLost, or ToolkitError where not isolated."""
    with tempfile.TemporaryDirectory() as folder:
        shards = np.array_split(images, min(limits.jobs, len(images)))
        done, stop = [0] * len(shards), threading.Event()

        def one(number: int) -> Answers:
            def add(count: int) -> None:
                done[number] = count
                update(sum(done))

            place = Path(folder) / str(number)
            place.mkdir()
            mine = replace(job, images=str(place / "images.npy"), out=str(place / "answers.npz"))
            np.save(mine.images, shards[number])
            return _isolated(mine, limits, stop, add) if isolate else ask(mine, add)

        with ThreadPoolExecutor(len(shards)) as pool:
            try:
                parts = list(pool.map(one, range(len(shards))))
            except BaseException:  # Ctrl-C as well: the pool would wait for the other workers to their end
                stop.set()
                raise
    return in_order(parts)


def in_order(parts: list[Answers]) -> Answers:
    """The first worker's answers, with everybody's test images; their seconds are those of the slowest."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "probabilities", "labels")}
    return replace(parts[0], **joined, seconds=max(part.seconds for part in parts))


def _isolated(job: Job, limits: Limits, stop: threading.Event, update: Callable[[int], None]) -> Answers:
    path = Path(job.out).with_suffix(".json")
    job.save(path)

    def count(line: bytes) -> None:
        """A runtime may print as well; only what is a number is ours."""
        if line.strip().isdigit():
            update(int(line))

    ended = watched("toolkit.validation", [str(path)], seconds=limits.seconds, memory_bytes=limits.memory_bytes, stop=stop, on_line=count)
    if ended.reason is not None:
        raise WorkerLost(ended.reason)
    try:
        return Answers.load(Path(job.out))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise WorkerLost(f"its process ended well and left no answers ({error}); last words: {ended.last or 'none'}") from error


def answers_or_reason(job: Job, images: Any, limits: Limits, isolate: bool, update: Callable[[int], None]) -> Answers | str:
    """Answers, or in words why there are none."""
    try:
        return run(job, images, limits, isolate, update)
    except (WorkerLost, ToolkitError) as error:
        return str(error)
