"""What goes in and comes out, as `MLModel.predict` of coremltools has it: PIL pictures, arrays, labels, dictionaries.

Source: `coremlpython/CoreMLPythonUtils.mm` of coremltools 9.0: fp16 outputs come back as float32, rank-0 ones with
shape (1,); a picture becomes numbers 0..255 in planes, in the order of the input's colour space; nothing is resized.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toolkit.errors import ArtifactError, DataError
from toolkit.mil.dtypes import DTYPES, FLOATS, INTEGERS
from toolkit.mil.limits import current
from toolkit.mil.program import Program, Type

_COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}  # FeatureTypes.proto ColorSpace
_PLANES = {"GRAYSCALE": ("L", 1), "RGB": ("RGB", 3), "BGR": ("RGB", 3), "GRAYSCALE_FLOAT16": ("F", 1)}  # PIL mode, planes
_FLOAT, _INT = 0x10000, 0x20000  # the kind of ArrayFeatureType.ArrayDataType; the lower bits are its width
Array = np.ndarray[Any, Any]
Range = tuple[int, int | None]  # an axis: at least, at most (None: no limit)


@dataclass(frozen=True)
class Feature:
    """An input or output: its declared type in the program, and what the model description says of it.

    `shapes` are the only ones allowed (enumerated), `ranges` bounds for each axis; neither: the type says it all.
    `default` stands in for an optional input that is not given.
    """

    name: str
    type: Type
    color: str | None = None
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[Range, ...] = ()
    default: float | None = None

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises DataError when the model does not take this shape, in Core ML's own words where it has some."""
        if self.shapes and shape not in self.shapes:
            allowed = ", ".join(map(str, self.shapes))
            text = " x ".join(map(str, shape))
            raise DataError(f"input {self.name!r}: MultiArray Shape ({text}) was not in enumerated set of allowed shapes: {allowed}.")
        if not self.type.allows(shape) or (self.ranges and len(self.ranges) != len(shape)):
            raise DataError(f"input {self.name!r} has shape {shape}, the model takes {self.type}.")
        for axis, (size, (low, high)) in enumerate(zip(shape, self.ranges, strict=False)):
            if size < low or (high is not None and size > high):
                bounds = f"{low}..{-1 if high is None else high}"
                raise DataError(f"input {self.name!r}: Size ({size}) of dimension ({axis}) is not in allowed range ({bounds}).")


def input_features(program: Program) -> tuple[Feature, ...]:
    """The program's inputs with what the model description says of them. Raises ArtifactError when the two differ."""
    declared = {value.name: value.type for value in program.inputs if value.type.dtype != "state"}
    return _features(program, program.interface.input, declared)


def state_types(program: Program) -> dict[str, Type]:
    """The states and what each wraps. Raises ArtifactError when description and program differ."""
    declared = {value.name: value.type.element for value in program.inputs if value.type.dtype == "state"}
    described = {each.name for each in program.interface.state}
    if described != set(declared):
        raise ArtifactError(f"{program.path}: the description names states {sorted(described)}, the program {sorted(declared)}. Damaged.")
    return {name: type_ for name, type_ in declared.items() if type_ is not None}


def output_features(program: Program, types: Mapping[str, Type]) -> dict[str, Feature]:
    """The described outputs that are arrays or pictures. `types`: of what the program returns.

    Raises ArtifactError when one is not computed, or is not what it is described as; what is not described is not returned.
    """
    described = {each.name: each.type for each in program.interface.output}
    if not described:
        raise ArtifactError(f"{program.path}: the description names no output. The file is damaged: export the model again.")
    for name in described:
        if name not in types:
            raise ArtifactError(f"{program.path}: output {name!r} is described but not in the program. Damaged.")
    arrays = {name: each for name, each in described.items() if each.WhichOneof("Type") in ("multiArrayType", "imageType")}
    return {name: _feature(program, name, each, types[name]) for name, each in arrays.items() if types[name].dtype in DTYPES}


def _features(program: Program, described: Any, declared: Mapping[str, Type]) -> tuple[Feature, ...]:
    by_name = {each.name: each.type for each in described}
    if set(by_name) != set(declared):
        raise ArtifactError(
            f"{program.path}: the description names inputs {sorted(by_name)}, the program {sorted(declared)}. "
            "The file is damaged: export the model again."
        )
    return tuple(_feature(program, name, by_name[name], declared[name]) for name in declared)


def _feature(program: Program, name: str, described: Any, declared: Type) -> Feature:
    kind = described.WhichOneof("Type")
    if declared.dtype not in DTYPES:
        raise ArtifactError(f"{program.path}: {name!r} is {declared} in the program, not numbers. The file is damaged.")
    if kind == "multiArrayType":
        return _array_feature(program, name, described.multiArrayType, declared)
    if kind != "imageType":
        raise ArtifactError(f"{program.path}: {name!r} is a {kind}, which an ML Program does not take or return.")
    image = described.imageType
    color = _COLORS.get(image.colorSpace)
    if color is None:
        raise ArtifactError(f"{program.path}: picture {name!r} has colour space number {image.colorSpace}, which is not known.")
    if image.WhichOneof("SizeFlexibility"):
        return Feature(name, declared, color, *_image_sizes(image, _PLANES[color][1]))
    if not declared.allows((1, _PLANES[color][1], image.height, image.width)):
        raise ArtifactError(
            f"{program.path}: picture {name!r} is described as {_PLANES[color][1]} planes of {image.width}x{image.height} pixels, "
            f"the program has {declared}. The file is damaged: export the model again."
        )
    return Feature(name, declared, color)


def _array_feature(program: Program, name: str, array: Any, declared: Type) -> Feature:
    """Core ML converts between float types, and coremltools describes a scalar as [1] or as nothing; else the two must agree."""
    kind = array.WhichOneof("ShapeFlexibility")
    shape = tuple(array.shape)
    is_float, is_int = bool(array.dataType & _FLOAT), bool(array.dataType & _INT)
    if (is_float and declared.dtype in INTEGERS) or (is_int and declared.dtype in FLOATS):
        what = "floats" if is_float else "integers"
        raise ArtifactError(f"{program.path}: {name!r} is described as {what}, the program has {declared}. Export the model again.")
    if shape and not declared.allows(shape) and (shape, declared.shape) != ((1,), ()):
        raise ArtifactError(
            f"{program.path}: {name!r} is described with shape {shape}, the program has {declared}. Export the model again."
        )
    default = array.WhichOneof("defaultOptionalValue")
    return Feature(
        name,
        declared,
        shapes=tuple(tuple(each.shape) for each in array.enumeratedShapes.shapes) if kind == "enumeratedShapes" else (),
        ranges=tuple(_range(each) for each in array.shapeRange.sizeRanges) if kind == "shapeRange" else (),
        default=None if default is None else float(getattr(array, default)),
    )


def _image_sizes(image: Any, planes: int) -> tuple[tuple[tuple[int, ...], ...], tuple[Range, ...]]:
    if image.WhichOneof("SizeFlexibility") == "enumeratedSizes":
        return tuple((1, planes, each.height, each.width) for each in image.enumeratedSizes.sizes), ()
    both = image.imageSizeRange
    return (), ((1, 1), (planes, planes), _range(both.heightRange), _range(both.widthRange))


def _range(proto: Any) -> Range:
    """SizeRange: an upper bound of -1 is none."""
    return proto.lowerBound, proto.upperBound if proto.upperBound >= 0 else None


def encode(feature: Feature, value: Any) -> torch.Tensor:
    """One input as the tensor the program takes. Raises DataError when it is not what the program takes."""
    if feature.color is not None:
        planes = _planes(feature, value)
        feature.check_shape(planes.shape)
        return torch.from_numpy(planes)
    array = host_array(f"input {feature.name!r}", value)
    feature.check_shape(array.shape)
    return torch.from_numpy(_numbers(feature, array))


def host_array(what: str, value: Any) -> Array:
    """`value` as an array of numbers. Raises DataError, naming `what` it is for, for ragged lists, text and tensors with a gradient."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} is no array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} has type {array.dtype}, not numbers.")
    return array


def default(feature: Feature) -> torch.Tensor:
    """What an optional input is when it is not given."""
    shape = feature.shapes[0] if feature.shapes else tuple(low for low, _ in feature.ranges) or feature.type.sizes
    most = current().budget.elements
    if min(shape, default=0) < 0 or math.prod(shape) > most:
        raise ArtifactError(f"the optional input {feature.name!r} has shape {shape[:8]}: at most {most} elements are made up. Give it.")
    return encode(feature, np.full(shape, feature.default))


def encode_many(feature: Feature, value: Any) -> torch.Tensor:
    """N stacked inputs (N, …) as one tensor. For pictures: (N, planes, H, W), whole numbers 0..255, planes in the model's own order."""
    array = host_array(f"input {feature.name!r}", value)
    shape = feature.type.shape or ()
    if shape[:1] != (1,):
        raise DataError(f"input {feature.name!r} has type {feature.type}: no leading axis of 1 to stack along.")
    if array.ndim == 0 or len(array) == 0 or not feature.type.allows((1, *array.shape[1:])):
        want = ", ".join(str(each) for each in ("N", *shape[1:]))
        raise DataError(f"input {feature.name!r} has shape {array.shape}, not ({want}) with N at least 1.")
    feature.check_shape((1, *array.shape[1:]))
    array = _numbers(feature, array)
    whole = feature.color not in (None, "GRAYSCALE_FLOAT16")
    if whole and not bool(((array >= 0) & (array <= 255) & (array == np.rint(array))).all()):
        raise DataError(f"input {feature.name!r} is a picture: whole numbers 0..255 only, found others. Do not scale.")
    return torch.from_numpy(array)


def _planes(feature: Feature, picture: Any) -> Array:
    """A PIL picture as (1, planes, H, W) float32, 0..255 but for GRAYSCALE_FLOAT16."""
    mode, size = getattr(picture, "mode", None), getattr(picture, "size", None)
    assert feature.color is not None
    want, planes = _PLANES[feature.color]
    if mode is None or size is None or not hasattr(picture, "convert"):
        raise DataError(f"input {feature.name!r} takes a PIL picture, not {type(picture).__name__}.")
    if mode != want:
        raise DataError(f"input {feature.name!r} takes a picture of mode {want}, not {mode}: use .convert({want!r}).")
    width, height = size
    if not feature.type.allows((1, planes, height, width)):
        fixed = feature.type.shape or (None,) * 4
        raise DataError(f"input {feature.name!r} takes {fixed[-1]}x{fixed[-2]} pixels, not {size}. Nothing is resized here.")
    pixels = np.array(picture, dtype=np.float32).reshape(height, width, planes)  # a copy: PIL's own memory is read-only
    if feature.color == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


def _numbers(feature: Feature, array: Array) -> Array:
    """Numbers of the kind the program takes; fractions are not quietly cut off for an integer input."""
    if feature.type.dtype in FLOATS:
        return np.require(array, np.float64 if array.dtype.itemsize > 4 else np.float32, ["C", "W"])
    with np.errstate(invalid="ignore"):  # NaN, and what is too large, differ afterwards
        whole = array.astype(DTYPES[feature.type.dtype].numpy)
    if not np.array_equal(whole, array):
        raise DataError(f"input {feature.name!r} takes {feature.type.dtype}; some values do not fit that type.")
    return whole.astype({"uint16": np.int32, "uint32": np.int64}.get(feature.type.dtype, whole.dtype))


def decode(value: torch.Tensor, type_: Type) -> Array:
    """An output as a host array: floats as float64 in exact mode, else float32; rank 0 becomes (1,)."""
    array: Array = value.numpy()
    if type_.dtype in INTEGERS:
        array = array.astype(np.dtype(DTYPES[type_.dtype].numpy))
    return array.reshape(1) if array.ndim == 0 else array


def picture(feature: Feature, value: torch.Tensor) -> Any:
    """An output that is described as a picture: RGBA (as Core ML returns colour), L, or F for GRAYSCALE_FLOAT16.

    Values are clamped to 0..255 and rounded half to even; how Apple's conversion rounds is not documented. What it makes of NaN
    is not either: raises ArtifactError.
    """
    from PIL import Image

    planes = value.float().numpy()[0]
    if feature.color == "GRAYSCALE_FLOAT16":
        return Image.fromarray(planes[0])
    if np.isnan(planes).any():
        raise ArtifactError(f"output {feature.name!r} is a picture, and some of its values are NaN. Look at the program's intermediates.")
    pixels = np.rint(planes.clip(0, 255)).astype(np.uint8)
    if feature.color == "GRAYSCALE":
        return Image.fromarray(pixels[0])
    ordered = pixels[::-1] if feature.color == "BGR" else pixels
    return Image.fromarray(np.dstack([*ordered, np.full_like(pixels[0], 255)]))
