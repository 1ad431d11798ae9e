"""Scratch folders: what is being written lies in one until it is complete, and what a kill leaves of one is put right.

A scratch folder lies beside the place of what is being written. It is recognised by its name, `.toolkit-<16 hex digits>`, *and* by a
marker file in it that the toolkit wrote and that its process keeps locked. Nothing else is ever removed.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import DiskError
from toolkit.progress import say

MARKER = ".toolkit-leftover"
CARDS = ("checkpoint.json", "manifest.json")  # a folder that holds one of them is ours to replace
NEW, OLD = "new", "old"  # in a scratch folder: what is being written, and what it replaces
_NAME = re.compile(r"\.toolkit-[0-9a-f]{16}")
_HEAD = "written by the toolkit, and incomplete: "  # the marker's first line, before the name of what was to be written
_MAX_MARKER_BYTES = 4096


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A marked folder of our own beside `target`; it is gone when the block ends, with all that is in it then. Raises DiskError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place, lock = _marked(target)
    except OSError as error:
        raise unwritable(target.parent, error) from error
    try:
        yield place
    finally:
        _discard(place)
        os.close(lock)


def _marked(target: Path) -> tuple[Path, int]:
    """A new scratch folder, and its locked marker. Again where `recover` of another process was quicker than the lock."""
    while True:
        place = target.with_name(f".toolkit-{secrets.token_hex(8)}")
        place.mkdir()
        try:
            lock = os.open(place / MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, f"{_HEAD}{json.dumps(target.name)}\nThe toolkit removes this folder when it next writes here.\n".encode())
        except BaseException:
            os.close(lock)
            _discard(place)
            raise
        if there(place / MARKER):
            return place, lock
        os.close(lock)


def _discard(place: Path) -> None:
    """Removes a scratch folder, its marker last: what a kill leaves of it is still known as ours."""
    with contextlib.suppress(OSError):  # what cannot be removed keeps its marker, and is tried again at the next writing
        for path in place.iterdir():
            if path.name != MARKER:
                remove(path)
        (place / MARKER).unlink(missing_ok=True)
        place.rmdir()


def remove(path: Path) -> None:
    """A folder with all that is in it, a file, or a link without what it leads to. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _leftovers(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """(scratch folder, name of what was to be written) of each process that was killed while it wrote into `folder`.

    The name is None where the folder holds nothing but an empty marker, or not even that: the process had only just begun.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False))
    except OSError:  # the command that reads or writes there says why it cannot
        return
    for place in [folder / name for name in found]:
        with contextlib.suppress(OSError):  # BlockingIOError: its process lives; otherwise: it cannot be read, and is left alone
            yield from _leftover(place)


def _leftover(place: Path) -> Iterator[tuple[Path, str | None]]:
    """Itself, if it is one; its marker stays locked until the next one is asked for."""
    inside = [path.name for path in place.iterdir()]
    if not inside:
        yield place, None
    if MARKER not in inside:
        return
    lock = os.open(place / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        name = _marks(lock)
        if name is not None or (inside == [MARKER] and os.fstat(lock).st_size == 0):
            yield place, name
    finally:
        os.close(lock)


def _marks(lock: int) -> str | None:
    """What a marker says was to be written; None where it is no marker of ours."""
    about = os.fstat(lock)
    if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_MARKER_BYTES:
        return None
    head = os.read(lock, _MAX_MARKER_BYTES).decode("utf-8", "replace").partition("\n")[0]
    try:
        name = json.loads(head.removeprefix(_HEAD)) if head.startswith(_HEAD) else None
    except ValueError:
        return None
    return name if isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name else None


def put_back(folder: Path) -> None:
    """Puts back what a killed process had moved aside in `folder`, and had not replaced yet. Removes nothing.

    Every command that reads asks for this first. Where nothing can be written, it says what it found and goes on.
    """
    for place, name in _leftovers(folder):
        if name is None:
            continue
        try:
            _put_back(place, folder / name)
        except OSError as error:
            say(f"{folder / name} is missing: the process that was replacing it was killed, and left it in {place / OLD}. It cannot be "
                f"put back: {error.strerror}")  # fmt: skip


def _put_back(place: Path, target: Path) -> None:
    old = place / OLD
    if not there(target) and old.is_dir() and not old.is_symlink() and is_ours(old):
        old.rename(target)
        say(f"{target} was put back: the process that was replacing it had been killed")


def recover(folder: Path) -> None:
    """Puts back what killed processes had moved aside in `folder`, and removes what else they left there.

    For commands that write into it. Raises DiskError where something cannot be put back.
    """
    for place, name in _leftovers(folder):
        if name is not None:
            try:
                _put_back(place, folder / name)
            except OSError as error:
                raise unwritable(folder / name, error) from error
        _discard(place)


def is_ours(folder: Path) -> bool:
    """Is it an empty folder, or one with a card of ours?"""
    names = [path.name for path in folder.iterdir()]
    return not names or any(card in names and stat.S_ISREG((folder / card).lstat().st_mode) for card in CARDS)


def there(path: Path) -> bool:
    """Also where it is a link that leads nowhere."""
    return os.path.lexists(path)


def unwritable(target: Path, error: OSError) -> DiskError:
    return DiskError(f"cannot write to {target}: {error.strerror}. Name another place, or another folder of models with TOOLKIT_MODELS")
