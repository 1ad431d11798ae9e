"""The commands: one parses, makes one call, shows the result and gives the exit code (see errors.py).

Results go to standard output, progress to standard error. Heavy imports happen inside the command that needs them. To add a
command: a function in one of these files, and a place in COMMANDS.
"""

import os
from typing import Annotated

import typer

from toolkit import __version__, errors
from toolkit.cli import judging, looking, making, timing
from toolkit.signals import terminable

app = typer.Typer(
    help="Train a classifier, convert it for Apple devices, prove that the file is the model, time it honestly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich for it would double the start-up time
)

COMMANDS = (  # in the order in which --help lists them
    making.train, making.export,
    judging.validate, judging.debug, judging.verify,
    timing.bench, timing.report,
    looking.predict, looking.inspect, looking.doctor,
)  # fmt: skip
SHARED = ("train", "validate")  # several processes of torchrun do one thing
for each in COMMANDS:
    app.command()(each)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand != "train":  # which saves first
        context.with_resource(terminable())
    if context.invoked_subcommand not in SHARED and "RANK" in os.environ:
        _refuse_several(str(context.invoked_subcommand))


def _refuse_several(command: str) -> None:
    """torchrun's processes would each do the whole work, and write the same files."""
    from toolkit import ranks

    if ranks.launched():
        shared = " and ".join(f"`toolkit {each}`" for each in SHARED)
        raise errors.ToolkitError(f"torchrun is for {shared}; run `toolkit {command}` by itself")
