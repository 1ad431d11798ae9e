"""A house for each case: a home folder with a user's files, the folder of models, TMPDIR. All but the model's folder is the canary."""

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

FREE = ("tmp", "cache", "out", "small", "disk")  # not the canary: TMPDIR is judged by itself
USERS = (
    ".profile", ".emacs.d/init.el", "emacs/init.el", ".checkpoint.bak/kept.txt", "Documents/letter.txt", "Documents/photos/1.txt",
    "Documents/exports/readme.txt", "Documents/.tiny.abc123.old/kept.txt", "checkpoint/mine.txt", "exports.txt",
)  # fmt: skip
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
SMALL_BYTES = {"small": 64 << 10, "disk": 4 << 20}  # file systems of their own: a TMPDIR without room, a disk that gets full
libc = ctypes.CDLL(None, use_errno=True)


def privileged() -> bool:
    return os.geteuid() == 0


def mount_small(house: Path) -> str | None:
    """Mounts the small file systems, for this process and its children only. None, or why it cannot be done."""
    if not privileged():
        return "only root may mount a file system"
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    for name, size in SMALL_BYTES.items():
        place = house / name
        place.mkdir(parents=True, exist_ok=True)
        if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, f"size={size},mode=0755".encode()):
            return f"mount: {os.strerror(ctypes.get_errno())}"
    return None


def build(house: Path, seed: Path, model: str) -> Path:
    """Makes the house anew; returns the model's folder, a copy of `seed/<model>`."""
    demolish(house)
    for name in USERS:
        path = house / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the user's own {name}\n", encoding="utf-8")
    (house / "home" / "Empty").mkdir()
    _copy(seed / "pictures", house / "pictures")
    _copy(seed / "files", house / "files")
    artifact = house / "home" / "Documents" / "artifact"  # one of ours, and not of this model's folder
    _copy(seed / "finished" / "exports" / "onnx-fp32", artifact)
    (house / "models" / "other").mkdir(parents=True)
    shutil.copy(seed / "finished" / "recipe.toml", house / "models" / "other" / "recipe.toml")
    _copy(seed / model, house / "models" / "tiny")
    for name in FREE:
        (house / name).mkdir(exist_ok=True)
    return house / "models" / "tiny"


def _copy(source: Path, target: Path) -> None:
    """With FIFOs and links as they are, which shutil does not copy."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def demolish(house: Path) -> None:
    """Removes what is in it; the mounts stay."""
    if not house.exists():
        house.mkdir(parents=True)
        return
    if privileged():
        subprocess.run(["chattr", "-R", "-i", str(house)], capture_output=True, check=False)
    for path in house.iterdir():
        if path.is_dir() and not path.is_symlink():
            _empty(path)
        else:
            path.unlink()


def _empty(folder: Path) -> None:
    """Removes it, or, of a mount, what is in it."""
    if not os.path.ismount(folder):
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def digest(house: Path, leave_out: list[Path]) -> dict[str, str]:
    """Path → type, mode, times and content of all in the house but `leave_out` and what is free. Links are not followed.

    A folder's own time is taken too: it tells that a file was made in it and removed again.
    """
    skipped = {os.fspath(path) for path in [*leave_out, *(house / name for name in FREE)]}
    parents = {os.path.dirname(path) for path in skipped}  # noqa: PTH120
    found: dict[str, str] = {}
    for folder, names, files in os.walk(os.fspath(house)):
        names[:] = [name for name in names if f"{folder}/{name}" not in skipped]
        for name in [*names, *files]:
            path = f"{folder}/{name}"
            if path not in skipped:
                found[os.path.relpath(path, house)] = _what(path, timed=path not in parents)
    return found


def _what(path: str, timed: bool = True) -> str:
    try:
        info = os.lstat(path)
    except OSError as error:
        return f"unreadable: {error}"
    kind, when = oct(info.st_mode), info.st_mtime_ns if timed else 0
    if stat.S_ISLNK(info.st_mode):
        return f"{kind} link to {os.readlink(path)}"  # noqa: PTH115
    if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 26:
        with open(path, "rb") as file:  # noqa: PTH123
            return f"{kind} {when} {hashlib.sha256(file.read()).hexdigest()}"
    return f"{kind} {when} {info.st_size if stat.S_ISREG(info.st_mode) else ''}"


def inventory(model: Path) -> dict[str, str]:
    """Name → kind of what the toolkit keeps in a model's folder: its first two levels, hidden names apart."""
    found = {}
    for path in [*_entries(model), *_entries(model / "exports"), *_entries(model / "reports"), *_entries(model / "checkpoint")]:
        found[os.fsdecode(os.path.relpath(path, model))] = oct(stat.S_IFMT(path.lstat().st_mode))
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    except OSError:
        return []
