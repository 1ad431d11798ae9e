"""Where a measurement is kept, read again, and never replaced by a lesser one."""

import tempfile
from pathlib import Path

from pydantic import ValidationError

from toolkit.bench.judge import judged
from toolkit.bench.plan import PRESETS, Options
from toolkit.bench.result import BenchResult
from toolkit.errors import ToolkitError

REPORT = "bench.json"
MAX_REPORT_BYTES = 1 << 30


def read(path: Path) -> BenchResult:
    """A stored measurement, its figures made again from its rounds. Raises ToolkitError."""
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise ToolkitError(f"{path} has {path.stat().st_size} bytes, more than any measurement of ours")
        return judged(BenchResult.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read: {error.strerror}. Give a bench.json that `toolkit bench` wrote") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ToolkitError(f"{path} is no measurement of ours: {where}: {first['msg']}. Measure again: toolkit bench") from error


def place_for(folder: Path, name: str, options: Options, sha256: str | None) -> Path:
    """Of each scenario a file of its own; and of a lesser preset, where there is more of the same model (`sha256`) already."""
    stem = name.removesuffix(".json") + ("" if options.scenario == "stream" else f"-{options.scenario}")
    path, order = folder / f"{stem}.json", list(PRESETS)
    try:
        there = read(path)
    except ToolkitError:
        return path  # nothing is there, or nothing that anybody can read
    lesser = order.index(options.preset) < order.index(there.preset)
    return folder / f"{stem}-{options.preset}.json" if lesser and sha256 in (there.checkpoint_sha256, there.file_sha256) else path


def writable(path: Path) -> None:
    """Raises ToolkitError where nothing can be written: before anything is measured."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise ToolkitError(f"cannot write to {path}: {error.strerror}. Name another place with --out, or make room in this one") from error


def worth_keeping(result: BenchResult, path: Path) -> bool:
    """Without a round it replaces nothing, and of an interrupted one nothing is left at all."""
    return any(arm.rounds for arm in result.arms) or not (result.interrupted or path.exists())
