"""Plant faults in a worker: the task `self-test`. Somebody else's artifacts are opened there as well as ours."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from toolkit.errors import ToolkitError
from toolkit.faults.selftest import SelfTestResult, self_test
from toolkit.limits import Limits, memory_bytes
from toolkit.workers import Message, call
from toolkit.workers.child import Link
from toolkit.workspace import Workspace

SECONDS = 12 * 3600.0  # 150 faults, each judged by a whole validation


def self_test_alone(
    workspace: Workspace, *, artifacts: Sequence[str] | None = None, limit: int | None = None, data_dir: Path | None = None,
    faults: Sequence[str] | None = None,
) -> SelfTestResult:  # fmt: skip
    """Do as `self_test`, in a worker. Raises ToolkitError, also where a file takes the worker down."""
    places = {"folder": workspace.folder, "recipe": workspace.recipe, "data_dir": data_dir}
    fields = {name: None if path is None else str(path.absolute()) for name, path in places.items()}
    request = Message({**fields, "artifacts": artifacts, "faults": faults, "limit": limit})
    try:
        found = call("self-test", request, limits=Limits(seconds=SECONDS, memory_bytes=memory_bytes()))
        return SelfTestResult.model_validate(found.fields)
    except ValidationError as error:
        raise ToolkitError(f"the process that planted faults gave no result that can be read: {error}") from error


def task(request: Message, link: Link) -> Message:
    given = request.fields
    result = self_test(
        Workspace(Path(given["folder"]), Path(given["recipe"])), artifacts=given["artifacts"], faults=given["faults"],
        limit=given["limit"], data_dir=None if given["data_dir"] is None else Path(given["data_dir"]),
    )  # fmt: skip
    return Message(result.model_dump(mode="json"))
