"""State every limit of the toolkit once: how large a file may be, and what a child process may use.

A limit of a file is far above what we write ourselves, and small enough to be read. Memory follows from this machine, or from the
cgroup (a container) that we are in, whichever is smaller. What the Core ML evaluator makes of it: toolkit/mil/limits.py.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError

MAX_RECIPE_BYTES = 64 << 10  # a recipe is a page of text
MAX_CARD_BYTES = 16 << 20  # checkpoint.json, manifest.json
MAX_WEIGHTS_BYTES = 4 << 30  # an on-device classifier is far smaller
MAX_GOLDEN_BYTES = 256 << 20  # golden.npz, unpacked
MAX_EVIDENCE_BYTES = 16 << 20
MAX_REPORT_BYTES = 256 << 20  # validation.json
MAX_PICTURE_BYTES = 64 << 20  # a photograph has some 10 MB
MAX_PICTURE_PIXELS = 64_000_000  # 8000×8000: some 500 MB in memory while it is made gray
MAX_PICTURE_VISITS = 1 << 30  # pixels times passes of a progressive JPEG: some 20 seconds
MAX_ARCHIVE_BYTES = 64 << 20  # of a data set, packed: MNIST's largest has 10 MB
MAX_BENCH_BYTES = 1 << 30  # bench.json holds every sample
MAX_METRICS_BYTES = 64 << 20  # metrics.jsonl

MEMORY_VARIABLE, SECONDS_VARIABLE = "TOOLKIT_MEMORY_LIMIT", "TOOLKIT_TIME_LIMIT"  # GiB; seconds
WORK_VARIABLE = "TOOLKIT_WORK_LIMIT"  # 10^12 operations
SHARE = 0.5  # of the machine's memory that all workers of a command may use together
SECONDS = 3600.0  # that a worker may take
WORKER_BYTES = 512 << 20  # that a worker needs before it has read any file: PyTorch alone takes 300 MB
OPERATIONS = 1e12  # of one prediction of the Core ML evaluator: some minutes of one processor at most
THREADS_PER_PROCESSOR = 4  # more only wait for each other
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@functools.cache
def machine_bytes() -> int:
    """The memory of this machine, or of the cgroup where that is less."""
    import psutil

    found = int(psutil.virtual_memory().total)
    for path in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # there is no such group, or it says "max"
            found = min(found, int(path.read_text(encoding="ascii")))
    return found


def memory_bytes() -> int:
    """What one worker may use by default: half of the machine's memory, or what TOOLKIT_MEMORY_LIMIT says."""
    given = _given(MEMORY_VARIABLE, "GiB")
    return int(machine_bytes() * SHARE) if given is None else max(1, int(min(given, 1 << 20) * 2**30))


def seconds() -> float:
    """How long one worker may take by default: an hour, or what TOOLKIT_TIME_LIMIT says."""
    return _given(SECONDS_VARIABLE, "seconds") or SECONDS


def operations() -> float:
    """How many operations one prediction of the Core ML evaluator may take by default: 10^12, or what TOOLKIT_WORK_LIMIT says."""
    given = _given(WORK_VARIABLE, "10^12 operations")
    return OPERATIONS if given is None else given * 1e12


def thread_count(threads: Any) -> int | None:
    """`threads` as a number of threads to compute with, or None: the runtime's own.

    Raises ToolkitError for what is no whole number from 1 to four for each processor, and at least 16.
    """
    most = max(16, THREADS_PER_PROCESSOR * (os.cpu_count() or 1))
    if threads is None:
        return None
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if not whole or not 1 <= threads <= most:
        shown = f"a number of {threads.bit_length()} bits" if whole and threads.bit_length() > 64 else f"{threads!r:.40}"
        raise ToolkitError(f"threads is {shown}; give a whole number from 1 to {most}, or None for the runtime's own")
    return int(threads)


def _given(name: str, unit: str) -> float | None:
    """Raises ToolkitError for what is no number above 0."""
    text = os.environ.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ToolkitError(f"{name}={text!r} is not a number of {unit} above 0. Set it to one, or unset it")
    return value


@dataclass(frozen=True)
class Limits:
    """What a worker may use. `memory_bytes`: resident, its own child processes included; several workers at once (`jobs`) share it."""

    seconds: float = field(default_factory=seconds)
    memory_bytes: int = field(default_factory=memory_bytes)
    jobs: int = 1

    def fitting(self, tell: Callable[[str], None]) -> "Limits":
        """With no more jobs than this machine has cores, and than have room in the memory. `tell` is given the reason, if any."""
        cores, room = os.cpu_count() or 1, max(1, self.memory_bytes // WORKER_BYTES)
        if self.jobs <= min(cores, room):
            return self
        gib = self.memory_bytes / 2**30
        why = f"this machine has {cores} cores" if cores <= room else f"{gib:.3g} GiB of memory have room for {room} workers"
        tell(f"{self.jobs} jobs were asked for, and {min(cores, room)} are used: {why}")
        return replace(self, jobs=min(cores, room))
