"""Edits a model file whatever its format, so that a fault is written once. Two implementations: ONNX and Core ML."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from toolkit.artifact import Manifest

Array = np.ndarray[Any, Any]
KINDS = ("conv", "linear", "relu", "add", "pool", "softmax", "resize", "sub", "mul")
INSERTS = ("affine", "transpose", "mirror", "softmax", "half")


class NotApplicable(Exception):
    """A fault that this network, or this file, has no place for; the message is the reason."""


class Layer(Protocol):
    """One op. `inputs` are the values it computes with, constants left out.

    Attributes go by common words: `pads` (top, bottom, left, right), `strides` and `dilations` (height, width) in elements,
    `axis`, `align_corners`. What the op does not have raises NotApplicable.
    """

    kind: str

    @property
    def name(self) -> str:
        """The value that the op computes: what a debugger names."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    def weight(self) -> Array:
        """A copy: conv (out, in/groups, h, w), linear (out, in), the constant operand () of sub and mul; in the stored type."""

    def set_weight(self, array: Array) -> None:
        """Same shape; rounded to the stored type."""

    def bias(self) -> Array:
        """(out,), a copy. Raises NotApplicable where there is none."""

    def set_bias(self, array: Array) -> None: ...

    def attribute(self, name: str) -> Any: ...

    def set_attribute(self, name: str, value: Any) -> None: ...

    def replace(self, kind: str, **constants: float) -> None:
        """relu → identity | clip (low, high) | leaky_relu (slope); pool → max_pool; resize → nearest; add → identity (its first input)."""

    def rewire(self, position: int, value: str) -> None:
        """The input at `position` becomes another value."""


class Surgery(Protocol):
    """A model file in memory; `save` writes it over the old one. It does not touch the manifest (see fault.sign)."""

    def layers(self, kind: str) -> list[Layer]:
        """In the order of the program. `sub` and `mul` are those with one constant number as operand, `add` those with none."""

    def shape(self, value: str) -> tuple[int | None, ...]:
        """None for an axis that is not fixed, such as the batch. Raises NotApplicable where the file does not say."""

    def set_shape(self, value: str, shape: tuple[int | None, ...]) -> None:
        """What the file declares of a value, where it declares anything."""

    def insert(self, kind: str, value: str, **constants: float) -> None:
        """An op of INSERTS after `value`, which is from now on what the new op computes, for all that read it."""

    def insert_after(self, name: str, scale: float, offset: float) -> None:
        """value · scale + offset."""

    def rename_output(self, old: str, new: str) -> None: ...

    def swap_outputs(self, one: str, other: str) -> None:
        """Each output of the model gets the other's name; what is computed from them inside stays."""

    def labels(self) -> list[str]: ...

    def set_labels(self, labels: list[str]) -> None:
        """In the file; any number of them."""

    def set_metadata(self, key: str, value: str) -> None:
        """`description`, or a key of the format's own table of strings."""

    def set_input_shape(self, shape: tuple[int | None, ...]) -> None:
        """(N, C, H, W) of the first input, as the file declares it."""

    def save(self) -> None: ...


def open_surgery(copy: Path, manifest: Manifest) -> Surgery:
    """The model file of a copied artifact. Raises NotApplicable for a format that cannot be edited."""
    if manifest.format == "onnx":
        from toolkit.faults.onnx_surgery import OnnxSurgery

        return OnnxSurgery(copy / manifest.entry)
    if manifest.format == "coreml":
        from toolkit.faults.coreml_surgery import CoremlSurgery

        return CoremlSurgery(copy / manifest.entry)
    raise NotApplicable(f"no surgery for {manifest.format} files")


def fresh(name: str, taken: Collection[str]) -> str:
    """A name like that one that no value has yet."""
    return name if name not in taken else next(f"{name}_{number}" for number in range(2, len(taken) + 3) if f"{name}_{number}" not in taken)


def fits(found: Array, wanted: Array) -> Array:
    """`wanted` as the stored type of `found`. Raises ValueError when the shapes differ: a fault of the planting code."""
    if found.shape != np.shape(wanted):
        raise ValueError(f"shape {np.shape(wanted)} for a stored tensor of shape {found.shape}")
    with np.errstate(over="ignore"):
        return np.asarray(wanted).astype(found.dtype)
