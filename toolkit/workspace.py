"""Where each thing of a model lies: `models/<name>/` with its recipe, checkpoint, exports and reports.

The folder of models is `TOOLKIT_MODELS`, else `./models`. The shipped recipes travel in the wheel too, so that every
command works from any folder; what is trained is then written under `./models/<name>/`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RecipeError
from toolkit.writing import write_text

DEFAULT_MODEL = "resnet18-mnist"


def models_folder() -> Path:
    return Path(os.environ.get("TOOLKIT_MODELS") or "models")


def shipped_folder() -> Path:
    """The recipes of the wheel (`toolkit/_models`), or of the source tree this package was imported from."""
    package = Path(__file__).parent
    inside = package / "_models"
    return inside if inside.is_dir() else package.parent / "models"


def known_models() -> list[str]:
    """Names of all models: the user's and the shipped ones, sorted."""
    folders = (models_folder(), shipped_folder())
    return sorted({recipe.parent.name for folder in folders for recipe in folder.glob("*/recipe.toml")})


@dataclass(frozen=True)
class Workspace:
    """The folder of one model. Paths only: nothing is read or made here."""

    folder: Path
    recipe: Path

    @classmethod
    def of(cls, model: str) -> "Workspace":
        """By name (a folder under models/) or by path. Raises RecipeError listing the models there are."""
        if os.sep in model or (os.altsep and os.altsep in model) or model in (".", ".."):
            folder = Path(model)
            if not (folder / "recipe.toml").is_file():
                known = ", ".join(known_models())
                raise RecipeError(f"{folder} is no model: it has no recipe.toml. Give a folder that has one, or a name: {known}")
            return cls(folder, folder / "recipe.toml")
        folder = models_folder() / model
        for home in (folder, shipped_folder() / model):
            if model and (home / "recipe.toml").is_file():
                return cls(folder, home / "recipe.toml")
        known = ", ".join(known_models())
        raise RecipeError(f"there is no model named {model!r} in {models_folder()} or among the shipped ones; there are: {known}")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def new_metrics(self, run: str) -> Path:
        """Of a run that has a checkpoint to replace, until it has replaced it. `run`: which one, by its recipe's hash."""
        return self.folder / f"metrics.{run[:12]}.new"

    def new_events(self, run: str) -> Path:
        return self.folder / f"tensorboard.{run[:12]}.new"

    @property
    def events(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"


def keep_recipe(workspace: Workspace) -> None:
    """Copies the recipe that is used into the model's folder, where it has none: the folder is then complete wherever it goes.

    What is there is never replaced, whatever it is. Raises ToolkitError where nothing can be written.
    """
    own = workspace.folder / "recipe.toml"
    if not os.path.lexists(own):
        write_text(own, workspace.recipe.read_text(encoding="utf-8"), workspace.folder)
