"""What must hold after each command. A breach is a finding."""

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.hostile import house
from benchmarks.hostile.launch import Ended
from benchmarks.hostile.scene import Scene

CODES = (0, 1, 2, 130, 141)  # done, a check failed, bad input, interrupted, broken pipe
VERDICT = re.compile(r"FAILED|failed|wrong|not reached|slower|differs|breach|fail\b|\"passed\": ?false|missed|lacks|\"agrees\": ?false")
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^Exception ignored|Fatal Python error|a bug of (the toolkit|ours)", re.M)
UNLOADABLE = re.compile(  # by a call that was made to fail: no program can go on without its libraries and its own modules
    r"failed to map segment from shared object|<frozen importlib\._bootstrap_external>\", line \d+, in get_data\nOSError"
)
CACHES = ("torchinductor_",)  # PyTorch's own, meant to stay: it is shared by all programs of the user
HIDDEN = re.compile(r"(^|/)\.[^/]+$|\.old$")


@dataclass(frozen=True)
class Breach:
    """`kind`: which rule. `detail`: what was seen, one line."""

    kind: str
    detail: str


@dataclass
class Before:
    """What was there before the command."""

    canary: dict[str, str]
    kept: dict[str, str]
    strange: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, scene: Scene) -> "Before":
        return cls(house.digest(scene.house, [scene.model, *scene.own]), house.inventory(scene.model))


def judge(scene: Scene, before: Before, ended: Ended, killed: bool = False, tidy: bool = True) -> list[Breach]:
    """All breaches of one command.

    `killed`: we have killed it or failed its system calls, so that it may end with any code. `tidy`: nothing hidden may be left.
    """
    found = _processes(ended)
    if not (killed and UNLOADABLE.search(ended.said)):
        found += [*_exit(ended, killed, heard=scene.stdout == "file" and not scene.limits), *_words(ended)]
    found += [Breach("outside", line) for line in changes(before.canary, house.digest(scene.house, [scene.model, *scene.own]))]
    found += [Breach("lost", name) for name in lost(before.kept, house.inventory(scene.model))]
    if tidy and ended.stopped is None:
        found += [Breach("temporary", name) for name in _names(scene.house / "tmp")]
        found += [Breach("leftover", name) for name in leftovers(before.kept, house.inventory(scene.model))]
    return found


def _exit(ended: Ended, killed: bool, heard: bool) -> list[Breach]:
    """`heard`: what it says can be written down."""
    if ended.stopped:
        return [Breach(ended.stopped, f"{ended.seconds:.0f} s, {ended.peak_bytes / 2**30:.1f} GiB")]
    if killed and ended.code in (-signal.SIGKILL, *CODES):
        return []
    if ended.code not in CODES:
        return [Breach("exit code", _code(ended.code))]
    if ended.code == 1 and heard and not VERDICT.search(ended.said):
        return [Breach("exit 1 without a verdict", last_line(ended.said))]
    if ended.code == 2 and not ended.stderr.strip() and heard:
        return [Breach("exit 2 without a word", last_line(ended.said))]
    return []


def _code(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _words(ended: Ended) -> list[Breach]:
    found = []
    if TRACEBACK.search(ended.said):
        found.append(Breach("traceback", last_frame(ended.said)))
    if re.search(r"[\x00\x07\x08\x1b\x7f\x9b\u202a-\u202e\u2066-\u2069]", ended.said):
        found.append(
            Breach("escape", ascii(re.search(r".{0,60}[\x00\x07\x08\x1b\x7f\x9b\u202a-\u202e\u2066-\u2069].{0,30}", ended.said)[0]))
        )  # type: ignore[index]
    return found


def _processes(ended: Ended) -> list[Breach]:
    return [Breach("process left", words) for words in ended.left]


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """In words, what is other than it was, at most a few."""
    found = [f"gone: {name}" for name in before.keys() - after.keys()] + [f"new: {name}" for name in after.keys() - before.keys()]
    found += [
        f"changed: {name}: {before[name][:60]} → {after[name][:60]}" for name in before.keys() & after.keys() if before[name] != after[name]
    ]
    return sorted(found)[:8]


def lost(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What the toolkit or the user had in the model's folder, and is not there any more; what is not finished does not count."""
    return [name for name in sorted(before.keys() - after.keys()) if not name.endswith((".new", "resume.pt"))]


def leftovers(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What a command that has ended left behind under a hidden name."""
    return [name for name in sorted(after.keys() - before.keys()) if HIDDEN.search(name)]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith(CACHES))[:3]
    except OSError:
        return []


def last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "nothing was said")


def last_frame(text: str) -> str:
    """The last line of the last traceback, and the last place in our own code."""
    frames = re.findall(r'File "[^"]*?/(toolkit/[^"]+)", line (\d+), in (\S+)', text)
    errors = re.findall(r"^(?:\w[\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Failure|Refused)\b.*)$", text, re.M)
    ignored = re.search(r"^Exception ignored.*$", text, re.M)
    place = f" at {frames[-1][0]}:{frames[-1][2]}" if frames else ""
    return (errors[-1] if errors else ignored[0] if ignored else last_line(text))[:200] + place


def signature(breach: Breach) -> str:
    """The same for the same fault: without numbers, names of files and random parts."""
    text = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{12,}\b", "#", breach.detail)
    if breach.kind in ("time", "memory"):
        return breach.kind
    text = re.sub(r"'[^']{20,}'|(?<!\w)/[\w./\-]+", "…", text)
    text = re.sub(r"\.[\w-]+\.[\w]{8}(\.old)?\b", r".<random>\1", text)
    text = re.sub(r"tmp[\w]{8}\b", "tmp<random>", text)
    return f"{breach.kind}: {re.sub(r'[0-9]+', '#', text)[:150]}"
