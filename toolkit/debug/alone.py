"""Look into an artifact in a worker: the tasks `debug` and `hazards`. A file may take down whoever opens it."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from toolkit.debug.hazards import IMAGES as RANGED
from toolkit.debug.hazards import hazards
from toolkit.debug.result import DebugResult, HazardsResult
from toolkit.debug.run import IMAGES, debug
from toolkit.errors import ToolkitError
from toolkit.workers import Message, WorkerLost, call
from toolkit.workers.child import Link
from toolkit.workspace import Workspace

Result = TypeVar("Result", DebugResult, HazardsResult)


def debug_alone(workspace: Workspace, name: str, *, images: int = IMAGES, data_dir: Path | None = None) -> DebugResult:
    """Do as `debug`, in a worker. Raises ToolkitError, also where the file takes the worker down."""
    return _looked(DebugResult, "debug", workspace, name=name, images=images, data_dir=data_dir)


def hazards_alone(workspace: Workspace, *, images: int = RANGED, data_dir: Path | None = None) -> HazardsResult:
    """Do as `hazards`, in a worker. Raises ToolkitError, also where the file takes the worker down."""
    return _looked(HazardsResult, "hazards", workspace, images=images, data_dir=data_dir)


def _looked(kind: type[Result], task: str, workspace: Workspace, *, data_dir: Path | None, **fields: Any) -> Result:
    places = {"folder": workspace.folder, "recipe": workspace.recipe, "data_dir": data_dir}
    paths = {name: None if path is None else str(path.absolute()) for name, path in places.items()}
    about = fields.get("name", workspace.folder.name)
    try:
        return kind.model_validate(call(task, Message({**paths, **fields})).fields)
    except WorkerLost as lost:
        raise ToolkitError(f"{about} could not be looked into: {lost}") from lost
    except ValidationError as error:
        raise ToolkitError(f"{about}: the process that looked into it gave no result that can be read: {error}") from error


def task(request: Message, link: Link) -> Message:
    given = request.fields
    result = debug(_workspace(request), given["name"], images=given["images"], data_dir=_path(given["data_dir"]))
    return Message(result.model_dump(mode="json"))


def hazards_task(request: Message, link: Link) -> Message:
    given = request.fields
    return Message(hazards(_workspace(request), images=given["images"], data_dir=_path(given["data_dir"])).model_dump(mode="json"))


def _workspace(request: Message) -> Workspace:
    return Workspace(Path(request.fields["folder"]), Path(request.fields["recipe"]))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
