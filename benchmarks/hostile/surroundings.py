"""Mutators of what is around a command: environment, TMPDIR, standard output, limits, a disk that is full."""

import os
import shutil
from pathlib import Path

from benchmarks.hostile.house import SMALL_BYTES
from benchmarks.hostile.scene import Scene

VARIABLES = ("TOOLKIT_CACHE", "TOOLKIT_MODELS", "TOOLKIT_DATA", "HOME", "TMPDIR", "TOOLKIT_MEMORY_LIMIT", "TOOLKIT_TIME_LIMIT", "COLUMNS",
             "LANG", "PYTHONIOENCODING", "NO_COLOR", "TERM", "XDG_CACHE_HOME", "RANK", "WORLD_SIZE")  # fmt: skip


def variable(scene: Scene) -> str:
    """An environment variable that points at a file, a FIFO, a link, nothing, or has a strange value."""
    name, rng = scene.rng.choice(VARIABLES), scene.rng
    place = scene.house / "odd"
    what = rng.choice(["file", "fifo", "loop", "missing", "user", "strange", "empty", "read-only"])
    if what == "file":
        place.write_text("a file", encoding="utf-8")
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "loop":
        place.symlink_to("odd")
    elif what == "read-only":
        place.mkdir(mode=0o555)
    value = str(place)
    if what == "user":
        value = str(scene.home / rng.choice(["Documents/letter.txt", "Empty/not-there"]))
    elif what == "strange":
        value = rng.choice(["nan", "-1", "1e400", "\x1b[2J", "x" * 5000, "\udcff", "/dev/null", "0"])
    elif what == "empty":
        value = ""
    scene.env[name] = value
    if name in ("TOOLKIT_CACHE", "TMPDIR", "HOME", "XDG_CACHE_HOME"):
        scene.own += [place, scene.home / "Empty"]  # what it says is where the cache belongs
    return f"{name} = {value[:40]!r} ({what})"


def damaged_cache(scene: Scene) -> str:
    """What validation remembers, damaged: the seed's answers under their own names."""
    cache = scene.house / "cache" / "validation"
    shutil.rmtree(cache, ignore_errors=True)
    how = scene.rng.choice(["bytes", "file", "loop", "folders", "fifo"])
    if how == "file":
        cache.write_text("no folder", encoding="utf-8")
    elif how == "loop":
        cache.symlink_to("validation")
    else:
        source = scene.house.parent / "seed" / "cache" / "validation"
        cache.mkdir(parents=True)
        for path in source.iterdir():
            target = cache / path.name
            if how == "folders":
                target.mkdir()
            elif how == "fifo":
                os.mkfifo(target)
            else:
                data = path.read_bytes()
                target.write_bytes(data[: scene.rng.randrange(len(data))])
    return how


def small_tmp(scene: Scene) -> str:
    """TMPDIR with 64 KiB of room, missing, read-only, or a file."""
    how = scene.rng.choice(["small", "missing", "read-only", "file"])
    place = scene.house / ("small" if how == "small" else "tmp")
    if how == "missing":
        place.rmdir()
    elif how == "read-only":
        place.chmod(0o555)
    elif how == "file":
        place.rmdir()
        place.write_text("no folder", encoding="utf-8")
    scene.env["TMPDIR"] = str(place)
    return how


def full_disk(scene: Scene) -> str:
    """The model's folder on a disk of its own, on which so many bytes are free."""
    target = scene.house / "disk" / "tiny"
    if not os.path.ismount(target.parent):
        return "nothing: there is no disk of its own"
    shutil.copytree(scene.model, target, symlinks=True)
    shutil.rmtree(scene.model)
    room = scene.rng.choice([0, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 512 << 10])
    free = os.statvfs(target)
    (target.parent / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room)))
    scene.model = target
    scene.own.append(target)
    return f"{room} of {SMALL_BYTES['disk']} bytes free"


def output(scene: Scene) -> str:
    """Standard output is closed, full, or a pipe that nobody reads."""
    scene.stdout = scene.rng.choice(["closed", "full", "pipe"])
    return scene.stdout


def few_bytes(scene: Scene) -> str:
    scene.limits["RLIMIT_FSIZE"] = scene.rng.choice([0, 1, 4096, 20_000, 65_536, 1 << 20])
    return f"no file larger than {scene.limits['RLIMIT_FSIZE']} bytes"


def few_files(scene: Scene) -> str:
    scene.limits["RLIMIT_NOFILE"] = scene.rng.choice([12, 16, 20, 24, 40])
    return f"{scene.limits['RLIMIT_NOFILE']} open files"


def out_taken(scene: Scene) -> str:
    """Where --out and --junit would write, something lies already."""
    how = scene.rng.choice(["folder", "link", "read-only", "missing", "fifo"])
    out = scene.house / "out"
    for name in ("bench.json", "junit.xml"):
        if how == "folder":
            (out / name).mkdir()
        elif how == "link":
            (out / name).symlink_to(scene.home / "Documents" / "not-there.json")
        elif how == "fifo":
            os.mkfifo(out / name)
    if how == "read-only":
        out.chmod(0o555)
    elif how == "missing":
        out.rmdir()
    elif how == "link":
        scene.own.append(Path(scene.home / "Documents" / "not-there.json"))
    return how
