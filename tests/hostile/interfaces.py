"""Kind 6: a model file whose description of itself is damaged, with checksums that fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.attack import Attack, sign

VALIDATE = "validate {model} --runtime onnxruntime-cpu --limit 20 --no-cache"
ONNX = "exports/onnx-fp32"


def _onnx(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def plant(model: Path) -> None:
        import onnx

        path = model / ONNX / "model.onnx"
        program = onnx.load(path)
        change(program)
        path.write_bytes(program.SerializeToString())
        sign(model / ONNX)

    return plant


def _set(program: Any, key: str, value: str) -> None:
    next(each for each in program.metadata_props if each.key == key).value = value


def _empty_weights(program: Any) -> None:
    """Every weight of two axes or more has no number in it."""
    for tensor in program.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.dims[0] = 0
            tensor.raw_data = b""


def _aimodel(text: str) -> Callable[[Path], None]:
    def plant(model: Path) -> None:
        folder = model / "exports/coreai-fp32"
        (folder / "model.aimodel/metadata.json").write_text(text, encoding="utf-8")
        sign(folder)

    return plant


def _another_hash(model: Path) -> None:
    from PIL import Image

    folder = model / "exports/coreai-fp32"
    (stated,) = folder.rglob("main.hash")
    stated.write_bytes(bytes(32))
    sign(folder)
    Image.new("L", (28, 28)).save(model / "picture.png")


ATTACKS = (
    Attack("a weight of a number format that there is not",
           _onnx(lambda p: setattr(p.graph.initializer[0], "data_type", 999)), VALIDATE, code=1),
    Attack("class labels of 100,000 brackets", _onnx(lambda p: _set(p, "class_labels", "[" * 100_000)), VALIDATE, code=1),
    Attack("class labels that are a number", _onnx(lambda p: _set(p, "class_labels", "9" * 5000)), VALIDATE, code=1),
    Attack("weights without a number", _onnx(_empty_weights), VALIDATE, code=1),
    Attack("a negative size", _onnx(lambda p: p.graph.initializer[0].dims.__setitem__(0, -(2**62))), VALIDATE, code=1),
    Attack("100,000 entries of metadata", _onnx(lambda p: [p.metadata_props.add(key=str(k), value="x") for k in range(100_000)]),
           VALIDATE, code=1, says="entries of metadata"),
    Attack("a Core AI program whose hash is another", _another_hash, "validate {model} --runtime coreai --limit 20 --no-cache", code=1,
           says="was changed after it was written"),
    Attack("a Core AI program whose hash is another, to predict", _another_hash,
           "predict {model} {model}/picture.png --runtime coreai", says="was changed after it was written"),
    Attack("Core AI metadata of 100,000 brackets", _aimodel("[" * 100_000), VALIDATE, code=1),
    Attack("Core AI metadata that is a number", _aimodel("1e400"), VALIDATE, code=1),
)  # fmt: skip
