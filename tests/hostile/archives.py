"""Kind 7, through the commands: archives and pictures that are larger than they look."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile.attack import Attack, sign
from tests.hostile.test_pictures_of_strangers import bomb, many_scans
from tests.hostile.test_training_state import large_directory, with_something_after

ONNX = "exports/onnx-fp32"
BENCH = "bench {model} --quick --runtime onnxruntime-cpu"
PREDICT = "predict {model} {model}/a.png"


def _golden(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Another golden.npz, which the manifest then lists."""

    def plant(model: Path) -> None:
        change(model / ONNX / "golden.npz")
        sign(model / ONNX)

    return plant


def no_archive(path: Path) -> None:
    path.write_bytes((path.parent / "model.onnx").read_bytes())


def without_rows(path: Path) -> None:
    np.savez(path, images=np.zeros((0, 1, 28, 28), np.float32), logits=np.zeros((0, 10)))


def _picture(plant: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda model: plant(model / "a.png")


ATTACKS = (
    Attack("golden.npz that is all directory", _golden(large_directory), "verify {model}", code=1, says="in a directory of"),
    Attack("golden.npz with something after it", _golden(with_something_after), "verify {model}", code=1, says="it is no zip archive"),
    *(
        Attack(f"golden.npz that is {what}, before a measurement", _golden(change), BENCH, says=says)
        for what, change, says in (
            ("no archive", no_archive, "no zip archive"),
            ("empty", without_rows, "nothing that can prove a file"),
            ("all directory", large_directory, "in a directory of"),
        )
    ),
    Attack("a FIFO as picture", _picture(os.mkfifo), PREDICT, says="it is a FIFO, not a regular file"),
    Attack("an endless device as picture", _picture(lambda path: path.symlink_to("/dev/zero")), PREDICT, says="it is a device"),
    Attack("a JPEG of 2,000 passes", _picture(many_scans), PREDICT, says="a JPEG of 20.. passes"),
    Attack("a PNG of 30,000 by 30,000", _picture(bomb), PREDICT, says="more pixels than are read"),
)
