"""Kind 9: what a command reads is never what it writes, and a result replaces only a result of its own kind."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.hostile.attack import Attack

ONNX = "exports/onnx-fp32/model.onnx"
READ, THERE = r"would be written over", r"is there already, and is no (measurement|JUnit file) of the toolkit"


def copied(name: str) -> Callable[[Path], object]:
    return lambda model: shutil.copy(model / ONNX, model / name)


def hard_link(model: Path) -> None:
    shutil.copy(model / ONNX, model / "x.onnx")
    (model / "same.json").hardlink_to(model / "x.onnx")


def package(model: Path) -> None:
    shutil.copytree(model / "exports/coreml-fp16/model.mlpackage", model / "x.mlpackage")


def letter(model: Path) -> None:
    copied("x.onnx")(model)
    (model / "letter.json").write_text('{"dear": "diary"}', encoding="utf-8")


BENCH = "bench {model}/x.onnx --quick --runtime onnxruntime-cpu --out "
JUNIT = "validate {model} --limit 5 --artifact onnx-fp32 --junit "
ATTACKS = (
    Attack("a measurement over the model", copied("x.onnx"), BENCH + "{model}/x.onnx", says=READ, spares=True),
    Attack("a measurement over a hard link to the model", hard_link, BENCH + "{model}/same.json", says=READ, spares=True),
    Attack(
        "a measurement into the package", package, "bench {model}/x.mlpackage --out {model}/x.mlpackage/new.json", says=READ, spares=True
    ),
    Attack("a measurement over another file", letter, BENCH + "{model}/letter.json", says=THERE, spares=True),
    Attack("JUnit over the recipe", lambda model: None, JUNIT + "{model}/recipe.toml", says=READ, spares=True),
    Attack("JUnit over weights", lambda model: None, JUNIT + "{model}/checkpoint/model.safetensors", says=READ, spares=True),
    Attack("JUnit into an artifact", lambda model: None, JUNIT + "{model}/exports/onnx-fp32/new.xml", says=READ, spares=True),
    Attack("JUnit over another file", letter, JUNIT + "{model}/letter.json", says=THERE, spares=True),
    Attack("JUnit into a folder that is a file", letter, JUNIT + "{model}/letter.json/x.xml", says="Not a directory", spares=True),
)
