"""Mutators of what lies where: links, names, types, sizes, permissions."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from benchmarks.hostile.scene import Scene

WRITTEN = (  # what a command writes or reads, there or not yet
    "checkpoint", "exports", "exports/onnx-fp32", "exports/coreml-fp16", "exports/coreml-fp32-tensor", "exports/coreai-fp32", "reports",
    "reports/validation.json", "reports/evidence.json", "reports/report.html", "reports/report.md", "reports/bench.json", "recipe.toml",
    "metrics.jsonl", "tensorboard", "seeds", "checkpoint/checkpoint.json", "checkpoint/model.safetensors", "checkpoint/resume.pt",
    "exports/onnx-fp32/model.onnx", "exports/onnx-fp32/manifest.json", "exports/onnx-fp32/golden.npz",
    "exports/coreml-fp16/model.mlpackage", "exports/coreml-fp16/model.mlpackage/Data", "exports/coreai-fp32/model.aimodel",
)  # fmt: skip
TARGETS = (  # of links, from the house: a user's own files, one of our own artifacts elsewhere, what does not end
    "home/Documents", "home/Documents/letter.txt", "home/.emacs.d", "home/emacs", "home/Empty", "home/.profile", "home/checkpoint",
    "home/Documents/artifact", "home/Documents/artifact/model.onnx", "home/Documents/artifact/manifest.json", "models/other",
    "models/other/recipe.toml", "home/not-there", "home/Documents/not-there/deeper", "models", "home", ".", "/dev/zero", "/dev/full",
    "/dev/null", "/proc/self/fd/1", "/dev/urandom", "tmp",
)  # fmt: skip
NAMES = (
    b"n" * 255, b"\xff\xfe\x80", b"line\nbreak", b"\x1b[2J\x1b[1;32mPASSED\x1b[0m", "‮gnp.exe".encode(), b"-rf", b"--help", b" ",
    b".checkpoint.abcdefgh", b".checkpoint.abcdefgh.old", b".checkpoint.bak", b".onnx-fp32.x1y2z3w4.old", b".exports.zzzzzzzz",
    b".recipe.toml.abc", b".report.html.old", b"metrics.000000000000.new", b"<img src=x onerror=alert(1)>", b"a|b`c", b"%s%n{0}",
    "é".encode(), b"CON", b"PASSED: 117 checks", b"[red]bold", b"..\\..\\x", b"checkpoint.old", b".tmp",
)  # fmt: skip


def _place(scene: Scene) -> Path:
    """Where something is changed: what the command reads or writes, there or not yet; or any file or folder of the model."""
    if scene.rng.random() < 0.5:
        aimed = [name for name in WRITTEN if any(name.startswith(aim) or aim.startswith(f"{name}/") for aim in scene.aims)]
        return scene.model / scene.rng.choice(aimed if aimed and scene.rng.random() < 0.8 else WRITTEN)
    return scene.rng.choice(everything(scene))


def everything(scene: Scene, files_only: bool = False) -> list[Path]:
    """Files and folders of the model: mostly those below one of the scene's aims; the recipe, where there is nothing."""
    if scene.aims and scene.rng.random() < 0.85:
        aim = scene.model / scene.rng.choice(scene.aims)
        if found := below(aim, files_only):
            return found
    return below(scene.model, files_only) or [scene.model / "recipe.toml"]


def below(top: Path, files_only: bool) -> list[Path]:
    found = [top] if top.is_file() else []
    for root, names, files in os.walk(top):
        found += [Path(root) / name for name in (files if files_only else [*names, *files])]
    return sorted(path for path in found if not files_only or path.is_file())


def a_folder(scene: Scene) -> Path:
    """The model's, or one below it."""
    return scene.rng.choice([path for path in [scene.model, *everything(scene)] if path.is_dir()])


def clear(path: Path) -> None:
    """Makes room for something else; its parent is there afterwards, if it can be."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    if not path.parent.exists():
        path.parent.mkdir(parents=True)


def link(scene: Scene) -> str:
    """A link in place of something, to anything."""
    path, target = _place(scene), scene.rng.choice(TARGETS)
    aim = scene.house / target  # an absolute target stays as it is
    clear(path)
    path.symlink_to(os.path.relpath(aim, path.parent.resolve()) if scene.rng.random() < 0.5 and target[0] != "/" else aim)
    return f"{path.relative_to(scene.model)} → {target}"


def link_to_moved(scene: Scene) -> str:
    """Something moved out into the user's folder, and a link to it in its place: what a tidy user does with large files."""
    path = _place(scene)
    if not path.exists():
        return link(scene)
    away = scene.home / "Documents" / f"moved-{path.name}"
    shutil.move(path, away)
    path.symlink_to(away)
    return f"{path.relative_to(scene.model)} moved to the user's folder, a link in its place"


def link_loop(scene: Scene) -> str:
    path = _place(scene)
    clear(path)
    path.symlink_to(scene.rng.choice([path.name, f"../{path.parent.name}/{path.name}", "."]))
    return f"{path.relative_to(scene.model)} is a loop of links"


def hard_link(scene: Scene) -> str:
    """A file that is a user's own under another name."""
    path = scene.rng.choice(everything(scene, files_only=True))
    clear(path)
    os.link(scene.home / "Documents" / "letter.txt", path)
    return f"{path.relative_to(scene.model)} is a hard link to a user's file"


def model_is_link(scene: Scene) -> str:
    """The model's folder itself: a link to where it really is, which then is the command's own, or to a user's folder."""
    away = scene.house / "elsewhere"
    if scene.rng.random() < 0.7:
        shutil.move(scene.model, away)
        scene.own.append(away)
    else:
        shutil.rmtree(scene.model)
        away = scene.home / scene.rng.choice(["Documents", "Empty", "not-there", "Documents/artifact"])
    scene.model.symlink_to(away)
    return f"the model's folder is a link to {away.name}"


def name_planted(scene: Scene) -> str:
    """A file, a folder with a file, or a link, of a strange name."""
    path = os.fsencode(a_folder(scene)) + b"/" + scene.rng.choice(NAMES)
    kind = scene.rng.choice(["file", "folder", "link"])
    if os.path.lexists(path):
        return "nothing: that name is taken"
    if kind == "file":
        Path(os.fsdecode(path)).write_text("kept by the user", encoding="utf-8")
    elif kind == "link":
        Path(os.fsdecode(path)).symlink_to(scene.home / "Documents")
    else:
        Path(os.fsdecode(path)).mkdir()
        (Path(os.fsdecode(path)) / "kept.txt").write_text("kept by the user", encoding="utf-8")
    return f"{kind} {path[len(os.fsencode(scene.model)) :]!r}"


def name_changed(scene: Scene) -> str:
    """One of ours under a strange name."""
    path = scene.rng.choice(everything(scene))
    target = os.path.join(os.fsencode(path.parent), scene.rng.choice(NAMES))  # noqa: PTH118
    if not os.path.lexists(target):
        os.rename(os.fsencode(path), target)  # noqa: PTH104
    return f"{path.relative_to(scene.model)} renamed to {target[-60:]!r}"


def model_name(scene: Scene) -> str:
    """The model's folder under a strange name."""
    name = scene.rng.choice([each for each in NAMES if each[:1] not in (b".", b"-", b" ")])
    target = Path(os.fsdecode(os.fsencode(scene.model.parent) + b"/" + name))
    scene.model.rename(target)
    scene.own.append(target)
    scene.model = target
    return f"the model's folder is named {name[:40]!r}"


def kind(scene: Scene) -> str:
    """A FIFO, a socket, a device, a folder or a file in place of something else."""
    path, what = _place(scene), scene.rng.choice(["fifo", "socket", "device", "folder", "file", "nothing"])
    clear(path)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path is at most 107 bytes long
            server.bind(path.name[:60])
            os.chdir(here)
    elif what == "device" and os.geteuid() == 0:
        os.mknod(path, 0o020666, os.makedev(1, scene.rng.choice([3, 5, 7])))  # null, zero, full
    elif what == "folder":
        path.mkdir()
        (path / "kept.txt").write_text("kept by the user", encoding="utf-8")
    elif what == "file":
        path.write_text("no folder", encoding="utf-8")
    return f"{path.relative_to(scene.model)} is now: {what}"


def deep(scene: Scene) -> str:
    """Folders in folders, deeper than a path may be long."""
    path = a_folder(scene)
    here = Path.cwd()
    os.chdir(path)
    for _ in range(scene.rng.choice([50, 600])):
        os.mkdir("deeper" * 4)  # noqa: PTH102
        os.chdir("deeper" * 4)
    os.chdir(here)
    return f"{path.name}: many folders deep"


def many(scene: Scene) -> str:
    """Thousands of files."""
    path = a_folder(scene)
    for number in range(5000):
        (path / f"many-{number}").touch()
    return f"5000 files in {path.name}"


def size(scene: Scene) -> str:
    """A file that is empty, cut, doubled, or sparse and 10 GiB large."""
    path = scene.rng.choice(everything(scene, files_only=True))
    how, length = scene.rng.choice(["empty", "cut", "doubled", "sparse", "longer"]), path.stat().st_size
    if how == "doubled":
        path.write_bytes(path.read_bytes() * 2)
    else:
        os.truncate(path, {"empty": 0, "cut": scene.rng.randrange(length + 1), "sparse": 10 << 30, "longer": length + 4096}[how])
    return f"{path.relative_to(scene.model)}: {how}"


def permissions(scene: Scene) -> str:
    path, mode = scene.rng.choice([scene.model, *everything(scene)]), scene.rng.choice([0, 0o111, 0o222, 0o444, 0o500, 0o555])
    path.chmod(mode)
    return f"{path.name}: mode {mode:o}"


def immutable(scene: Scene) -> str:
    """chattr +i: not even its owner may change it."""
    path = scene.rng.choice([scene.model, *everything(scene)])
    done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        path.chmod(0o444)
    return f"{path.name}: immutable"
