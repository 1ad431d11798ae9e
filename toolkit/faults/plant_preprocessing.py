"""Faults before the first layer: scale, mean, std, orientation, resize. The preprocessing is inside the file."""

from collections.abc import Callable

import numpy as np

from toolkit.checkpoint import Checkpoint
from toolkit.faults.fault import Plant, Planted, in_file
from toolkit.faults.plant_contract import another_data_set
from toolkit.faults.surgery import Array, Layer, NotApplicable, Surgery

PIXELS = 255.0  # mean and scale are on the scale of the pixels: (x - 255·mean) · 1/(255·std)


def first(surgery: Surgery, kind: str) -> Layer:
    """The preprocessing's own: nothing comes before it."""
    found = surgery.layers(kind)
    if not found:
        raise NotApplicable(f"the preprocessing has no {kind} of its own")
    return found[0]


def number(kind: str, change: Callable[[Array], Array], *words: str) -> Plant:
    """Changes the constant of the preprocessing's `sub` (the mean) or `mul` (the scale)."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        layer = first(surgery, kind)
        layer.set_weight(change(layer.weight()))
        return Planted.at(layer.name, *words)

    return plant


def factor(by: float) -> Callable[[Array], Array]:
    return lambda constant: np.asarray(constant * by)


def pixels(by: float, *words: str) -> Plant:
    """What the normalisation would do to pixels times `by`, written into its constants: (by·x - mean) · scale."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        subtract, multiply = first(surgery, "sub"), first(surgery, "mul")
        subtract.set_weight(np.asarray(subtract.weight().astype(np.float64) / by))
        multiply.set_weight(np.asarray(multiply.weight().astype(np.float64) * by))
        return Planted.at(subtract.name, multiply.name, *words)

    return plant


def picture(kind: str, *words: str, scale: float = 1.0, offset: float = 0.0) -> Plant:
    """Puts an op between the resize and the normalisation."""

    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        name = first(surgery, "resize").name
        if kind == "affine":
            surgery.insert_after(name, scale, offset)
        else:
            surgery.insert(kind, name)
        return Planted.at(name, *words)

    return plant


@in_file
def align_corners(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = first(surgery, "resize")
    layer.set_attribute("align_corners", not layer.attribute("align_corners"))
    return Planted.at(layer.name, "aligns corners", "align_corners")


@in_file
def nearest(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    layer = first(surgery, "resize")
    layer.replace("nearest")
    return Planted.at(layer.name, "nearest")


@in_file
def statistics_of_another_data_set(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    name, mean, std = another_data_set(checkpoint)
    subtract, multiply = first(surgery, "sub"), first(surgery, "mul")
    subtract.set_weight(np.asarray(PIXELS * mean))
    multiply.set_weight(np.asarray(1 / (PIXELS * std)))
    return Planted.at(subtract.name, multiply.name, "another data set", "mean and standard deviation", name)
