"""The one supervisor: it starts a worker, watches its time and its memory, and says in words how it ended."""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from toolkit import errors
from toolkit.disks import require_temporary_room, temporary_full
from toolkit.errors import ToolkitError
from toolkit.limits import MEMORY_VARIABLE, SECONDS_VARIABLE, Limits
from toolkit.printable import printable
from toolkit.signals import signal_name
from toolkit.workers import wire
from toolkit.workers.child import ERROR, REQUEST, RESULT
from toolkit.workers.shown import shown
from toolkit.workers.wire import Message, WireError

LOOK_EVERY_S, RELAXED_S = 0.1, 1.0
FAMILY_EVERY = 10  # looks: the processes that a worker has started are counted more seldom, as finding them takes milliseconds
EXIT_S = 30.0  # that a worker may take to end once it has given its result
LAST_LINES, LAST_BYTES = 3, 4096
MAX_SAID_BYTES = 64 << 20  # on standard output and error
LOG = "TOOLKIT_WORKER_LOG"  # a file that gets all that lost workers have said
UNREAD = 1024  # messages that wait to be heard; a worker that says more waits
# What a worker gets of our environment: what libraries need to be found and set up, and no token or password of the user's.
PASSED_ON = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "SYSTEMROOT", "XDG_CACHE_HOME"})
PASSED_ON_PREFIXES = (
    "LC_", "LD_", "DYLD_", "PYTHON", "PYTEST_", "COVERAGE_", "COV_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "VECLIB_", "GOMP_", "DNNL_",
    "ONEDNN_", "ORT_", "PYTORCH_", "TORCH", "CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_", "MTL_", "METAL_", "COREML_", "COREAI_", "TOOLKIT_",
    "LOCAL_WORLD_SIZE", "MPLCONFIG",
)  # fmt: skip
PLACES = ("TOOLKIT_DATA", "TOOLKIT_CACHE", "TOOLKIT_MODELS")


class WorkerLost(ToolkitError):
    """A worker that ended without a result: how it ended, with its last words."""


@dataclass(frozen=True)
class Ended:
    """`stopped`: why we ended it; None where it ended by itself. `last`: its last words on standard output and error."""

    stopped: str | None
    code: int
    last: str

    @property
    def reason(self) -> str | None:
        """None where all is well; else how it ended."""
        if self.stopped is None and self.code == 0:
            return None
        words = f"; last words: {self.last}" if self.last else "; it said nothing"
        if self.stopped is not None:
            return self.stopped + words
        if self.code < 0:
            return f"its process was killed by {signal_name(-self.code)}{words}"
        if self.code == errors.BUG:
            return f"its process failed: {self.last}. All of what it said: set {LOG}=FILE, and run it again"
        return self.last or f"its process ended with exit code {self.code} and no message"


def call(
    task: str, request: Message, *, limits: Limits | None = None, stop: threading.Event | None = None,
    on_message: Callable[[str, Message], None] | None = None, most_bytes: int = wire.MAX_ARRAY_BYTES,
) -> Message:  # fmt: skip
    """Do one task in a worker, and return its result, which is not checked yet: only that it is a frame.

    `stop`: the worker is ended when it is set. `on_message` is given what the worker says meanwhile; without it, its progress is
    shown. `most_bytes`: of the arrays of one message. Raises the ToolkitError that the task raised, or WorkerLost.
    """
    with started(task, request, limits=limits, stop=stop, most_bytes=most_bytes) as worker, shown() as show:
        on_message = on_message or show
        while True:
            kind, message = worker.next()
            if kind == RESULT:
                worker.end()
                return message
            on_message(kind, message)


@contextlib.contextmanager
def started(
    task: str, request: Message, *, limits: Limits | None = None, stop: threading.Event | None = None,
    most_bytes: int = wire.MAX_ARRAY_BYTES,
) -> Iterator["Worker"]:  # fmt: skip
    """A worker that does a task for as long as the block lasts; then it is ended with all that it started.

    Raises DiskError where temporary files have no room: libraries end the process where they cannot write.
    """
    require_temporary_room()
    with tempfile.TemporaryDirectory(prefix="toolkit-worker-", ignore_cleanup_errors=True) as folder, tempfile.TemporaryFile() as words:
        worker = Worker(_popen(task, folder, words), words, limits or Limits(), stop, most_bytes)
        try:
            worker.send(REQUEST, request)
            yield worker
        finally:
            worker.close()


class Worker:
    """A running worker. It can be told something, and heard; both raise WorkerLost once it has ended."""

    def __init__(
        self,
        started: "tuple[subprocess.Popen[bytes], int]",
        words: IO[bytes],
        limits: Limits,
        stop: threading.Event | None,
        most_bytes: int,
    ) -> None:
        self._process, answers = started
        self._words, self._limits, self._stop = words, limits, stop
        self._heard: queue.Queue[tuple[str, Message] | WireError | None] = queue.Queue(UNREAD)
        self._stopped: str | None = None
        self._over, self._every = threading.Event(), LOOK_EVERY_S
        self._threads = [
            threading.Thread(target=self._listen, args=(answers, most_bytes), daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def tell(self, kind: str, **fields: Any) -> None:
        self.send(kind, Message(fields))

    def send(self, kind: str, message: Message) -> None:
        """Send a message. A worker that has ended does not hear it: `next` says how it ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            wire.write(self._process.stdin, kind, message)

    def next(self, seconds: float | None = None) -> tuple[str, Message]:
        """The next message of the worker. Raises the ToolkitError that its task raised, or WorkerLost.

        `seconds`: how long it may take; without, the limit of the whole worker alone holds.
        """
        try:
            found = self._heard.get(timeout=seconds)
        except queue.Empty:
            raise WorkerLost(self.ended(f"did not answer within {seconds:g} s and was stopped").reason) from None
        if found is None:
            raise self._without_result()
        if isinstance(found, WireError):
            raise WorkerLost(f"its answer cannot be read ({found}); last words: {self.ended('was stopped').last or 'none'}")
        if found[0] == ERROR:
            raise _error(found[1])
        return found

    def hear(self, kind: str, seconds: float) -> Message:
        """The next message, which must be of that kind. Raises as `next` does."""
        found, message = self.next(seconds)
        if found != kind:
            raise WorkerLost(f"its answer was {found!r:.80} where {kind!r} had to come")
        return message

    def relax(self) -> None:
        """From now on look once a second: while latencies are measured nothing of ours may disturb."""
        self._every = RELAXED_S

    def end(self, seconds: float = EXIT_S) -> None:
        """Wait until it has ended by itself. Raises WorkerLost where it does not, or not well."""
        reason = self.ended(None, seconds).reason
        if reason is not None:
            raise WorkerLost(reason)

    def ended(self, stopped: str | None, seconds: float = 0.0) -> Ended:
        """How it ended; `stopped`: why it is ended now, None where it may end by itself within so many seconds."""
        if stopped is None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                stopped = "did not end when it was done, and was stopped"
        self.close()
        found = Ended(self._stopped or stopped, self._process.returncode, _last(self._words))
        if found.reason is not None and (place := os.environ.get(LOG)):
            self._words.seek(0)
            with open(place, "ab") as log:  # noqa: PTH123  # what a user named, as it is
                shutil.copyfileobj(self._words, log)
        return found

    def close(self) -> None:
        """End it with the whole group of processes that it may have started. Twice is harmless."""
        self._over.set()
        _kill(self._process)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        while self._threads:
            thread = self._threads.pop()
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):  # a listener that waits for room
                    self._heard.get_nowait()
                thread.join(0.05)

    def _without_result(self) -> ToolkitError:
        """DiskError where it ended by itself, and a full disk may have been the reason."""
        ended = self.ended(None, EXIT_S)
        if ended.stopped is None and (full := temporary_full()) is not None:
            return full
        return WorkerLost(ended.reason or f"its process ended well and gave no result; last words: {ended.last or 'none'}")

    def _listen(self, answers: int, most_bytes: int) -> None:
        with os.fdopen(answers, "rb") as stream:
            try:
                while (frame := wire.read(stream, most_bytes)) is not None:
                    self._heard.put(frame)
            except (WireError, MemoryError, OSError) as error:
                self._heard.put(error if isinstance(error, WireError) else WireError(str(error)))
        self._heard.put(None)

    def _watch(self) -> None:
        """Stop the worker that takes too long, too much memory, or says too much."""
        deadline = time.monotonic() + self._limits.seconds
        looks = family = 0
        while not self._over.wait(self._every):
            if self._process.poll() is not None:
                return
            own, children = _resident(self._process.pid, looks % FAMILY_EVERY == 0)
            family, looks = family if children is None else children, looks + 1
            if (reason := self._reason(deadline, own + family)) is not None:
                self._stopped = reason
                _kill(self._process)
                return

    def _reason(self, deadline: float, used: int) -> str | None:
        """Why it must be stopped; None where it may go on."""
        if self._stop is not None and self._stop.is_set():
            return "was stopped with the others"
        if time.monotonic() > deadline:
            return f"did not end within {self._limits.seconds:g} s and was stopped ({SECONDS_VARIABLE} raises the limit)"
        if used > (most := self._limits.memory_bytes):
            return (
                f"used {used / 2**30:.1f} GiB of memory, allowed {most / 2**30:.1f}, and was stopped ({MEMORY_VARIABLE} raises the limit)"
            )
        if os.fstat(self._words.fileno()).st_size > MAX_SAID_BYTES:
            return f"said more than {MAX_SAID_BYTES >> 20} MiB and was stopped"
        return None


def _popen(task: str, folder: str, words: IO[bytes]) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a worker in a folder of its own: (its process, the file descriptor that its answers come from)."""
    ours, theirs = os.pipe()
    # -P and this sys.path: it imports what we import, and no random.py that lies in the user's folder.
    command = [sys.executable, "-P", "-m", "toolkit.workers", task, str(theirs)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=words, stderr=words, cwd=folder, env=_environment(folder), pass_fds=(theirs,),
            start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


def _environment(folder: str) -> dict[str, str]:
    """What a worker whose folder is `folder` gets of our environment. Paths are absolute: it has another current folder."""
    environment = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)}
    environment |= {name: os.path.abspath(environment[name]) for name in PLACES if environment.get(name)}  # noqa: PTH100
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # noqa: PTH100  # "" is the current folder
    return environment | {"PYTHONPATH": path, "TMPDIR": folder}


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The whole group: a runtime may have started helpers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _resident(pid: int, family: bool) -> tuple[int, int | None]:
    """Bytes of the process, and of all that it has started where `family`; 0 and None where the system does not tell.

    It does not tell of a process that has just ended. A look that fails for any other reason is followed by the next one.
    """
    import psutil

    untold = (psutil.Error, OSError)
    own, children = 0, None
    with contextlib.suppress(*untold):
        root = psutil.Process(pid)
        own = int(root.memory_info().rss)
        found = root.children(recursive=True) if family else None
        if found is not None:
            children = 0
            for child in found:
                with contextlib.suppress(*untold):
                    children += int(child.memory_info().rss)
    return own, children


def _last(words: IO[bytes]) -> str:
    size = os.fstat(words.fileno()).st_size
    text = os.pread(words.fileno(), LAST_BYTES, max(0, size - LAST_BYTES)).decode("utf-8", "backslashreplace")
    return printable("; ".join(text.strip().splitlines()[-LAST_LINES:]))


def _error(message: Message) -> ToolkitError:
    """The error that the task raised: of its own type where that is one of ours."""
    name, text = str(message.fields.get("type")), printable(message.fields.get("message"), newlines=True)
    kind = getattr(errors, name, ToolkitError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, ToolkitError) else ToolkitError(text)
