"""From a recipe to a file: train, export."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from toolkit import errors
from toolkit.cli.options import DataDir, Json, Model
from toolkit.workspace import DEFAULT_MODEL, Workspace


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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from an interrupted run, if there is one; a finished model stays.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, and replace the run that is there, finished or not.")] = False,
    save_minutes: Annotated[float, typer.Option(min=0, help="A checkpoint this often, and after every epoch.")] = 10,
    nproc: Annotated[int, typer.Option(min=1, help="Processes of this machine that share every batch; torchrun works as well.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Curves for TensorBoard too, in tensorboard/ of the model.")] = False,
    json: Json = False,
) -> None:
    """Train a model and measure its accuracy from the saved file.

    Exit code 1: the accuracy that was asked for was not reached.
    """
    from toolkit import ranks, training
    from toolkit.recipe import Recipe
    from toolkit.report import terminal

    if until_accuracy is not None and not 1 < until_accuracy <= 100:
        raise errors.RecipeError(f"--until-accuracy takes per cent, above 1 and up to 100: for example 98.21, not {until_accuracy:g}")
    short = {"train.epochs": epochs, "train.seed": seed, "train.until_accuracy": until_accuracy and until_accuracy / 100}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]
    if resume and restart:
        raise errors.RecipeError("--resume goes on with an unfinished run and --restart begins anew: give one of them")
    workspace = Workspace.of(model)
    recipe = Recipe.read(workspace.recipe, overrides)
    if nproc > 1:
        if ranks.launched():
            raise errors.RecipeError("torchrun has started the processes already: leave --nproc out")
        flags = [part for override in overrides for part in ("--set", override)]
        flags += ["--seeds", str(seeds)] if seeds else []
        flags += ["--data-dir", str(data_dir)] if data_dir else []
        switches = (("--resume", resume), ("--restart", restart), ("--tensorboard", tensorboard), ("--json", json))
        flags += [flag for flag, given in switches if given]
        training.launch(nproc, ["train", model, "--device", device, "--save-minutes", f"{save_minutes}", *flags])
        return
    training.end_with_launcher()
    options: dict[str, Any] = {
        "device": device, "data_dir": data_dir, "resume": resume, "restart": restart, "save_minutes": save_minutes,
        "tensorboard": tensorboard,
    }  # fmt: skip
    result = training.train_seeds(workspace, recipe, seeds, **options) if seeds else training.train(workspace, recipe, **options)
    if not ranks.leads():  # the launcher ends them all at the first code that is not 0, and the first process is still writing
        raise typer.Exit(errors.DONE)
    terminal.show(result, json)
    raise typer.Exit(errors.INTERRUPTED if not result.finished else training.goal_missed() if result.missed else errors.DONE)


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
