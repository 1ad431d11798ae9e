"""Kind 7, through the commands: archives and pictures that are larger than they look."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.attack import Attack, sign
from tests.hostile.test_pictures_of_strangers import bomb, many_scans
from tests.hostile.test_training_state import large_directory, with_something_after

ONNX = "exports/onnx-fp32"
PREDICT = "predict {model} {model}/a.png"


def _golden(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Another golden.npz, which the manifest then lists."""

    def plant(model: Path) -> None:
        change(model / ONNX / "golden.npz")
        sign(model / ONNX)

    return plant


def _picture(plant: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda model: plant(model / "a.png")


ATTACKS = (
    Attack("golden.npz that is all directory", _golden(large_directory), "verify {model}", code=1, says="in a directory of"),
    Attack("golden.npz with something after it", _golden(with_something_after), "verify {model}", code=1, says="it is no zip archive"),
    Attack("a FIFO as picture", _picture(os.mkfifo), PREDICT, says="it is a FIFO, not a regular file"),
    Attack("an endless device as picture", _picture(lambda path: path.symlink_to("/dev/zero")), PREDICT, says="it is a device"),
    Attack("a JPEG of 2,000 passes", _picture(many_scans), PREDICT, says="a JPEG of 20.. passes"),
    Attack("a PNG of 30,000 by 30,000", _picture(bomb), PREDICT, says="more pixels than are read"),
)
