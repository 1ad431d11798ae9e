"""Where each thing of a model lies: `models/<name>/` with its recipe, checkpoint, exports and reports.

The folder of models is `TOOLKIT_MODELS`, else `./models`. The shipped recipes travel in the wheel too, so that every
command works from any folder; what is trained is then written under `./models/<name>/`.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RecipeError, ToolkitError

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
        write_text(own, workspace.recipe.read_text(encoding="utf-8"))


@contextmanager
def replacing_folder(target: Path, once_whole: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new, empty folder to fill; it takes the place of `target` when the block ends well, and vanishes otherwise.

    Whoever looks at `target` sees the old folder or the new one, never a half-written one. `once_whole` changes what is to change
    together with it, when all of it is on the disk and nothing is left but to rename it.
    """
    target = target.resolve()  # a link to another disk stays a link
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _unwritable(target.parent, error) from error
    try:
        yield fresh
        fresh.chmod(0o755)  # mkdtemp makes folders for their owner only
        _onto_the_disk(fresh)
        once_whole()
        old = fresh.with_name(fresh.name + ".old")
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _onto_the_disk(folder: Path) -> None:
    """All of it, before it takes the place of what is there: a power cut must not leave the new name with nothing behind it."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _settle(path)
    for path in [*folder.rglob("*/"), folder]:
        with contextlib.suppress(OSError):  # not every file system can do that with a folder
            _settle(path)


def _settle(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        _sync(number)
    finally:
        os.close(number)


def _sync(number: int) -> None:
    """fsync; on macOS that leaves all in the drive's cache, and F_FULLFSYNC does not."""
    os.fsync(number)
    if hasattr(fcntl, "F_FULLFSYNC"):
        with contextlib.suppress(OSError):  # not every file system can
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One run at a time writes into a folder, which is made where it is missing. Raises ToolkitError while another one does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it however the process ends
        except BlockingIOError as error:
            raise ToolkitError(f"another run is training into {folder}. Wait for it, stop it, or name another folder") from error
        yield
    finally:
        os.close(number)


def recover(target: Path) -> None:
    """What a process that was killed inside `replacing_folder` left beside `target` is put right, or removed.

    Between its two renames `target` is missing for a moment, and the old folder lies beside it under another name.
    """
    target = target.resolve()
    left = sorted(target.parent.glob(f".{target.name}.*"))
    for old in [path for path in left if path.name.endswith(".old")]:
        if not target.exists():
            try:
                old.rename(target)
            except OSError as error:
                raise _unwritable(target, error) from error
    for path in left:
        shutil.rmtree(path, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Writes a whole file or nothing. Raises ToolkitError where nothing can be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", encoding="utf-8", delete=False) as file:
            try:
                file.write(text)
                file.flush()
                _sync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> ToolkitError:
    return ToolkitError(f"cannot write to {target}: {error.strerror}. Name another place, or another folder of models with TOOLKIT_MODELS")
