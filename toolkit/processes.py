"""A program of ours in a process of its own, watched: its time, its memory, and how it ended, in words. Never an exception of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

LOOK_EVERY_S = 0.1
LAST_LINES = 3


@dataclass(frozen=True)
class Ended:
    """`stopped`: why we ended it; None where it ended by itself. `last`: its last words on standard error."""

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
            name = next((each.name for each in signal.Signals if each == -self.code), f"signal {-self.code}")
            return f"its process was killed by {name}{words}"
        return self.last or f"its process ended with exit code {self.code} and no message"


def watched(
    module: str, arguments: Sequence[str], *, seconds: float, memory_bytes: int | None = None, stop: threading.Event | None = None,
    on_line: Callable[[bytes], None],
) -> Ended:  # fmt: skip
    """Runs `python -m module arguments…`. `on_line` gets each line of its standard output, in a thread of ours.

    `memory_bytes`: resident, children included. `stop`: when it is set, the program is ended. It is ended on any exception as well.
    """
    # -P and this sys.path: it imports what we import, and no random.py that lies in the user's folder.
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=environment, start_new_session=True)
        reader = threading.Thread(target=_read, args=(process.stdout, on_line), daemon=True)
        reader.start()
        try:
            stopped = _watch(process, seconds, memory_bytes, stop)
        finally:
            _end(process)
            reader.join()
        words.seek(0)
        last = "; ".join(words.read().decode("utf-8", "backslashreplace").strip().splitlines()[-LAST_LINES:])
    return Ended(stopped, process.returncode, printable(last))


def printable(text: str) -> str:
    """Without the escapes that would colour or move about on the reader's terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _read(lines: IO[bytes] | None, on_line: Callable[[bytes], None]) -> None:
    assert lines is not None
    with lines:
        for line in lines:
            on_line(line)


def _watch(process: "subprocess.Popen[bytes]", seconds: float, memory_bytes: int | None, stop: threading.Event | None) -> str | None:
    """None when it ended by itself, else why it was stopped. Without a limit of memory nothing of ours runs meanwhile."""
    late = f"did not end within {seconds:g} s and was stopped"
    if memory_bytes is None and stop is None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return late
        return None
    deadline, stop = time.monotonic() + seconds, stop or threading.Event()
    while process.poll() is None:
        if stop.wait(LOOK_EVERY_S):
            return "was stopped with the others"
        if time.monotonic() > deadline:
            return late
        if memory_bytes is not None and (used := _resident(process.pid)) > memory_bytes:
            return f"used {used / 2**30:.1f} GiB of memory, allowed {memory_bytes / 2**30:.1f}, and was stopped"
    return None


def _resident(pid: int) -> int:
    """Bytes, children included; 0 when it has just ended."""
    import psutil

    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])
    return 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The whole group: a runtime may have started helpers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
