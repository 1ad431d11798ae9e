"""The worker's side: take no more than is needed, do the one task, and end with whoever started us."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import IO, Any

from toolkit.disks import temporary_full
from toolkit.errors import BAD_INPUT, BUG, DONE, ToolkitError
from toolkit.progress import relayed
from toolkit.workers import wire
from toolkit.workers.tasks import find
from toolkit.workers.wire import Message

MAX_WRITTEN_BYTES = 8 << 30  # of one file that the worker writes: a compiled model is far smaller
RESULT, ERROR, REQUEST = "result", "error", "request"
PR_SET_PDEATHSIG = 1  # prctl(2)


class Link:
    """What a task can say to whoever started it, and hear of it."""

    def __init__(self, out: IO[bytes], heard: "SimpleQueue[tuple[str, Message]]") -> None:
        self._out, self._heard, self._lock = out, heard, threading.Lock()

    def tell(self, kind: str, **fields: Any) -> None:
        """Send fields that JSON can hold, such as how far the task has come."""
        self.send(kind, Message(fields))

    def send(self, kind: str, message: Message) -> None:
        with self._lock:
            wire.write(self._out, kind, message)

    def hear(self, kind: str) -> Message:
        """Wait for a message of that kind. Raises ToolkitError where another one comes."""
        found, message = self._heard.get()
        if found != kind:
            raise ToolkitError(f"the worker was told {found!r} where {kind!r} had to come")
        return message


def main(words: list[str]) -> int:
    """`words`: the task, and the number of the file descriptor that answers are written to. The request comes on standard input."""
    task, number = words
    _confine()
    heard: SimpleQueue[tuple[str, Message]] = SimpleQueue()
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the task runs must not read what is meant for us
    threading.Thread(target=_listen, args=(requests, heard), daemon=True).start()
    with os.fdopen(int(number), "wb") as out:
        link = Link(out, heard)
        try:
            with relayed(link.tell):
                result = find(task)(link.hear(REQUEST), link)
            link.send(RESULT, result)
        except ToolkitError as error:
            link.tell(ERROR, type=type(error).__name__, message=str(error))
            return BAD_INPUT
        except MemoryError:
            link.tell(ERROR, type="ToolkitError", message="there was no memory left for what was asked")
            return BAD_INPUT
        except Exception as error:  # a library's, or a bug of ours: the last line of it is what the other side will say
            if (full := temporary_full(error)) is not None:
                link.tell(ERROR, type=type(full).__name__, message=str(full))
                return BAD_INPUT
            traceback.print_exc()
            if isinstance(error, OSError) and error.errno is not None:  # what the system refuses is no bug: a name that is too long, …
                link.tell(ERROR, type="ToolkitError", message=f"{_named(error)}{error.strerror or error}")
                return BAD_INPUT
            return BUG
    return DONE


def _named(error: OSError) -> str:
    return f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""


def _confine() -> None:
    """Set the limits that hold for this process and all that it starts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = MAX_WRITTEN_BYTES if most == resource.RLIM_INFINITY else min(MAX_WRITTEN_BYTES, most)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, most))
    if sys.platform == "linux":  # certain, whatever holds the interpreter; elsewhere _listen alone sees to it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen(requests: IO[bytes], heard: "SimpleQueue[tuple[str, Message]]") -> None:
    """Hand on what comes. At the end of the stream whoever started us is gone: end with all that we started."""
    with contextlib.suppress(wire.WireError, OSError):
        while (frame := wire.read(requests)) is not None:
            heard.put(frame)
    os.killpg(os.getpgid(0), signal.SIGKILL)
