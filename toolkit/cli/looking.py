"""A look at a picture, a file, a machine: predict, inspect, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit import errors
from toolkit.cli.options import Json
from toolkit.workspace import Workspace


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


def inspect(
    path: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact, a checkpoint or a model.")], json: Json = False
) -> None:
    """Verify a file and say what is in it."""
    from toolkit import inspection
    from toolkit.report import terminal

    terminal.show(inspection.inspect(path), json)


def doctor(
    mps: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Which operators of this model's steps MPS cannot take; on any machine.")
    ] = None,
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

        readiness = examine_mps(Recipe.read(Workspace.of(mps).recipe))
        terminal.show(readiness, json)
        raise typer.Exit(errors.CHECK_FAILED if readiness.faults else errors.DONE)
    result = room.examine()
    terminal.show(result, json)
    raise typer.Exit(errors.BAD_INPUT if result.problems else errors.DONE)
