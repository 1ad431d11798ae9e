"""Runs workers: each in its own process, watched for its memory and its time, some at once where asked, or here for tests."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.validation.worker import Answers, Job, ask

LOOK_EVERY_S = 0.1
LAST_LINES = 3


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
    return _joined(parts)


def _joined(parts: list[Answers]) -> Answers:
    """The first worker's answers, with everybody's test images; their seconds are those of the slowest."""
    logits, probabilities = (np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "probabilities"))
    return replace(parts[0], logits=logits, probabilities=probabilities, seconds=max(part.seconds for part in parts))


def _isolated(job: Job, limits: Limits, stop: threading.Event, update: Callable[[int], None]) -> Answers:
    path = Path(job.out).with_suffix(".json")
    job.save(path)
    # -P and this sys.path: it imports what we import, and no random.py that lies in the user's folder.
    command = [sys.executable, "-P", "-m", "toolkit.validation.worker", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=environment, start_new_session=True)
        reader = threading.Thread(target=_read, args=(process, update), daemon=True)
        reader.start()
        try:
            ended = _watch(process, limits, stop)
        finally:
            _end(process)
            reader.join()
        words.seek(0)
        last = _printable("; ".join(words.read().decode("utf-8", "backslashreplace").strip().splitlines()[-LAST_LINES:]))
    if ended is None and process.returncode == 0:
        return Answers.load(Path(job.out))
    raise WorkerLost(_how(ended, process.returncode, last))


def _printable(text: str) -> str:
    """Without the escapes that would colour or move about on the reader's terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _read(process: "subprocess.Popen[bytes]", update: Callable[[int], None]) -> None:
    """A runtime may print as well; only what is a number is ours."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.strip().isdigit():
                update(int(line))


def _watch(process: "subprocess.Popen[bytes]", limits: Limits, stop: threading.Event) -> str | None:
    """None when it ended by itself, else why it was stopped."""
    import psutil

    deadline = time.monotonic() + limits.seconds
    while process.poll() is None:
        if stop.wait(LOOK_EVERY_S):
            return "was stopped with the others"
        if time.monotonic() > deadline:
            return f"did not end within {limits.seconds:g} s and was stopped"
        with contextlib.suppress(psutil.Error):  # it may end between two questions
            root = psutil.Process(process.pid)
            used = sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])
            if used > limits.memory_bytes:
                return f"used {used / 2**30:.1f} GiB of memory, allowed {limits.memory_bytes / 2**30:.1f}, and was stopped"
    return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The whole group: a runtime may have started helpers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(stopped: str | None, code: int, last: str) -> str:
    words = f"; last words: {last}" if last else "; it said nothing"
    if stopped is not None:
        return stopped + words
    if code < 0:
        name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
        return f"its process was killed by {name}{words}"
    return last or f"its process ended with exit code {code} and no message"


def answers_or_reason(job: Job, images: Any, limits: Limits, isolate: bool, update: Callable[[int], None]) -> Answers | str:
    """Answers, or in words why there are none."""
    try:
        return run(job, images, limits, isolate, update)
    except (WorkerLost, ToolkitError) as error:
        return str(error)
