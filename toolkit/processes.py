"""A program of ours in a process of its own, watched: its time, its memory, and how it ended, in words. Never an exception of its own."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from toolkit.printable import printable

LOOK_EVERY_S = 0.1
LAST_LINES = 3
EXIT_S = 10.0  # that a program may take to end once it has closed its output


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM of a scheduler or a launcher, or a terminal's SIGHUP, ends what is inside like Ctrl-C: no program of ours goes on without us.

    Once: launcher and scheduler both send it, and a second one would end what is being put in order. What is ignored stays so (nohup).
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        yield
        return

    def stop(*_: Any) -> None:
        handle(signal.SIG_IGN)
        after.clear()  # the process is about to end
        raise KeyboardInterrupt

    def handle(handler: Any) -> None:
        for number in after:
            signal.signal(number, handler)

    after = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    after = {number: handler for number, handler in after.items() if handler is not signal.SIG_IGN}
    handle(stop)
    try:
        yield
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)


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
            return f"its process was killed by {signal_name(-self.code)}{words}"
        return self.last or f"its process ended with exit code {self.code} and no message"


def signal_name(number: int) -> str:
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")  # real-time signals have no name


def watched(
    module: str, arguments: Sequence[str], *, seconds: float, memory_bytes: int | None = None, stop: threading.Event | None = None,
    on_line: Callable[[bytes], None],
) -> Ended:  # fmt: skip
    """Runs `python -m module arguments…`. `on_line` gets each line of its standard output, in a thread of ours.

    `memory_bytes`: resident, children included. `stop`: when it is set, the program is ended. It is ended on any exception as well.
    """
    with tempfile.TemporaryFile() as words:
        process = _started(module, arguments, words)
        reader = threading.Thread(target=_read, args=(process.stdout, on_line), daemon=True)
        reader.start()
        try:
            stopped = _watch(process, seconds, memory_bytes, stop)
        finally:
            _end(process)
            reader.join()
        return Ended(stopped, process.returncode, _last(words))


class Silent(Exception):
    """A program that was to answer has ended, or took too long; in words."""


class Speaking:
    """A program of ours that is told a line and answers with one. Whatever else it prints is passed over."""

    def __init__(self, process: "subprocess.Popen[bytes]", words: IO[bytes]) -> None:
        self._process, self._words, self._printed = process, words, b""
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        _read(self._process.stdout, self._lines.put)
        self._lines.put(None)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended: hear() will say how
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, word: str, seconds: float) -> str:
        """What follows `word` on the first line that begins with it. Raises Silent."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Silent(self.end(f"did not answer within {seconds:g} s and was stopped").reason) from None
            if line is None:
                printed = printable(self._printed.decode("utf-8", "backslashreplace").strip()[-80:])
                ended = self.end(seconds=EXIT_S)
                raise Silent(ended.reason or f"ended without an answer after it printed {printed!r}; last words: {ended.last or 'none'}")
            if line.startswith(word.encode()):
                return line.decode("utf-8", "backslashreplace")[len(word) :].strip()
            self._printed = line if line.strip() else self._printed

    def end(self, stopped: str | None = None, seconds: float = 0.0) -> Ended:
        """How it ended. It may do so by itself for so many seconds, where nothing has stopped it."""
        if stopped is None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                stopped = "did not end when it was done, and was stopped"
        _end(self._process)
        self._reader.join()
        return Ended(stopped, self._process.returncode, _last(self._words))


@contextlib.contextmanager
def speaking(module: str, arguments: Sequence[str]) -> Iterator[Speaking]:
    """Runs `python -m module arguments…` for as long as the block lasts."""
    with tempfile.TemporaryFile() as words:
        process = _started(module, arguments, words, stdin=subprocess.PIPE)
        try:
            yield Speaking(process, words)
        finally:
            _end(process)
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()


def _started(module: str, arguments: Sequence[str], words: IO[bytes], stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    # -P and this sys.path: it imports what we import, and no random.py that lies in the user's folder.
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=words, env=environment, start_new_session=True)


def _last(words: IO[bytes]) -> str:
    words.seek(0)
    return printable("; ".join(words.read().decode("utf-8", "backslashreplace").strip().splitlines()[-LAST_LINES:]))


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
