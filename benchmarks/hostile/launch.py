"""Run one command of a scene: its time, the memory of all its processes, how it ended, and what it left running.

The caller has no threads and is the subreaper (prctl) of all its descendants: a process whose parent has died becomes its child,
so that nothing gets away from it. In a fork the imports are done already; otherwise it is `python -m toolkit …`.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.scene import Scene

PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER, PR_CAPBSET_DROP, CAPSET_VERSION = 38, 36, 24, 0x20080522
LOOK_EVERY_S = 0.04
GRACE_S = 1.0  # after which nothing of a command may be left
SET_BY_IMPORTS: dict[str, str] = {}  # of the environment; a fork, which imports nothing any more, is given them (see worker.prepare)
libc = ctypes.CDLL(None, use_errno=True)


class Become(BaseException):
    """Raised in the fork: unwinds to the top, which then is `python -m toolkit`, up to the end of the interpreter."""


@dataclass(frozen=True)
class Ended:
    """`code`: of the exit, negative for a signal. `stopped`: time or memory, where we ended it. `left`: processes a second later."""

    code: int
    seconds: float
    peak_bytes: int
    stopped: str | None
    left: list[str]
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


def subreaper() -> None:
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(
    scene: Scene, words: list[str], *, seconds: float, memory_bytes: int, real: bool = False, before: Callable[[int], object] | None = None
) -> Ended:  # fmt: skip
    """Runs `toolkit words…` in the scene. `before` is called with its process id, once it is there and before it does anything."""
    said = [scene.house.with_name(f"{scene.house.name}.{name}") for name in ("stdout", "stderr")]
    gate, opener = os.pipe()
    begun, begins = os.pipe()  # closed once it is the command: until then it has our memory
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        _settle_in(scene, said, gate, begins)
        if real:
            os.execv(sys.executable, [sys.executable, "-P", "-m", "toolkit", *words])
        os.environ.update({name: value for name, value in SET_BY_IMPORTS.items() if name not in scene.env})
        sys.argv = ["toolkit", *words]
        with contextlib.suppress(OSError):  # a call that was made to fail may be this one
            os.close(begins)
        raise Become
    os.close(gate)
    os.close(begins)
    if before is not None:
        before(pid)
    os.close(opener)  # which lets it go
    os.read(begun, 1)
    os.close(begun)
    code, peak, stopped = _watch(pid, began + seconds, memory_bytes)
    spent = time.monotonic() - began
    left = _left()
    return Ended(code, spent, peak, stopped, left, *(_text(path) for path in said))


def _settle_in(scene: Scene, said: list[Path], gate: int, keep: int) -> None:
    """The surroundings of the scene: environment, folder, streams, limits, no privileges, a session of its own."""
    os.setsid()
    os.chdir(scene.house)
    out = {"full": "/dev/full", "file": said[0], "closed": said[0], "pipe": said[0]}[scene.stdout]
    streams = [os.open("/dev/null", os.O_RDONLY)] + [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (out, said[1])]
    if scene.stdout == "pipe":
        reader, streams[1] = os.pipe()
        os.close(reader)
    os.read(gate, 1)  # until it is closed
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)
    if scene.stdout == "closed":
        os.close(1)
        sys.stdout = None  # as the interpreter has it
    for name, value in {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 4 << 30, **scene.limits}.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    unprivileged()
    os.environ.clear()
    os.environ.update(scene.env)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def unprivileged() -> None:
    """Root without its privileges, so that modes and marks of files mean something; programs that it starts get none back."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset((ctypes.c_uint32 * 2)(CAPSET_VERSION, 0), (ctypes.c_uint32 * 6)())


def _watch(pid: int, deadline: float, memory_bytes: int) -> tuple[int, int, str | None]:
    """(exit code, most memory of all its processes together, why it was stopped)."""
    peak, stopped = 0, None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), peak, stopped
        peak = max(peak, sum(anonymous(each) for each in descendants()))
        stopped = stopped or ("memory" if peak > memory_bytes else "time" if time.monotonic() > deadline else None)
        if stopped:
            kill([pid, *descendants()])
        time.sleep(LOOK_EVERY_S)


def descendants() -> list[int]:
    """All processes that came from this one, those that have ended apart, and strace."""
    found, todo = [], [os.getpid()]
    while todo:
        for path in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            todo += (children := [int(word) for word in _read(path).split()])
            found += [pid for pid in children if not _passed_over(pid)]
    return found


def _passed_over(pid: int) -> bool:
    name, _, rest = _read(Path(f"/proc/{pid}/stat")).rpartition(")")
    return rest.split()[:1] in ([], ["Z"], ["X"]) or name.endswith("(strace")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # it has just ended


def anonymous(pid: int) -> int:
    """Bytes that are this process's own: not those of files, which many processes share."""
    text = _read(Path(f"/proc/{pid}/status"))
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(("RssAnon", "RssShmem")))


def _left() -> list[str]:
    """What is still running when the command has ended, and has had its grace; ends it."""
    deadline = time.monotonic() + GRACE_S
    while (alive := descendants()) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    words = [_command_line(pid) for pid in alive]
    kill(alive)
    _reap()
    return words


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _reap() -> None:
    """Every child of ours that has ended, the orphans of a command among them."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if not descendants():
                return
            time.sleep(LOOK_EVERY_S)


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return f"process {pid}"
    return f"{state} {b' '.join(words).decode('utf-8', 'replace')[:200]}"


MOST_SAID = 1 << 22


def _text(path: Path) -> str:
    """What was said; of a flood, its two ends."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        head = file.read(MOST_SAID)
        file.seek(max(len(head), path.stat().st_size - MOST_SAID))
        return (head + file.read()).decode("utf-8", "replace")
