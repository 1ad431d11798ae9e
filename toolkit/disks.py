"""Say before an hour of computing that its result cannot be written, and after a failure that a disk was the reason.

A full disk, a quota, `ulimit -f`, a read-only or immutable folder, a disk that fails: none of them is a bug, and each is one message.
"""

import errno
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DiskError

MB = 1e6
SLACK_BYTES = 1 << 20  # what is written beside the weights: cards, golden outputs, the folders themselves
FULL_BYTES = 64 << 10  # with less than that free, a write has just failed for want of room
_WRITING = (
    "ENOSPC EDQUOT EFBIG EROFS EIO EACCES EPERM ELOOP ENAMETOOLONG EMFILE ENFILE ESTALE"
    " EBUSY ENOTEMPTY ETIMEDOUT"  # network file systems: a file that another process holds open stays, and so does its folder
)
WRITING = tuple(number for name in _WRITING.split() if (number := getattr(errno, name, None)) is not None)
ONLY_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # those that are nothing else, whoever words them
_IN_WORDS = re.compile("|".join(re.escape(os.strerror(number)) for number in ONLY_DISKS), re.IGNORECASE)
_SHORT = re.compile(r"^\d+ requested and \d+ written$")  # NumPy's own: an OSError without a number
_NO_TEMPORARY = "No usable temporary directory found"


def reason(error: BaseException) -> str | None:
    """Why a disk, or a place on it, made `error` happen; None where that is not known to be so.

    Looks along the chain of causes: converters wrap what the system said, and some give its words without its number.
    """
    for each in chain(error):
        if isinstance(each, OSError):
            if each.errno is not None and each.errno in (WRITING if each is error else ONLY_DISKS):
                return f"{os.strerror(each.errno)}{_named(each)}"
            if _SHORT.match(str(each)):
                return f"{os.strerror(errno.ENOSPC)}, or the file may not grow ({each})"
            if _NO_TEMPORARY in str(each):
                return "nothing can be written to a temporary folder. Make room there, or name another one with TMPDIR"
        elif found := _IN_WORDS.search(str(each)):
            return found.group()
    return None


def _named(error: OSError) -> str:
    return "" if error.filename is None else f": {error.filename}"


def why_not_writable(place: Path, total_bytes: int = 0, largest_bytes: int = 0) -> str | None:
    """Why `total_bytes`, in files of at most `largest_bytes`, cannot be written to the folder `place`; None where they can.

    A folder that is not there yet is judged by the nearest one that is. A file without a name is made there, so nothing is left.
    """
    folder = next(each for each in (place, *place.parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(folder)
    except OSError as error:
        return f"{error.strerror or error}{_named(error) if error.filename == str(folder) else ''}"
    if free.total and free.free < total_bytes:
        return f"{free.free / MB:.1f} MB are free there, and about {total_bytes / MB:.1f} MB are needed"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < largest_bytes:
        return f"a file may have at most {limit / MB:.3f} MB here (ulimit -f), and {largest_bytes / MB:.3f} MB are needed"
    return None


def require_room(place: Path, total_bytes: int = SLACK_BYTES, largest_bytes: int = 0) -> None:
    """Raises DiskError where `why_not_writable` says why. To be asked before anything is computed."""
    if (why := why_not_writable(place, total_bytes, largest_bytes)) is not None:
        raise DiskError(f"cannot write to {place}: {why}. Make room there, or name another place")


def require_temporary_room(total_bytes: int = SLACK_BYTES) -> None:
    """Raises DiskError where temporary files have no room."""
    if (why := why_not_writable(_temporary(), total_bytes)) is not None:
        raise _no_temporary(why)


def temporary_full(error: BaseException | None = None) -> DiskError | None:
    """The DiskError to raise where temporary files have no room now, or had none when `error` happened; None where they had.

    Only what the system says counts, no words: they may be those of a stranger's file.
    """
    said = (each.errno for each in (() if error is None else chain(error)) if isinstance(each, OSError))
    why = why_not_writable(_temporary(), FULL_BYTES) or next((os.strerror(number) for number in said if number in ONLY_DISKS), None)
    return None if why is None else _no_temporary(why)


def _no_temporary(why: str) -> DiskError:
    return DiskError(f"cannot write to {_temporary()}: {why}. Make room there, or name another folder for temporary files with TMPDIR")


def _temporary() -> Path:
    """Raises DiskError."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise DiskError(f"{reason(error)}") from error


def blamed(error: BaseException, place: Path, largest_bytes: int = 0) -> DiskError | None:
    """The DiskError to raise instead of `error`, which happened while `place` was being written; None where the disk is not to blame.

    The disk itself is asked first: some libraries say only that they could not write. `largest_bytes`: of a file that was written.
    """
    why = why_not_writable(place, FULL_BYTES, largest_bytes) or reason(error)
    return (
        None if why is None else DiskError(f"cannot write to {place}: {why}. Make room there, and do it again; what was there before stays")
    )


def chain(error: BaseException) -> Iterator[BaseException]:
    """Itself, and what it was raised from or while handling."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        yield each
        each = each.__cause__ if each.__cause__ is not None or each.__suppress_context__ else each.__context__
