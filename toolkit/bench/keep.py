"""Where a measurement is kept, read again, and never replaced by a lesser one."""

import itertools
from collections.abc import Callable
from pathlib import Path

from toolkit.bench.judge import judged
from toolkit.bench.plan import PRESETS, Options
from toolkit.bench.result import BenchResult
from toolkit.errors import ToolkitError
from toolkit.limits import MAX_BENCH_BYTES, memory_bytes
from toolkit.progress import say
from toolkit.records import read_record

REPORT = "bench.json"
MARK = b'"checkpoint_sha256":'  # a field near the beginning of every measurement
MEMORY_OF_A_BYTE = 40  # that reading takes: "1," becomes a number of Python's, and a place in a list


def read(path: Path) -> BenchResult:
    """A stored measurement, its figures made again from its rounds. Raises ToolkitError."""
    most = min(MAX_BENCH_BYTES, memory_bytes() // MEMORY_OF_A_BYTE)
    return judged(read_record(path, BenchResult, most, advice="Give a bench.json that `toolkit bench` wrote"))


def place_for(folder: Path, name: str, options: Options, sha256: str | None, against: Path | None = None) -> Path:
    """Of each scenario a file of its own; beside it where something there is to stay, and then it is said.

    What stays: more of the same model (`sha256`), what is compared with (`against`), and what cannot be read, such as a file of a
    newer toolkit.
    """
    stem, order = name.removesuffix(".json") + ("" if options.scenario == "stream" else f"-{options.scenario}"), list(PRESETS)

    def better(there: BenchResult) -> str | None:
        lesser = order.index(options.preset) < order.index(there.preset) and sha256 in (there.checkpoint_sha256, there.file_sha256)
        return f"it was measured with more rounds ({there.preset})" if lesser else None

    return _beside(folder / f"{stem}.json", options.preset, lambda path: _stays(path, against, better))


def named(path: Path, options: Options, against: Path | None) -> Path:
    """The place that somebody named, where an earlier measurement may be; only what is compared with stays."""
    return _beside(path, options.preset, lambda each: COMPARED if _same(each, against) else None)


def place_of(result: BenchResult, path: Path, against: Path | None) -> Path:
    """`path`; of an interrupted measurement a place beside it, where a complete one is there."""
    if not result.interrupted:
        return path
    return _beside(
        path, "interrupted", lambda each: _stays(each, against, lambda there: None if there.interrupted else "it is complete, this is not")
    )


COMPARED = "it is what is compared with"


def _stays(path: Path, against: Path | None, why: Callable[[BenchResult], str | None]) -> str | None:
    """None where it may be replaced, else the reason why it may not."""
    try:
        path.stat()
    except OSError:  # nothing is there, or the folder cannot be entered, and `check_files` says so
        return None
    if _same(path, against):
        return COMPARED
    try:
        return why(read(path))
    except ToolkitError as error:
        return f"it cannot be read ({error})"


def _same(path: Path, against: Path | None) -> bool:
    try:
        return against is not None and path.samefile(against)
    except OSError:  # one of them is not there
        return False


def _beside(path: Path, word: str, stays: Callable[[Path], str | None]) -> Path:
    """`path`, or the first beside it that may be written."""
    if (why := stays(path)) is None:
        return path
    names = (f"{path.stem}-{word}{'' if number == 1 else f'-{number}'}{path.suffix}" for number in itertools.count(1))
    other = next(each for each in map(path.with_name, names) if stays(each) is None)
    say(f"{path} stays as it is: {why}. This measurement goes to {other}")
    return other


def worth_keeping(result: BenchResult, path: Path) -> bool:
    """Without a round it replaces nothing, and of an interrupted one nothing is left at all."""
    return any(arm.rounds for arm in result.arms) or not (result.interrupted or path.exists())
