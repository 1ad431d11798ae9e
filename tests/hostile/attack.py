"""What an attack is, and how it is carried out. To add one: a line in a table of this folder (deleting.py, words.py, …).

Each attack gets a copy of the tiny model (recipe, checkpoint, exports, reports) in a folder of its own, changes something in it, and
runs one command. Judged of every attack: the exit code, what is said, no traceback, no process left behind, and that nothing
outside the model's folder was changed.
"""

import hashlib
import json
import os
import re
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

BAD_INPUT = 2


@dataclass(frozen=True)
class Attack:
    """One line of a table.

    `plant(model)` changes the copy of the model's folder. `command`: words of the command line; `{model}` is that folder, `{out}` a
    folder beside it to write into. `says`: a regular expression that standard output and error together must match.
    """

    name: str
    plant: Callable[[Path], object]
    command: str
    code: int = BAD_INPUT
    says: str = ""
    spares: bool = False  # nothing inside the model's folder is changed either
    unsaid: str = r"(?!)"  # a regular expression that must not match


def edit_manifest(folder: Path, **fields: object) -> None:
    """Changes fields of an artifact's manifest; `files`: names that are added."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    files = manifest["files"] | dict(fields.pop("files", {}))  # type: ignore[call-overload]
    path.write_text(json.dumps(manifest | fields | {"files": files}), encoding="utf-8")


def sign(folder: Path) -> None:
    """Hashes all files of an artifact again, as whoever changes one of them can."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    files = {each.relative_to(folder).as_posix(): each for each in folder.rglob("*") if each.is_file() and each.name != path.name}
    manifest["files"] = {name: hashlib.sha256(each.read_bytes()).hexdigest() for name, each in sorted(files.items())}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def digest(root: Path, leave_out: Path) -> dict[str, str]:
    """Path → what is there (type, mode, sha256 or target), of all below `root` but `leave_out`. Links are not followed."""
    found = {}
    for folder, names, files in os.walk(root):
        if Path(folder) == leave_out:
            names.clear()
            continue
        for name in [*names, *files]:
            path = Path(folder) / name
            if path == leave_out:
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                what = f"link to {path.readlink()}"
            elif stat.S_ISREG(mode):
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                what = "other"
            found[str(path.relative_to(root))] = f"{oct(mode)} {what}"
    return found


def carry_out(attack: Attack, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Plants it, runs its command in this process, and judges. The canary is all that lies beside the model's folder."""
    from toolkit.cli import main

    home = model.parents[1]
    out = home / "out"
    out.mkdir()
    attack.plant(model)
    before, inside = digest(home, model), digest(model, out)
    there = psutil.Process().children()  # of tests before this one, such as multiprocessing's resource tracker
    capfd.readouterr()
    words = [word.format(model=model, out=out) for word in shlex.split(attack.command)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = "".join(capfd.readouterr())
    code = ended.value.code or 0
    assert code == attack.code, f"exit code {code}, not {attack.code}:\n{said[-2000:]}"
    assert "Traceback" not in said, said[-3000:]
    assert re.search(attack.says, said), f"nothing like {attack.says!r} in:\n{said[-2000:]}"
    assert not re.search(attack.unsaid, said), f"{attack.unsaid!r} was said:\n{said[-2000:]}"
    assert "\x1b" not in said, "an ESC sequence reached the terminal"
    after = {name: what for name, what in digest(home, model).items() if not name.startswith("out/")}
    assert after == before, "something outside the model's folder was changed"
    assert not attack.spares or digest(model, out) == inside, "something inside the model's folder was changed"
    left = [child for child in psutil.Process().children() if child not in there and child.status() != psutil.STATUS_ZOMBIE]
    assert left == [], "a process was left"
