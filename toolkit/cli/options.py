"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A folder under models/, or a path.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets are kept. [default: TOOLKIT_DATA, else the user's cache folder]")]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="Only this runtime; may be repeated. See: toolkit doctor.")]
Artifacts = Annotated[list[str] | None, typer.Option("--artifact", help="Only this one of exports/; may be repeated.")]
