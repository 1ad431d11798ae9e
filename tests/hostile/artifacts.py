"""Kind 9: an artifact whose folder or manifest holds what no export of ours has written."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.attack import Attack, edit_manifest

INSPECT = "inspect {model}/exports/onnx-fp32"
PLACE = Path("exports/onnx-fp32")


def _there(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something of that kind into the artifact's folder, which the manifest does not list."""

    def plant(model: Path) -> None:
        make(model / PLACE / "extra")

    return plant


def _wears(make: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    """Puts something of that kind in the place of a file of the artifact."""

    def plant(model: Path) -> None:
        (model / PLACE / name).rename(model / "kept")
        make(model / PLACE / name)

    return plant


def _socket(path: Path) -> None:
    os.mknod(path, 0o140644)


def _deep(path: Path) -> None:
    (path / "/".join("d" * 200)).mkdir(parents=True)


KINDS: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("a linked folder", lambda path: path.symlink_to("../../../../victim/Documents"), "extra is a link"),
    ("a link to a file", lambda path: path.symlink_to("../../../../victim/emacs/init.el"), "extra is a link"),
    ("a link to itself", lambda path: path.symlink_to("extra"), "extra is a link"),
    ("a link to nowhere", lambda path: path.symlink_to("nowhere"), "extra is a link"),
    ("a link to a file of the artifact", lambda path: path.symlink_to("model.onnx"), "extra is a link"),
    ("a FIFO", os.mkfifo, "extra is a FIFO"),
    ("a socket", _socket, "extra is a socket"),
    ("a file", Path.touch, "extra is not in the manifest"),
    ("200 folders in one another", _deep, "more than 16 folders in one another"),
)
ATTACKS = (
    *(Attack(f"{name} in an artifact", _there(make), INSPECT, says=says) for name, make, says in KINDS),
    *(
        Attack(
            f"{kind} in the place of {name}", _wears(make, name), INSPECT, says=f"{name} is {says}|{name} is missing|is neither an artifact"
        )
        for name in ("model.onnx", "manifest.json")
        for kind, make, says in (
            ("a FIFO", os.mkfifo, "a FIFO"),
            ("a folder", Path.mkdir, "a folder"),
            ("a link", lambda path: path.symlink_to("../../kept"), "a link"),
        )
    ),
    Attack(
        "a manifest that says an accuracy of 7", lambda model: edit_manifest(model / PLACE, test_accuracy=7), INSPECT, says="test_accuracy"
    ),
)
