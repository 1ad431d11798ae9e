"""Kill a command at each system call that changes files, or let that call fail, by `strace -e inject`; then see what is left.

An undisturbed run tells which calls there are. Afterwards: no process is left, the next command finds the old or the new artifact
and never fewer than before, the same command succeeds when it is tried again, and leaves nothing hidden behind.
"""

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.house import inventory
from benchmarks.hostile.judge import Before, Breach, judge, leftovers
from benchmarks.hostile.launch import Ended, run
from benchmarks.hostile.scene import Scene

CALLS = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,openat,write,pwrite64,chmod,fchmodat,ftruncate"
ERRORS = (  # "+": from there on; else that one call alone
    "write:ENOSPC+", "openat:EMFILE+", "openat:EACCES+", "mkdir:ENOSPC+", "mmap:ENOMEM", "rename:EIO", "fsync:EIO", "unlink:EIO",
    "unlinkat:EACCES+", "rmdir:EBUSY", "close:EIO", "read:EIO", "fstat:EIO", "clone3:EAGAIN+", "ftruncate:EFBIG", "pwrite64:ENOSPC+",
)  # fmt: skip
SUBJECTS = {  # command to kill → the command that must work next
    "export-onnx": "predict {model} {picture} --runtime onnxruntime-cpu --artifact onnx-fp32",
    "export-coreml": "predict {model} {picture} --runtime coreml-reference --artifact coreml-fp16",
    "export-coreai": "predict {model} {picture} --runtime coreai --artifact coreai-fp32",
    "train-restart": "inspect {model}/checkpoint",  # not predict: the exports are of the checkpoint before
    "train-resume": "inspect {model}/checkpoint",
    "validate-onnx": "inspect {model}",
    "report": "inspect {model}",
    "bench-onnx": "inspect {model}",
}
NOTHING_TO_DO = "nothing to resume"
ATTACH_S = 10.0


@dataclass(frozen=True)
class Point:
    """The `when`-th call of that name, of one process or thread of the command. `error`: what it returns instead of SIGKILL."""

    call: str
    when: int
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.call}:{self.error or 'KILL'}:{self.when}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        call, error, when = text.split(":")
        return cls(call, int(when), None if error == "KILL" else error)

    @property
    def inject(self) -> str:
        """As strace takes it."""
        if self.error is None:
            return f"{self.call}:signal=KILL:when={self.when}"
        return f"{self.call}:error={self.error.rstrip('+')}:when={self.when}{'+' * self.error.endswith('+')}"


def why_not() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()[:100]}"


class Tracer:
    """strace, attached to a command before it begins (see launch.run)."""

    def __init__(self, log: Path, *options: str) -> None:
        self.log, self.options = log, options

    def __call__(self, pid: int) -> None:
        self.process = subprocess.Popen(
            ["strace", "-f", "-q", "-p", str(pid), "-o", str(self.log), *self.options], stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + ATTACH_S
        while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.005)

    def end(self) -> None:
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def points(log: Path, own: Path) -> list[Point]:
    """Where to kill: the calls of a traced run that change files, each by its number among the calls of its name and thread."""
    counted: Counter[tuple[str, str]] = Counter()
    found: dict[Point, None] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None:
            continue
        thread, call, rest = match.groups()
        counted[thread, call] += 1
        changes = call not in ("openat", "write", "pwrite64") or "O_CREAT" in rest or (call != "openat" and str(own) in rest)
        if changes and (str(own) in rest or call in ("fsync", "fdatasync", "rmdir", "unlinkat")):
            found[Point(call, counted[thread, call])] = None
    return list(found)


def plan(scene: Scene, words: list[str], seconds: float, memory_bytes: int) -> list[Point]:
    """The points of an undisturbed run, which changes the scene's folder."""
    log = scene.house.with_name(f"{scene.house.name}.strace")
    tracer = Tracer(log, "-y", "-s", "0", "-e", f"trace={CALLS}")
    run(scene, words, seconds=seconds, memory_bytes=memory_bytes, before=tracer)
    tracer.end()
    return points(log, scene.model)


def disturbed(scene: Scene, words: list[str], point: Point, seconds: float, memory_bytes: int, real: bool) -> Ended:
    log = scene.house.with_name(f"{scene.house.name}.strace")
    names = f"trace={point.call}"
    tracer = Tracer(log, "-y", "-s", "0", "-e", names, "-e", f"inject={point.inject}")
    ended = run(scene, words, seconds=seconds, memory_bytes=memory_bytes, before=tracer, real=real)
    tracer.end()
    return ended


def aftermath(
    scene: Scene, before: Before, words: list[str], next_words: list[str], command: Callable[[list[str]], Ended]
) -> tuple[list[Breach], list[Ended]]:  # fmt: skip
    """The next command, and then the same one once more."""
    shutil.rmtree(scene.house / "tmp", ignore_errors=True)
    (scene.house / "tmp").mkdir()  # what a killed process had there, nobody can tell from what is in use
    looked = command(next_words)
    found = judge(scene, before, looked, tidy=False)
    if looked.code != 0:
        found.append(Breach("after the kill", f"{next_words[0]} ended with {looked.code}: {last(looked)}"))
    again = command(words)
    found += judge(scene, before, again, tidy=False)
    if again.code != 0:
        found.append(Breach("tried again", f"{words[0]} ended with {again.code}: {last(again)}"))
    if NOTHING_TO_DO not in again.said:  # then nothing is removed either
        found += [Breach("leftover of a kill", name) for name in leftovers(before.kept, inventory(scene.model))]
    return found, [looked, again]


def last(ended: Ended) -> str:
    return next((line.strip()[:160] for line in reversed(ended.stderr.splitlines()) if line.strip()), "nothing was said")
