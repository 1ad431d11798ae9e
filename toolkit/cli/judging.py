"""Is the file the model: validate, debug, verify."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit import errors
from toolkit.cli.options import Artifacts, DataDir, Json, Model, Runtimes
from toolkit.progress import say
from toolkit.workspace import DEFAULT_MODEL, Workspace

if TYPE_CHECKING:
    from toolkit.validation import ValidationResult

# Of `validate`, what is no validation, and the options that mean something with it
ALONE: dict[str, tuple[str, ...]] = {"--hazards": (), "--self-test": ("--self-test", "--artifact", "--fault")}


def validate(
    model: Model = DEFAULT_MODEL,
    runtime: Runtimes = None,
    artifact: Artifacts = None,
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
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the images of one runtime; torchrun works as well.")] = 1,
    time_limit: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds that one runtime may take for one artifact. [default: TOOLKIT_TIME_LIMIT, else 3600]"),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(min=0.1, help="GiB that one runtime may use. [default: TOOLKIT_MEMORY_LIMIT, else half of the machine's]"),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Is each artifact the model that was trained?

    Checks the file, its golden outputs, its contract, the preprocessing and the whole test set, on every runtime there
    is. Exits with 1 when a check fails.
    """
    from toolkit import ranks, validation
    from toolkit.report import terminal
    from toolkit.validation import junit as junit_xml
    from toolkit.validation.result import LEVELS

    default = validation.Limits()
    if unknown := set(fail_on or []) - set(LEVELS):
        raise errors.ToolkitError(f"--fail-on {sorted(unknown)[0]!r} is no level; there are: {', '.join(LEVELS)}")
    limits = validation.Limits(
        seconds=_finite("--time-limit", time_limit, default.seconds), jobs=jobs,
        memory_bytes=int(_finite("--memory-limit", memory_limit, default.memory_bytes / 2**30) * 2**30),
    )  # fmt: skip
    given = {
        "--runtime": runtime, "--artifact": artifact, "--fail-on": fail_on, "--junit": junit, "--no-cache": no_cache,
        "--jobs": jobs > 1, "--self-test": self_test, "--fault": fault, "--all-images": all_images, "--hazards": hazards,
    }  # fmt: skip
    _refuse_what_means_nothing({name for name, value in given.items() if value})
    if (hazards or self_test) and ranks.launched():
        raise errors.ToolkitError(f"torchrun shares no {'--hazards' if hazards else '--self-test'}: run that by itself")
    if hazards:
        raise typer.Exit(_hazards(model, limit, data_dir, json))
    if self_test:
        raise typer.Exit(_self_test(model, artifact, fault, limit, data_dir, json))
    if junit is not None:
        junit_xml.check(junit, Workspace.of(model))
    result = _on_the_first_rank(
        Workspace.of(model), runtimes=runtime, artifacts=artifact, limit=limit, all_images=all_images, data_dir=data_dir,
        cache=not no_cache, limits=limits,
    )  # fmt: skip
    terminal.show(result, json)
    if junit is not None:
        junit_xml.write(result, junit)
    if (digest := validation.digest_of_last(Workspace.of(model), result)) is not None:
        said = f"digest: {digest} (sha256 of reports/{validation.EVIDENCE}: keep it elsewhere, for toolkit verify --digest)"
        (say if json else terminal.lines)(said)
    raise typer.Exit(errors.CHECK_FAILED if result.fails_on(tuple(fail_on or ())) else errors.DONE)


def _finite(flag: str, given: float | None, default: float) -> float:
    value = default if given is None else given
    if not math.isfinite(value):
        raise errors.ToolkitError(f"{flag} {value:g}: give a finite number")
    return value


def _on_the_first_rank(workspace: Workspace, **options: Any) -> "ValidationResult":
    """`validate`, shared among torchrun's processes, where it started this one. Raises typer.Exit in all but the first, which goes on."""
    from toolkit import ranks, validation
    from toolkit.devices import BACKENDS

    try:
        with ranks.joined(BACKENDS["cpu"]) as together:
            result = validation.validate(workspace, **options, ranks=together)
    except validation.Dismissed:  # with another code the launcher would end the first one before it has spoken
        raise typer.Exit(errors.DONE) from None
    if not together.leads:
        raise typer.Exit(errors.DONE)
    return result


def _hazards(model: str, limit: int | None, data_dir: Path | None, json: bool) -> int:
    from toolkit import debug as room
    from toolkit.report import terminal

    found = room.hazards_alone(Workspace.of(model), images=limit or room.IMAGES, data_dir=data_dir)
    terminal.show(found, json)
    return errors.DONE if found.passed else errors.CHECK_FAILED


def _self_test(
    model: str, artifacts: list[str] | None, kinds: list[str] | None, limit: int | None, data_dir: Path | None, json: bool
) -> int:
    from toolkit import faults
    from toolkit.report import terminal

    tested = faults.self_test_alone(Workspace.of(model), artifacts=artifacts, faults=kinds, limit=limit or faults.IMAGES, data_dir=data_dir)
    terminal.show(tested, json)
    return errors.DONE if tested.kill_rate == 1 else errors.CHECK_FAILED


def _refuse_what_means_nothing(given: set[str]) -> None:
    if "--fault" in given and "--self-test" not in given:
        raise errors.ToolkitError("--fault names what --self-test plants. Give --self-test as well")
    alone = next((name for name in ALONE if name in given), None)
    if alone and (silent := sorted(given - {alone, *ALONE[alone]})):
        raise errors.ToolkitError(f"{alone} is no validation: {silent[0]} would mean nothing with it. Leave one of them out")


def debug(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="One of the model's exports, such as coreml-fp16.")],
    model: Annotated[str, typer.Option("--model", help="A folder under models/, or a path.")] = DEFAULT_MODEL,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many of the images that are furthest off to follow op by op. [default: 16]")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Name the first layer of an artifact that is wrong, say what is wrong with it, and how to mend it.

    Runs PyTorch in float64 and the file op by op, on the golden images and the worst test images of the last validation.
    Exits with 1 when something is wrong.
    """
    from toolkit import debug as room
    from toolkit.report import terminal

    result = room.debug_alone(Workspace.of(model), artifact, images=images or room.FOLLOWED, data_dir=data_dir)
    terminal.show(result, json)
    raise typer.Exit(errors.DONE if result.agrees else errors.CHECK_FAILED)


def verify(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of a model that was validated, wherever it was copied to; or a model's name.")
    ],
    digest: Annotated[
        str | None,
        typer.Option(metavar="SHA256|FILE", help="What `validate` printed as its digest and was kept elsewhere, or a file that holds it."),
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A detached signature of reports/evidence.json, by minisign or cosign. With --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The public key that the signature must be of.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Check a release folder against its own evidence, offline.

    Data, checkpoint, artifacts and report must be those that were validated, and each file must still compute what the
    checkpoint does. Who can change the folder can change its evidence: give a digest or a signature from elsewhere as
    well. Exits with 1 when something is not so, and with 2 when digest or signature cannot be checked.
    """
    from toolkit import validation
    from toolkit.report import terminal

    if (signature is None) != (key is None):
        raise errors.ToolkitError("--signature and --key belong together: a signature says nothing without the key that it must be of")
    signed = validation.Signature(signature, key) if signature is not None and key is not None else None
    place = Path(folder) if Path(folder).is_dir() else Workspace.of(folder).folder
    result = validation.verify(place, data_dir=data_dir, digest=digest, signature=signed)
    terminal.show(result, json)
    raise typer.Exit(errors.DONE if result.passed else errors.CHECK_FAILED)
