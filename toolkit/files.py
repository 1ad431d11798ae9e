"""Read a file that somebody else may have put there: a regular file only, of a bounded size, and without ever waiting for it.

A FIFO would block, /dev/zero would never end, and a device may do something when it is opened. A file may also be replaced between
the moment it is looked at and the moment it is read, so that the size is taken of what was opened, and no more than that is read.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import ToolkitError

FILE, FOLDER = "a regular file", "a folder"
KINDS = (
    (stat.S_ISREG, FILE), (stat.S_ISDIR, FOLDER), (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def kind_of(path: Path) -> str | None:
    """Say what lies at `path` itself, a link not being followed: FILE, FOLDER, "a link", "a FIFO", …; None: nothing.

    What cannot be asked for, such as a name that is too long, is not there.
    """
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return None
    return _kind(mode)


def opened(path: Path, most_bytes: int, *, raises: type[ToolkitError] = ToolkitError, advice: str = "") -> BinaryIO:
    """Open a regular file of at most `most_bytes` for reading; the caller closes it.

    Raises `raises` for what is missing, no regular file, larger, or cannot be opened. `advice`: a sentence that says what to do.
    """
    number = -1
    try:
        _regular(os.stat(path), most_bytes)  # noqa: PTH116  # a device must not even be opened; Path.stat is the same call
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        _regular(os.fstat(number), most_bytes)
    except (OSError, ValueError) as error:
        if number >= 0:
            os.close(number)
        raise raises(_message(path, error, advice)) from error
    return os.fdopen(number, "rb")


def read_bytes(path: Path, most_bytes: int, *, raises: type[ToolkitError] = ToolkitError, advice: str = "") -> bytes:
    """Return the content of a regular file of at most `most_bytes`.

    Raises `raises` for what is missing, no regular file, larger, or cannot be read. `advice`: a sentence that says what to do.
    """
    with opened(path, most_bytes, raises=raises, advice=advice) as file:
        try:
            content = file.read(most_bytes + 1)
            if len(content) > most_bytes:  # it grew since, or it is one of the files of /proc, which have no size
                raise ValueError(f"it has more than {most_bytes:,} bytes")
        except (OSError, ValueError) as error:
            raise raises(_message(path, error, advice)) from error
    return content


def _kind(mode: int) -> str:
    return next((name for is_kind, name in KINDS if is_kind(mode)), "something else")


def _regular(found: os.stat_result, most_bytes: int) -> None:
    """Raises ValueError with the reason why it may not be read."""
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"it is {_kind(found.st_mode)}, not {FILE}")
    if found.st_size > most_bytes:
        raise ValueError(f"it has {found.st_size:,} bytes; at most {most_bytes:,} are read")


def _message(path: Path, error: OSError | ValueError, advice: str) -> str:
    """An OSError's own text would name the path again; a ValueError is ours, or "embedded null byte"."""
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return f"{path} cannot be read: {reason}.{f' {advice}' if advice else ''}"
