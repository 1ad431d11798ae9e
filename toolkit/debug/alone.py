"""Looks into one artifact in a process of its own, where a runtime may take ours down: `python -m toolkit.debug JOB`."""

import json
import sys
import tempfile
import traceback
from pathlib import Path

from pydantic import ValidationError

from toolkit.debug.result import DebugResult
from toolkit.debug.run import IMAGES, debug
from toolkit.errors import BAD_INPUT, CHECK_FAILED, DONE, ToolkitError
from toolkit.processes import watched
from toolkit.progress import say
from toolkit.workspace import Workspace

ABORTS = "coreai-"  # Core AI's runtime aborts on a file that is cut (std::bad_cast); the others raise
SECONDS = 3600.0
MEMORY_BYTES = 16 << 30
NOTICE = "notice: "  # a line of the child's standard output that is for the user; a runtime may print others


def debug_alone(workspace: Workspace, name: str, *, images: int = IMAGES, data_dir: Path | None = None) -> DebugResult:
    """As debug(); whatever takes the process down is a ToolkitError with its last words, and a bug of ours is one here as well."""
    if not name.startswith(ABORTS):
        return debug(workspace, name, images=images, data_dir=data_dir)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        job = {
            "folder": str(workspace.folder.absolute()), "recipe": str(workspace.recipe.absolute()), "name": name, "images": images,
            "data_dir": None if data_dir is None else str(data_dir.absolute()), "out": str(out),
        }  # fmt: skip
        lines: list[bytes] = []
        ended = watched("toolkit.debug", [json.dumps(job)], seconds=SECONDS, memory_bytes=MEMORY_BYTES, on_line=lines.append)
        for line in lines:
            if line.startswith(NOTICE.encode()):
                say(line.decode("utf-8", "backslashreplace")[len(NOTICE) :].rstrip())
        if ended.code == BAD_INPUT and out.is_file():
            raise ToolkitError(out.read_text(encoding="utf-8"))  # its own message
        if ended.stopped is not None or ended.code < 0:
            raise ToolkitError(f"{name} took down the process that looked into it: {ended.reason}. Export again")
        if ended.code != DONE:
            raise RuntimeError(out.read_text(encoding="utf-8") if out.is_file() else ended.reason)
        try:
            return DebugResult.model_validate_json(out.read_bytes())
        except (OSError, ValidationError) as error:
            raise ToolkitError(f"{name}: the process that looked into it ended well and left nothing: {error}") from error


def main() -> int:
    job = json.loads(sys.argv[1])
    data_dir = None if job["data_dir"] is None else Path(job["data_dir"])
    out = Path(job["out"])
    try:
        workspace = Workspace(Path(job["folder"]), Path(job["recipe"]))
        result = debug(workspace, job["name"], images=job["images"], data_dir=data_dir, tell=_tell)
    except ToolkitError as error:
        out.write_text(str(error), encoding="utf-8")
        return BAD_INPUT
    except Exception:  # a bug of ours: it keeps its traceback, of which standard error would hand on the end alone
        out.write_text(traceback.format_exc(), encoding="utf-8")
        return CHECK_FAILED
    out.write_text(result.model_dump_json(), encoding="utf-8")
    return DONE


def _tell(text: str) -> None:
    print(f"{NOTICE}{text}", flush=True)
