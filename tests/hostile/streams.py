"""Kind 7: what is no regular file must not be waited for."""

import os

from tests.hostile.attack import Attack

ATTACKS = (
    Attack(
        "a pipe where a model file should be",
        lambda model: os.mkfifo(model / "x.onnx"),
        "bench {model}/x.onnx --quick --out {out}/bench.json",
        says="neither a file nor a folder",
    ),
)
