"""The command line: a command parses, makes one call, shows the result and gives the exit code (see errors.py).

Results go to standard output, progress to standard error. Heavy imports happen inside the command that needs them.
"""

import io
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit import __version__, errors
from toolkit.workspace import DEFAULT_MODEL, Workspace

app = typer.Typer(
    help="Train a classifier, convert it for Apple devices, prove that the file is the model, time it honestly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich for it would double the start-up time
    pretty_exceptions_enable=False,  # a bug of ours keeps its plain traceback
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A folder under models/, or a path.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets are kept. [default: TOOLKIT_DATA, else the user's cache folder]")]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="Only this runtime; may be repeated. See: toolkit doctor.")]


@app.command()
def train(
    model: Model = DEFAULT_MODEL,
    device: Annotated[str, typer.Option(help="auto (mps, else cuda, else cpu), or one of them.")] = "auto",
    epochs: Annotated[float | None, typer.Option(help="Short for --set train.epochs=N; 0.1 is a tenth of one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set train.seed=N.")] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Train N runs, from the seed upwards: their mean and spread.")] = None,
    until_accuracy: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Stop once that many of the held-out training images are right.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the recipe.")] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run.")] = False,
    save_minutes: Annotated[float, typer.Option(min=0, help="A checkpoint this often, and after every epoch.")] = 10,
    nproc: Annotated[int, typer.Option(min=1, help="Processes of this machine that share every batch; torchrun works as well.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Curves for TensorBoard too, in tensorboard/ of the model.")] = False,
    json: Json = False,
) -> None:
    """Train a model and measure its accuracy from the saved file."""
    from toolkit import training
    from toolkit.recipe import Recipe
    from toolkit.report import terminal

    if until_accuracy is not None and not 1 < until_accuracy <= 100:
        raise errors.RecipeError(f"--until-accuracy takes per cent, above 1 and up to 100: for example 98.21, not {until_accuracy:g}")
    short = {"train.epochs": epochs, "train.seed": seed, "train.until_accuracy": until_accuracy and until_accuracy / 100}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]
    workspace = Workspace.of(model)
    recipe = Recipe.read(workspace.recipe, overrides)
    if nproc > 1 and not training.launched():
        flags = [part for override in overrides for part in ("--set", override)]
        flags += ["--seeds", str(seeds)] if seeds else []
        flags += ["--data-dir", str(data_dir)] if data_dir else []
        flags += [flag for flag, given in (("--resume", resume), ("--tensorboard", tensorboard), ("--json", json)) if given]
        training.launch(nproc, ["train", model, "--device", device, "--save-minutes", f"{save_minutes}", *flags])
        return
    options: dict[str, Any] = {
        "device": device,
        "data_dir": data_dir,
        "resume": resume,
        "save_minutes": save_minutes,
        "tensorboard": tensorboard,
    }
    result = training.train_seeds(workspace, recipe, seeds, **options) if seeds else training.train(workspace, recipe, **options)
    if training.leads():
        terminal.show(result, json)
    raise typer.Exit(errors.DONE if result.finished else errors.INTERRUPTED)


@app.command()
def export(
    model: Model = DEFAULT_MODEL,
    format: Annotated[list[str] | None, typer.Option("--format", help="coreml, onnx or coreai; may be repeated.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp16 or fp32. [default: the format's own]")] = None,
    input: Annotated[str, typer.Option("--input", help="Core ML: image (a picture) or tensor (a multi-array).")] = "image",
    target: Annotated[str | None, typer.Option(help="Core ML: oldest system, iOS15 to iOS18. [default: the recipe's]")] = None,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(metavar="OP", help="Core ML fp16: an op that stays in fp32 (may be repeated), or auto: the fewest that are needed."),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Convert the checkpoint, and run what came out.

    Each format gives a self-checking folder under exports/, written only when its outputs are those of PyTorch.
    """
    from toolkit import export as room
    from toolkit.report import terminal

    options = room.Options(precision=precision, input_kind=input, minimum_target=target)
    if keep_fp32 == ["auto"]:
        from toolkit.debug import export_repaired

        if format != ["coreml"] or precision == "fp32":
            raise errors.ExportError("--keep-fp32 auto is for one Core ML file in fp16: give --format coreml alone")
        terminal.show([export_repaired(Workspace.of(model), options, data_dir=data_dir)], json)
        return
    options = replace(options, keep_fp32=tuple(keep_fp32 or ()))
    terminal.show(room.export(Workspace.of(model), format or [], options, data_dir=data_dir), json)


@app.command()
def validate(
    model: Model = DEFAULT_MODEL,
    runtime: Runtimes = None,
    artifact: Annotated[list[str] | None, typer.Option("--artifact", help="Only this one of exports/; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only N test images, evenly over the classes.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 only for this level: files, golden, contract, preprocessing, test set. [default: all]"),
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Plant known faults in copies of the artifacts and count how many of them are caught.")
    ] = False,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="ID", help="With --self-test: only this one; may be repeated.")
    ] = None,
    all_images: Annotated[bool, typer.Option("--all-images", help="Slow runtimes, which see 100 test images, see all of them.")] = False,
    hazards: Annotated[
        bool, typer.Option("--hazards", help="Ranges of every op's values, and what they mean in fp16 and on the Neural Engine.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="The checks as JUnit XML, for CI.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute again what is known already.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the images of one runtime.")] = 1,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds that one runtime may take for one artifact.")] = 3600,
    memory_limit: Annotated[float, typer.Option(min=0.1, help="GiB that one runtime may use.")] = 16,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Is each artifact the model that was trained?

    Checks the file, its golden outputs, its contract, the preprocessing and the whole test set, on every runtime there
    is. Exits with 1 when a check fails.
    """
    from toolkit import validation
    from toolkit.report import terminal
    from toolkit.validation import junit as junit_xml
    from toolkit.validation.result import LEVELS

    if unknown := set(fail_on or []) - set(LEVELS):
        raise errors.ToolkitError(f"--fail-on {sorted(unknown)[0]!r} is no level; there are: {', '.join(LEVELS)}")
    given = {
        "--runtime": runtime, "--artifact": artifact, "--fail-on": fail_on, "--junit": junit, "--no-cache": no_cache,
        "--jobs": jobs > 1, "--self-test": self_test, "--fault": fault, "--all-images": all_images,
    }  # fmt: skip
    if fault and not self_test:
        raise errors.ToolkitError("--fault names what --self-test plants. Give --self-test as well")
    alone = "--hazards" if hazards else "--self-test" if self_test else ""
    fits = {"--hazards": (), "--self-test": ("--self-test", "--artifact", "--fault"), "": tuple(given)}[alone]
    if silent := [name for name, value in given.items() if value and name not in fits]:
        raise errors.ToolkitError(f"{alone} is no validation: {silent[0]} would mean nothing with it. Leave one of them out")
    if not math.isfinite(time_limit * memory_limit):
        raise errors.ToolkitError(f"--time-limit {time_limit:g}, --memory-limit {memory_limit:g}: give finite numbers")
    if hazards:
        from toolkit import debug as room

        found = room.hazards(Workspace.of(model), images=limit or room.IMAGES, data_dir=data_dir)
        terminal.show(found, json)
        raise typer.Exit(errors.DONE if found.passed else errors.CHECK_FAILED)
    if self_test:
        from toolkit import faults

        tested = faults.self_test(Workspace.of(model), artifacts=artifact, faults=fault, limit=limit or faults.IMAGES, data_dir=data_dir)
        terminal.show(tested, json)
        raise typer.Exit(errors.DONE if tested.kill_rate == 1 else errors.CHECK_FAILED)
    result = validation.validate(
        Workspace.of(model), runtimes=runtime, artifacts=artifact, limit=limit, all_images=all_images, data_dir=data_dir,
        cache=not no_cache, limits=validation.Limits(seconds=time_limit, memory_bytes=int(memory_limit * 2**30), jobs=jobs),
    )  # fmt: skip
    terminal.show(result, json)
    if junit is not None:
        junit_xml.write(result, junit)
    raise typer.Exit(errors.CHECK_FAILED if result.fails_on(tuple(fail_on or ())) else errors.DONE)


@app.command()
def debug(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="One of the model's exports, such as coreml-fp16.")],
    model: Annotated[str, typer.Option("--model", help="A folder under models/, or a path.")] = DEFAULT_MODEL,
    images: Annotated[int, typer.Option(min=1, help="How many of the images that are furthest off to follow op by op.")] = 16,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Name the first layer of an artifact that is wrong, say what is wrong with it, and how to mend it.

    Runs PyTorch in float64 and the file op by op, on the golden images and the worst test images of the last validation.
    Exits with 1 when something is wrong.
    """
    from toolkit import debug as room
    from toolkit.report import terminal

    result = room.debug_alone(Workspace.of(model), artifact, images=images, data_dir=data_dir)
    terminal.show(result, json)
    raise typer.Exit(errors.DONE if result.agrees else errors.CHECK_FAILED)


@app.command()
def verify(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of a model that was validated, wherever it was copied to; or a model's name.")
    ],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Check a release folder against its own evidence, offline.

    Data, checkpoint, artifacts and report must be those that were validated, and each file must still compute its golden
    outputs. Exits with 1 when something is not.
    """
    from toolkit import validation
    from toolkit.report import terminal

    place = Path(folder) if Path(folder).is_dir() else Workspace.of(folder).folder
    result = validation.verify(place, data_dir=data_dir)
    terminal.show(result, json)
    raise typer.Exit(errors.DONE if result.passed else errors.CHECK_FAILED)


@app.command()
def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder under models/, a path, or a model file.")] = DEFAULT_MODEL,
    runtime: Runtimes = None,
    artifact: Annotated[list[str] | None, typer.Option("--artifact", help="Only this one of exports/; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: for a look, not for a claim.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Many rounds: for a figure that is published.")] = False,
    scenario: Annotated[str, typer.Option(help="stream, offline, paced, cold or sustained.")] = "stream",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images a call; may be repeated. [default: 1, offline 64]")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="CPU threads; may be repeated. [default: the runtime's own]")] = None,
    hz: Annotated[float | None, typer.Option(help="Calls a second of --scenario paced.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of --scenario sustained.")] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with this earlier bench.json.")] = None,
    fail_if_slower: Annotated[
        bool, typer.Option("--fail-if-slower", help="Exit with 1 when an arm is slower, by its interval; with 2 when nothing was decided.")
    ] = False,
    loadgen: Annotated[bool, typer.Option("--loadgen", help="Let MLPerf LoadGen measure as well, as an outside check.")] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1x3x224x224", help="Of an input that a file leaves open; NAME=1x16:int64 with its type."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a model file: where the samples go.")] = None,
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
    options = room.Options(
        preset="quick" if quick else "publish" if publish else "default", scenario=scenario, batch=tuple(batch or ()),  # type: ignore[arg-type]
        threads=tuple(threads or (None,)), hz=hz, seconds=seconds, seed=seed, loadgen=loadgen, gate=fail_if_slower,
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
        else:
            result = room.bench(Workspace.of(model), runtimes=runtime, artifacts=artifact, options=options, against=against, show=show)
    terminal.show(result, json)
    if result.interrupted:
        raise typer.Exit(errors.INTERRUPTED)
    failed = result.wrong or any(arm.error for arm in result.arms) or any(each.error for each in result.loadgen)
    if failed or (fail_if_slower and result.slower):
        raise typer.Exit(errors.CHECK_FAILED)
    if fail_if_slower and (unknown := room.undecided(result)):
        reasons = "; ".join(f"{arm}: {why}" for arm, why in unknown)
        raise errors.ToolkitError(f"--fail-if-slower: nothing was decided about {reasons}. Mend that and measure again")


SHAPE_TYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


def _shapes(words: list[str]) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """`NAME=1x3x224x224`, `NAME=1x16:int64` → name, shape and type."""
    found = {}
    for word in words:
        name, _, text = word.rpartition("=")
        text, _, dtype = text.partition(":")
        sizes = text.split("x")
        if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise errors.ToolkitError(f"--shape {word}: give it as NAME=1x3x224x224")
        if dtype not in ("", *SHAPE_TYPES):
            raise errors.ToolkitError(f"--shape {word}: there is no type {dtype!r}; there are {', '.join(SHAPE_TYPES)}")
        found[name] = tuple(map(int, sizes)), dtype or None
    return found


@app.command()
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


@app.command()
def predict(
    words: Annotated[list[str], typer.Argument(metavar="[MODEL] IMAGE…", help="A model, if not the default, and image files.")],
    runtime: Annotated[str, typer.Option(help="Any runtime of: toolkit doctor.")] = "torch-cpu",
    artifact: Annotated[str | None, typer.Option(help="Which of exports/. [default: the first that the runtime reads]")] = None,
    invert: Annotated[bool | None, typer.Option("--invert/--no-invert", help="Dark strokes on light. [default: detected]")] = None,
    json: Json = False,
) -> None:
    """Classify image files (PNG, JPEG; any size and mode)."""
    from toolkit import predict as room
    from toolkit.report import terminal

    model, images = room.split_words(words)
    terminal.show(room.predict(Workspace.of(model), images, runtime=runtime, artifact=artifact, invert=invert), json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact, a checkpoint or a model.")], json: Json = False
) -> None:
    """Verify a file and say what is in it."""
    from toolkit import inspection
    from toolkit.report import terminal

    terminal.show(inspection.inspect(path), json)


@app.command()
def doctor(
    mps: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Which operators of this model's steps MPS cannot take; on any machine.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say what this machine can run, and why not the rest.

    Exits with 2 when versions are installed that are known to break, each with the one command that mends it; with --mps, with
    1 when MPS lacks an operator.
    """
    from toolkit import doctor as room
    from toolkit.report import terminal

    if mps is not None:
        from toolkit.recipe import Recipe
        from toolkit.training.readiness import examine_mps

        readiness = examine_mps(Recipe.read(Workspace.of(mps).recipe), data_dir)
        terminal.show(readiness, json)
        raise typer.Exit(errors.CHECK_FAILED if readiness.faults else errors.DONE)
    result = room.examine()
    terminal.show(result, json)
    raise typer.Exit(errors.BAD_INPUT if result.problems else errors.DONE)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Runs the command line; a ToolkitError is one message and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without "–" or "Δ" is no reason to fail
    try:
        return app(arguments)
    except errors.ToolkitError as error:
        print(f"toolkit: {error}", file=sys.stderr)
        sys.exit(errors.BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(errors.INTERRUPTED)
