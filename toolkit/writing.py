"""Write a file or a folder whole or not at all, and never replace what is not the toolkit's."""

import contextlib
import ctypes
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from toolkit.disks import SLACK_BYTES, require_room
from toolkit.errors import ToolkitError
from toolkit.progress import say
from toolkit.scratch import CARDS, NEW, OLD, is_ours, recover, scratch, there, unwritable

MARKED_BYTES = 4096  # at the beginning of a result


def check_place(target: Path, root: Path | None = None, *, folder: bool = False) -> None:
    """Raises ToolkitError where `target` must not be replaced. Reads only, so that it can be asked before anything is computed.

    `root`: the model's folder, in which the target must lie. No name between the two may be a link, not even to a place inside:
    through a link one thing would take the place of another (exports/onnx-fp32 → ../checkpoint). The root itself may be one.
    A folder must be empty or hold one of CARDS, a file must be a regular file.
    """
    if root is not None:
        check_inside(target, root)
    try:
        mode = target.lstat().st_mode
        ours = stat.S_ISDIR(mode) and is_ours(target)
    except (FileNotFoundError, NotADirectoryError):  # the latter is found when it is written
        return
    except OSError as error:
        raise unwritable(target, error) from error
    if folder and not ours:
        raise ToolkitError(
            f"{target} is in the way: it is neither an empty folder nor one with {' or '.join(CARDS)} in it, so the toolkit did not "
            "make it and does not replace it. Move it away"
        )
    if not folder and stat.S_ISDIR(mode):
        raise ToolkitError(f"cannot write to {target}: Is a directory. Move it away, or name another place")
    if not folder and not stat.S_ISREG(mode):
        raise ToolkitError(f"cannot write to {target}: it is a link or a device, not a regular file. Name the file itself")


def check_files(root: Path, *targets: Path, needed_bytes: int = SLACK_BYTES) -> None:
    """Raises ToolkitError where files of a model could not be written: to be asked before anything is computed for them."""
    for target in targets:
        check_place(target, root)
        require_room(target.parent, needed_bytes)


def check_named(path: Path, kind: str, mark: bytes, inputs: Sequence[Path] = ()) -> None:
    """Raises ToolkitError where the file that a user has named for a result must not be written: before anything is computed.

    Nothing that the command reads (`inputs`, files or folders) is replaced, and nothing is put into it. Of what is there already only
    a result of the same `kind` is replaced, known by `mark` within its first bytes, or an empty file.
    """
    for each in inputs:
        if path.resolve().is_relative_to(each.resolve()) or (path.exists() and each.exists() and path.samefile(each)):
            raise ToolkitError(f"{path} belongs to what is read, {each}: it would be written over. Name another file for the result")
    check_place(path)
    require_room(path.parent)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(MARKED_BYTES)
        if start and mark not in start:
            raise ToolkitError(f"{path} is there already, and is no {kind} of the toolkit: it stays. Name another file, or move it away")


def check_inside(target: Path, root: Path) -> None:
    """Raises ToolkitError where a name between the model's folder and `target` is a link."""
    for path in _between(root, target):
        if path.is_symlink():
            raise ToolkitError(
                f"{path} is a link, and nothing inside a model's folder is written through a link: it may lead to files that are not "
                f"the toolkit's. Replace it with what it leads to; to keep a model on another disk, make {root} itself the link"
            )


def _between(root: Path, target: Path) -> Iterator[Path]:
    """The paths below `root` that lead to `target`, and `target` itself."""
    parts = target.relative_to(root).parts
    if ".." in parts:
        raise ToolkitError(f"{target} is not inside {root}. Name a place inside the model's folder")
    path = root
    for part in parts:
        path /= part
        yield path


@contextmanager
def replacing_folder(target: Path, root: Path, once_whole: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A new, empty folder to fill; it takes the place of `target` when the block ends well, and vanishes otherwise.

    Whoever looks at `target` sees the old folder or the new one, never a half-written one. `once_whole` changes what is to change
    together with it, when all of it is on the disk and nothing is left but to rename it. Raises ToolkitError as `check_place` does,
    and where nothing can be written.
    """
    check_place(target, root, folder=True)
    with scratch(target) as place:
        fresh = place / NEW
        fresh.mkdir()
        yield fresh
        _onto_the_disk(fresh)
        once_whole()
        check_place(target, root, folder=True)
        _take_place(place, target)


def _take_place(place: Path, target: Path) -> None:
    """In one step where the system can do that. Else in two, between which `target` is missing: `put_back` knows what to do."""
    fresh, old = place / NEW, place / OLD
    if not there(target):
        fresh.rename(target)
    elif not _exchange(fresh, target):
        try:
            target.rename(old)
            fresh.rename(target)
        except BaseException:
            if there(old) and not there(target):
                old.rename(target)
            raise
    with contextlib.suppress(OSError):  # not every file system can do that with a folder
        _settle(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step. False where the system or the file system cannot do that.

    Source: renameat2(2) of Linux with RENAME_EXCHANGE, renamex_np(2) of macOS with RENAME_SWAP.
    """
    libc, here, swap = ctypes.CDLL(None, use_errno=True), -100, 2  # AT_FDCWD; both systems call the flag 2
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(swap))
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(os.fsencode(one), os.fsencode(other), ctypes.c_uint(swap))
    else:
        return False
    return not failed


def write_text(target: Path, text: str, root: Path | None = None) -> None:
    """Writes a whole file or nothing. Raises ToolkitError as `check_place` does, and where nothing can be written.

    `root`: the model's folder, where the target is inside one; None where the user has named the place.
    """
    check_place(target, root)
    try:
        recover(target.parent)
        with scratch(target) as place:
            with (place / NEW).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                _sync(file.fileno())
            (place / NEW).replace(target)
    except OSError as error:
        raise unwritable(target, error) from error


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
def alone_in(folder: Path, wait: str | None = None) -> Iterator[None]:
    """One process at a time writes into a folder, which is made where it is missing. While another one does, raises ToolkitError, or
    with `wait` says that and waits.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it however the process ends
        except BlockingIOError as error:
            if wait is None:
                raise ToolkitError(f"another run is training into {folder}. Wait for it, stop it, or name another folder") from error
            say(wait)
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
