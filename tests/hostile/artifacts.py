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


def _says(**fields: object) -> Callable[[Path], None]:
    return lambda model: edit_manifest(model / PLACE, **fields)


def _lists(*names: str) -> Callable[[Path], None]:
    return lambda model: edit_manifest(model / PLACE, files=dict.fromkeys(names, "0" * 64))


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
FIELDS: tuple[tuple[str, dict[str, object]], ...] = (
    ("an accuracy of 7", {"test_accuracy": 7}),
    ("an accuracy of 1e400", {"test_accuracy": float("inf")}),
    ("an accuracy that is NaN", {"test_accuracy": float("nan")}),
    ("a model's name of a megabyte", {"model": "x" * (1 << 20)}),
    ("a million labels", {"class_labels": ["x"] * 1_000_000}),
    ("a label of a megabyte", {"class_labels": ["x", "y" * (1 << 20)]}),
    ("20,000 files", {"files": {str(number): "0" for number in range(20_000)}}),
    ("an input of 100 axes", {"inputs": [{"name": "image", "shape": [1] * 100, "dtype": "float32"}]}),
    ("an input without an element", {"inputs": [{"name": "image", "shape": [-1, 0, 28, 28], "dtype": "float32"}]}),
    ("an input of 2^62", {"inputs": [{"name": "image", "shape": [1 << 62], "dtype": "float32"}]}),
    ("an output from NaN", {"outputs": [{"name": "logits", "shape": [-1, 10], "dtype": "float32", "low": float("nan")}]}),
)
NAMES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("a name that goes up", ("a/../../x",), "outside the artifact"),
    ("an absolute name", ("/etc/passwd",), "outside the artifact"),
    ("a name of Windows that goes up", ("..\\x",), "outside the artifact"),
    ("a device of Windows", ("golden.npz", "con.txt"), "no name of a file on every computer"),
    ("a stream of Windows", ("golden.npz", "model.onnx:x"), "no name of a file on every computer"),
    ("a name that ends in a dot", ("golden.npz", "model.onnx."), "no name of a file on every computer"),
    ("a name with a line break", ("golden.npz", "a\nb"), "no name of a file on every computer"),
    ("a name with an ESC sequence", ("golden.npz", "a\x1b[2Kb"), "no name of a file on every computer"),
    ("a name that is written in another way", ("golden.npz", "./model.onnx"), "no name of a file on every computer"),
    ("two names that differ in case", ("golden.npz", "Model.onnx", "model.onnx"), "are one file on a Mac"),
    ("two names that differ in accents", ("caf\u00e9", "cafe\u0301"), "are one file on a Mac"),
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
    *(Attack(f"a manifest that says {name}", _says(**fields), INSPECT, says="manifest.json cannot be read") for name, fields in FIELDS),
    *(Attack(f"a manifest that lists {name}", _lists(*names), INSPECT, says=says) for name, names, says in NAMES),
)
