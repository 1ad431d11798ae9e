"""How fast, and all of it on one page: bench, report."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit import errors
from toolkit.cli.options import Artifacts, DataDir, Json, Runtimes
from toolkit.workspace import DEFAULT_MODEL, Workspace

if TYPE_CHECKING:
    from toolkit.bench import BenchResult


def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder under models/, a path, or a model file.")] = DEFAULT_MODEL,
    runtime: Runtimes = None,
    artifact: Artifacts = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: for a look, not for a claim.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Many rounds: for a figure that is published.")] = False,
    scenario: Annotated[str, typer.Option(help="stream, offline, paced, cold or sustained.")] = "stream",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images a call; may be repeated. [default: 1, offline 64]")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="CPU threads; may be repeated. [default: the runtime's own]")] = None,
    hz: Annotated[float | None, typer.Option(help="Calls a second of --scenario paced.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of --scenario sustained.")] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with this earlier bench.json.")] = None,
    fail_if_slower: Annotated[
        bool,
        typer.Option(
            "--fail-if-slower",
            help="Exit with 1 when an arm is proven slower, with 2 without a verdict. An inconclusive one passes; the report says so.",
        ),
    ] = False,
    loadgen: Annotated[bool, typer.Option("--loadgen", help="Let MLPerf LoadGen measure as well, as an outside check.")] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x224x224", help="Of an input that a file leaves open; NAME=1x16:int64 with its type."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a model file: where the samples go.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a PyTorch file (.pt, .pt2) unchecked: it runs code from the file with your rights.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides the order of the rounds.")] = 0,
    json: Json = False,
) -> None:
    """Measure latency, a process for each round; of a model, or of a model file from elsewhere.

    Exits with 1 when a runtime failed, which stays in the table with its last words, or when outputs were wrong.
    """
    from toolkit import bench as room
    from toolkit.report import terminal
    from toolkit.report.live import live
    from toolkit.runtimes.files import is_model_file

    if quick and publish:
        raise errors.ToolkitError("--quick and --publish exclude each other; give one of them")
    options = room.Options(  # which refuses a scenario that there is not; mypy wants a literal
        preset="quick" if quick else "publish" if publish else "default", scenario=scenario, batch=tuple(batch or ()),  # type: ignore[arg-type]
        threads=tuple(threads or (None,)), hz=hz, seconds=seconds, seed=seed, loadgen=loadgen, gate=fail_if_slower,
        trust=trust,
    )  # fmt: skip
    with live() as show:
        if is_model_file(Path(model)):
            if artifact:
                raise errors.ToolkitError(f"--artifact is for models; {model} is a model file")
            result = room.bench_file(
                Path(model), runtimes=runtime, options=options, against=against, shapes=_shapes(shape or []), out=out, show=show
            )
        elif shape or out:
            raise errors.ToolkitError(f"--shape and --out are for model files; {model} is none")
        elif trust:
            raise errors.ToolkitError(f"--trust is for model files; {model} is none, and nothing in it runs code")
        else:
            result = room.bench(Workspace.of(model), runtimes=runtime, artifacts=artifact, options=options, against=against, show=show)
    terminal.show(result, json)
    raise typer.Exit(_exit_code(result, fail_if_slower))


def _exit_code(result: "BenchResult", fail_if_slower: bool) -> int:
    """Raises ToolkitError where --fail-if-slower has no verdict to go by."""
    from toolkit.bench import undecided

    if result.interrupted:
        return errors.INTERRUPTED
    failed = result.wrong or any(arm.error for arm in result.arms) or any(each.error for each in result.loadgen)
    if failed or (fail_if_slower and result.slower):
        return errors.CHECK_FAILED
    if fail_if_slower and (unknown := undecided(result)):
        reasons = "; ".join(f"{arm}: {why}" for arm, why in unknown)
        raise errors.ToolkitError(f"--fail-if-slower: there is no verdict on {reasons}. Mend that and measure again")
    return errors.DONE


SHAPE_TYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


SIZE = re.compile(r"[1-9][0-9]{0,8}")


def _shapes(words: list[str]) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """`NAME=1x3x224x224`, `NAME=1x16:int64` → name, shape and type."""
    found = {}
    for word in words:
        name, _, text = word.rpartition("=")
        text, _, dtype = text.partition(":")
        sizes = text.split("x")
        if not name or not all(SIZE.fullmatch(size) for size in sizes):
            raise errors.ToolkitError(f"--shape {word:.80}: give it as NAME=1x3x224x224, each size from 1 to 999,999,999")
        if dtype not in ("", *SHAPE_TYPES):
            raise errors.ToolkitError(f"--shape {word}: there is no type {dtype!r}; there are {', '.join(SHAPE_TYPES)}")
        found[name] = tuple(map(int, sizes)), dtype or None
    return found


def report(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder under models/, a path, or a bench.json.")] = DEFAULT_MODEL,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write one HTML page, and Markdown of the same; of a bench.json, show its tables again.

    From what was trained, validated and measured so far; what was not is said to be missing.
    """
    from toolkit import report as room
    from toolkit.report import terminal

    if model.endswith(".json"):
        from toolkit.bench import read

        terminal.show(read(Path(model)), json)
    else:
        terminal.show(room.report(Workspace.of(model), data_dir=data_dir), json)
