"""What goes in and comes out, as `MLModel.predict` of coremltools has it: PIL pictures, arrays, labels, dictionaries.

Source: `coremlpython/CoreMLPythonUtils.mm` of coremltools 9.0: fp16 outputs come back as float32, rank-0 ones with
shape (1,); a picture becomes numbers 0..255 in planes, in the order of the input's colour space; nothing is resized.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolkit.errors import ArtifactError, DataError
from toolkit.mil.program import Program, Type

_COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}  # FeatureTypes.proto ColorSpace
_PLANES = {"GRAYSCALE": ("L", 1), "RGB": ("RGB", 3), "BGR": ("RGB", 3)}  # PIL mode, number of planes
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Feature:
    """An input: its declared type in the program, and its colour space when it is a picture."""

    name: str
    type: Type
    color: str | None = None


def input_features(program: Program) -> tuple[Feature, ...]:
    """The program's inputs with what the model description says of them. Raises ArtifactError when the two differ."""
    described = {each.name: each.type for each in program.interface.input}
    declared = {value.name: value.type for value in program.inputs}
    if len(program.interface.state):
        raise ArtifactError(f"{program.path}: the model has state, which is not supported yet.")
    if set(described) != set(declared):
        raise ArtifactError(
            f"{program.path}: the description names inputs {sorted(described)}, the program {sorted(declared)}. "
            "The file is damaged: export the model again."
        )
    return tuple(_feature(program, name, described[name], declared[name]) for name in declared)


def check_outputs(program: Program) -> None:
    """Raises ArtifactError when the description promises an output the program lacks, or a picture."""
    for each in program.interface.output:
        if each.name not in program.outputs:
            raise ArtifactError(f"{program.path}: output {each.name!r} is described but not in the program. Damaged.")
        if each.type.WhichOneof("Type") == "imageType":
            raise ArtifactError(f"{program.path}: output {each.name!r} is a picture, which is not supported yet.")


def _feature(program: Program, name: str, described: Any, declared: Type) -> Feature:
    kind = described.WhichOneof("Type")
    if kind == "multiArrayType":
        return Feature(name, declared)
    if kind != "imageType":
        raise ArtifactError(f"{program.path}: input {name!r} is a {kind}, which is not supported.")
    image = described.imageType
    color = _COLORS.get(image.colorSpace, f"number {image.colorSpace}")
    if color not in _PLANES or image.WhichOneof("SizeFlexibility"):
        raise ArtifactError(f"{program.path}: picture {name!r} with colours {color} or a flexible size: not supported.")
    expected = (1, _PLANES[color][1], image.height, image.width)
    if declared.shape != expected:
        raise ArtifactError(
            f"{program.path}: picture {name!r} is described as {list(expected)}, the program takes {declared}. "
            "The file is damaged: export the model again."
        )
    return Feature(name, declared, color)


def encode(feature: Feature, value: Any) -> torch.Tensor:
    """One input as the tensor the program takes. Raises DataError when it is not what the program takes."""
    if feature.color is not None:
        return torch.from_numpy(_planes(feature, value))
    array = np.asarray(value)
    if array.shape != feature.type.shape:
        raise DataError(f"input {feature.name!r} has shape {array.shape}, the model takes {feature.type.shape}.")
    return torch.from_numpy(_numbers(feature, array))


def encode_many(feature: Feature, value: Any) -> torch.Tensor:
    """N stacked inputs (N, …) as one tensor. For pictures: (N, planes, H, W), whole numbers 0..255."""
    array = np.asarray(value)
    if feature.type.shape[:1] != (1,):
        raise DataError(f"input {feature.name!r} has shape {feature.type.shape}: no leading axis of 1 to stack along.")
    if array.shape[1:] != feature.type.shape[1:] or len(array) == 0:
        want = ", ".join(str(each) for each in ("N", *feature.type.shape[1:]))
        raise DataError(f"input {feature.name!r} has shape {array.shape}, not ({want}) with N at least 1.")
    array = _numbers(feature, array)
    if feature.color is not None and not bool(((array >= 0) & (array <= 255) & (array == np.rint(array))).all()):
        raise DataError(f"input {feature.name!r} is a picture: whole numbers 0..255 only, found others. Do not scale.")
    return torch.from_numpy(array)


def _planes(feature: Feature, picture: Any) -> Array:
    """A PIL picture as (1, planes, H, W) float32, 0..255."""
    mode, size = getattr(picture, "mode", None), getattr(picture, "size", None)
    assert feature.color is not None
    want = _PLANES[feature.color][0]
    height, width = feature.type.shape[-2:]
    if mode is None or not hasattr(picture, "convert"):
        raise DataError(f"input {feature.name!r} takes a PIL picture, not {type(picture).__name__}.")
    if mode != want:
        raise DataError(f"input {feature.name!r} takes a picture of mode {want}, not {mode}: use .convert({want!r}).")
    if size != (width, height):
        raise DataError(f"input {feature.name!r} takes {width}x{height} pixels, not {size}. Nothing is resized here.")
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, -1)
    if feature.color == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


def _numbers(feature: Feature, array: Array) -> Array:
    """Numbers of the kind the program takes; fractions are not quietly cut off for an integer input."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"input {feature.name!r} has type {array.dtype}, not numbers.")
    if feature.type.dtype.startswith("fp"):
        return np.ascontiguousarray(array, dtype=np.float64 if array.dtype.itemsize > 4 else np.float32)
    whole = array.astype(feature.type.dtype)
    if not np.array_equal(whole, array):
        raise DataError(f"input {feature.name!r} takes {feature.type.dtype}; some values do not fit that type.")
    return whole


def decode(value: torch.Tensor) -> Array:
    """An output as a host array: float64 in exact mode, float32 otherwise; rank 0 becomes (1,)."""
    array = value.numpy()
    return array.reshape(1) if array.ndim == 0 else array
