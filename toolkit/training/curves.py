"""The curves of a run: a record of every figure it read, in metrics.jsonl and for TensorBoard, and how they take their place."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from toolkit.errors import CheckpointError, ToolkitError
from toolkit.files import read_bytes
from toolkit.limits import MAX_METRICS_BYTES
from toolkit.recipe import Recipe
from toolkit.scratch import OLD, scratch
from toolkit.training.board import Board
from toolkit.workspace import Workspace
from toolkit.writing import check_inside, check_place, write_text

EVENTS = "events.out.tfevents."  # how TensorBoard's writer begins the names of its files
_BEGUN = re.compile(r"(metrics|tensorboard)\.([0-9a-f]{12})\.new")
CURVES = {"loss", "accuracy", "lr", "test_accuracy", "held_out_accuracy"}  # what TensorBoard is shown


def _lines(path: Path) -> list[str]:
    """The records of a run that goes on. Raises CheckpointError where they cannot be read."""
    advice = "Move it away to go on without the curves so far, or begin anew: --restart"
    try:
        return read_bytes(path, MAX_METRICS_BYTES, raises=CheckpointError, advice=advice).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is no text that the toolkit has written: {error}. {advice}") from error


def check_events(folder: Path, root: Path) -> None:
    """Raises ToolkitError where a folder that training may remove is a link, or holds more than TensorBoard's event files."""
    check_inside(folder, root)
    if strange := _no_events(folder):
        raise ToolkitError(f"{strange} is not an event file of TensorBoard, and training replaces {folder} as a whole. Move it away")


def _no_events(folder: Path) -> Path | None:
    """What is in it, or it is, that TensorBoard's writer did not make; None where there is no such thing, or no folder at all."""
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return folder
    return next((path for path in folder.iterdir() if path.is_symlink() or not path.is_file() or not path.name.startswith(EVENTS)), None)


def take_their_place(workspace: Workspace, curves: Path, events: Path) -> None:
    """With a new checkpoint; where there are none of it, those of the old one go all the same. Once a scratch folder is there, nothing but
    renames, the last that can fail before the checkpoint's own.
    """
    check_place(workspace.metrics, workspace.folder)
    check_events(workspace.events, workspace.folder)
    with scratch(workspace.events) as aside:  # no name that somebody could have taken before
        if curves.exists():
            curves.replace(workspace.metrics)
        else:
            workspace.metrics.unlink(missing_ok=True)
        if os.path.lexists(workspace.events):
            workspace.events.rename(aside / OLD)
        if events.exists():
            events.rename(workspace.events)


def _remove(events: Path) -> None:
    """Event files of ours; what cannot be removed is in nobody's way."""
    if _no_events(events) is None:
        shutil.rmtree(events, ignore_errors=True)


def forget_begun(workspace: Workspace) -> None:
    """What runs left that were to replace the checkpoint and never did: by their names, and by what is in them."""
    for path in workspace.folder.glob(workspace.new_metrics("*").name):
        if _BEGUN.fullmatch(path.name) and not path.is_symlink() and path.is_file() and _is_record(path):
            path.unlink()
    for path in workspace.folder.glob(workspace.new_events("*").name):
        if _BEGUN.fullmatch(path.name):
            _remove(path)


def _is_record(path: Path) -> bool:
    """Is it empty, or begins it with a record of ours?"""
    with path.open("rb") as file:
        head = file.readline(1 << 16)
    try:
        record = json.loads(head or b'{"epoch": 0}')
    except ValueError:
        return False
    return isinstance(record, dict) and "epoch" in record


@contextmanager
def or_checkpoint_error(workspace: Workspace) -> Iterator[None]:
    """Raises CheckpointError where the disk is full, or fails; the checkpoint that was there stays."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch.save's, whatever went wrong
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"cannot write the checkpoint in {workspace.checkpoint}: {reason}. The one that was there, if any, was kept. "
            "Make room there, and go on with --resume"
        ) from error


class MetricsLog:
    """metrics.jsonl, one record a line, and with `events` TensorBoard's files too.

    A resumed run goes on after the records of its checkpoint, and `seconds` goes on counting. A new one that has a checkpoint to
    replace keeps its records beside the old ones until it has: `settle`. Where this process does not lead: nowhere.
    """

    STATE = ("records", "visits", "seconds")

    def __init__(
        self, workspace: Workspace, recipe: Recipe, state: dict[str, Any] | None, *, leads: bool = True, events: bool = False
    ) -> None:  # fmt: skip
        self.workspace, self.run, self.leads, self.records = workspace, recipe.hash, leads, 0
        records, visits, seconds = (state[name] for name in self.STATE) if state else (0, 0, 0.0)
        self.started, self.visits = time.monotonic() - seconds, int(visits)
        self.replaces = state is None and workspace.checkpoint.exists()
        self.path = workspace.new_metrics(self.run) if self.replaces else workspace.metrics
        self.board: Board | None = None
        self.events = events and leads
        if not leads:
            return
        with or_checkpoint_error(workspace):
            forget_begun(workspace)
            if state is None and not self.replaces:
                _remove(workspace.events)  # of a run that left no model
        if events:  # first: where it cannot be, nothing says that a run has begun
            folder = workspace.new_events(self.run) if self.replaces else workspace.events
            self.board = Board(folder, self.visits if state else None)
        kept = _lines(self.path)[: int(records)] if state and self.path.exists() else []
        write_text(self.path, "".join(line + "\n" for line in kept), workspace.folder)
        self.records = len(kept)

    def state(self) -> dict[str, Any]:
        return dict(zip(self.STATE, (self.records, self.visits, time.monotonic() - self.started), strict=True))

    def add(self, visits: int, record: dict[str, Any]) -> None:
        """A record after so many image visits."""
        if not self.leads:
            return
        self.visits = visits
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "seconds": round(time.monotonic() - self.started, 3)}) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.path}: {error.strerror}. The last checkpoint, if any, was kept. "
                "Make room there, and go on with --resume"
            ) from error
        self.records += 1
        if self.events:
            self.board = self.board or Board(self.workspace.events, self.visits)
            self.board.add(visits, {name: record[name] for name in CURVES & record.keys()})

    def settle(self) -> None:
        """As the run's first checkpoint takes its place: from now on the curves are this run's."""
        if not self.replaces:
            return
        self.close()  # event files are written to by name, and are opened again by the next record
        take_their_place(self.workspace, self.path, self.workspace.new_events(self.run))
        self.path, self.replaces = self.workspace.metrics, False

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
            self.board = None
