"""Why do logits differ? Known mistakes are made on purpose with PyTorch, and the one that gives the very same logits is named.

Most failures in the field are of the input (scale, mean, channels, resize) or of the output (order of labels, softmax
twice); each is a line of a table here.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from toolkit.networks import Classifier
from toolkit.validation.metrics import log_softmax

Array = np.ndarray[Any, Any]
CLOSE = 0.02  # of the size of the logits: rounding to fp16 is far below, and any other mistake far above
NEAR = 5.0  # times CLOSE on a few images: worth to be made of all
FEW = 8  # images that a mistake is tried on first: most of them are seen not to fit at once
BETTER = 5.0  # and so many times closer than without the mistake
STEP = 1e-3  # of a fit: when a step gains less than this share, no mean and no standard deviation will do


def name(classifier: Classifier, images: Array, found: Array, truth: Array, allowed: float | None, fit: bool = True) -> str:
    """The mistake that explains `found` (N, classes) for `images` (N, C, H, W); empty where none does. `truth`: PyTorch's logits.

    `allowed`: the gate of the logits. A fit with free parameters must come that close: it comes near to anything. `fit` False:
    none is tried, for it takes as long as everything else.
    """
    if not np.isfinite(found).all():
        rows = int((~np.isfinite(found)).any(1).sum())
        return f"{rows} of {len(found)} images give NaN or Inf: a value overflowed, or a weight is no number"
    few = np.unique(np.linspace(0, len(images) - 1, FEW).astype(int))  # from end to end: the last golden ones are made
    x, part = torch.from_numpy(images).float(), torch.from_numpy(images[few]).float()
    best, sentence = _distance(found, truth) / BETTER, ""
    near: list[tuple[str, Array]] = []
    with torch.inference_mode():
        for text, make in _inputs(classifier, images.shape[1]):
            if _distance(found[few], make(part).numpy()) < NEAR * CLOSE:
                near.append((text, make(x).numpy()))
    for text, made in [*near, *_outputs(found, truth)]:
        if (distance := _distance(found, made)) < min(best, CLOSE):
            best, sentence = distance, text
    if sentence or not fit or allowed is None:
        return sentence
    return _fitted(classifier, x, part, found, found[few], allowed)


def _distance(found: Array, made: Array) -> float:
    """Relative to the larger of the two; inf where `made` is no number."""
    size = max(float(np.linalg.norm(made)), float(np.linalg.norm(found)), 1e-30)
    distance = float(np.linalg.norm(found - made)) / size
    return distance if np.isfinite(distance) else float("inf")


def _inputs(classifier: Classifier, channels: int) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """(what is said, what PyTorch computes when the input is mistreated so)."""
    mean, scale, size = classifier.mean, classifier.scale, classifier.size

    def network(resized: Tensor, mean: Tensor = mean, scale: Tensor = scale) -> Tensor:
        return classifier.network((resized - mean) * scale)  # type: ignore[no-any-return]

    def usual(x: Tensor) -> Tensor:
        return functional.interpolate(x, size=(size, size), mode="bilinear")

    for text, change in PIXELS.items():
        yield text, _then(change, classifier)
    if channels == 3:
        yield "outputs match if the channels are swapped: RGB taken for BGR", lambda x: classifier(x.flip(1))
    for text, resize in RESIZES.items():
        yield text, _then(_sized(resize, size), network)
    others = {text: (torch.tensor(255 * one), torch.tensor(1 / (255 * other))) for text, (one, other) in CONSTANTS.items()}
    others |= {
        "outputs match if the mean is not subtracted": (torch.tensor(0.0), scale),
        "outputs match if nothing is divided by the standard deviation": (mean, torch.tensor(1 / 255)),
        "outputs match if the pixels are taken for numbers 0..1 already: the scale of 1/255 is missing": (mean / 255, scale * 255),
    }
    for text, constants in others.items():
        yield text, _then(usual, partial(network, mean=constants[0], scale=constants[1]))
    yield "outputs match if mean and standard deviation are applied twice", lambda x: network((usual(x) - mean) * scale)


def _then(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: other(one(x))


def _sized(resize: Callable[[Tensor, int], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    return lambda x: resize(x, size)


def _fitted(classifier: Classifier, images: Tensor, few: Tensor, found: Array, of_few: Array, allowed: float) -> str:
    """Any other mean and standard deviation: found by least squares on a few images, and believed if all images bear it out."""
    from scipy.optimize import least_squares

    other = copy.deepcopy(classifier)
    before = (float(classifier.mean) / 255, 1 / (255 * float(classifier.scale)))

    def residual(parameters: Array, x: Tensor, logits: Array) -> Array:
        other.mean, other.scale = torch.tensor(255 * parameters[0]), torch.tensor(1 / (255 * parameters[1]))
        with torch.inference_mode():
            difference: Array = other(x.float()).numpy().astype(np.float64) - logits
        return difference.reshape(-1)

    bounds = ([-1.0, 1e-4], [2.0, 5.0])
    start = np.clip(before, *bounds)
    fit = least_squares(residual, start, bounds=bounds, diff_step=1e-3, max_nfev=30, ftol=STEP, args=(few, of_few))
    if [f"{value:.4f}" for value in fit.x] == [f"{value:.4f}" for value in before]:
        return ""  # these constants are right: something else is wrong
    if not np.abs(residual(fit.x, images, found)).max() <= 2 * allowed:  # float32 here, the file's own rounding there
        return ""
    mean, std = fit.x
    return (
        f"outputs match with mean {mean:.4f} and standard deviation {std:.4f} (PyTorch: {before[0]:.4f} and {before[1]:.4f}): "
        "the mean or the standard deviation is wrong"
    )


PIXELS: dict[str, Callable[[Tensor], Tensor]] = {
    "outputs match if the input is divided by 255 once more: the scale is applied twice": lambda x: x / 255,
    "outputs match if the input is multiplied by 255: the scale is missing": lambda x: x * 255,
    "outputs match if the picture is inverted: dark strokes taken for light ones": lambda x: 255 - x,
    "outputs match if the picture is mirrored, left to right": lambda x: x.flip(3),
    "outputs match if the picture is upside down": lambda x: x.flip(2),
    "outputs match if rows and columns are swapped: the picture is transposed": lambda x: x.transpose(2, 3),
    "outputs match if the picture is turned by 180°": lambda x: x.flip(2, 3),
    "outputs match if the picture is black: the input does not reach the network": lambda x: x * 0,
}
RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "outputs match if the resize aligns corners": lambda x, size: functional.interpolate(
        x, (size, size), mode="bilinear", align_corners=True
    ),
    "outputs match if the resize takes the nearest pixel": lambda x, size: functional.interpolate(x, (size, size), mode="nearest"),
    "outputs match if the resize takes the nearest pixel (half-pixel centres)": lambda x, size: functional.interpolate(
        x, (size, size), mode="nearest-exact"
    ),
    "outputs match if the resize is bicubic": lambda x, size: functional.interpolate(x, (size, size), mode="bicubic"),
    "outputs match if the picture is padded instead of resized": lambda x, size: functional.pad(
        x, [(size - x.shape[3]) // 2, -(-(size - x.shape[3]) // 2), (size - x.shape[2]) // 2, -(-(size - x.shape[2]) // 2)]
    ),
}
CONSTANTS = {
    "outputs match with the digits' mean and standard deviation (0.1558, 0.2774): those of another data set": (
        0.1558,
        0.2774,
    ),  # mean and standard deviation that people know by heart, on a scale of 0..1
    "outputs match with MNIST's mean and standard deviation (0.1307, 0.3081): those of another data set": (0.1307, 0.3081),
    "outputs match with mean 0.5 and standard deviation 0.5: those of another data set": (0.5, 0.5),
    "outputs match with ImageNet's mean and standard deviation (0.449, 0.226): those of another data set": (0.449, 0.226),
    "outputs match with Fashion-MNIST's mean and standard deviation (0.2860, 0.3530): those of another data set": (0.2860, 0.3530),
}


def _outputs(found: Array, truth: Array) -> list[tuple[str, Array]]:
    """What would be found if the right logits were mistreated."""
    probabilities = np.exp(log_softmax(truth))
    rows = [
        ("outputs match if the logits went through softmax: probabilities are given as logits", probabilities),
        ("outputs match if the logits went through log_softmax", log_softmax(truth)),
        ("outputs match if all logits have the other sign", -truth),
    ]
    columns = [_nearest(found[:, column], truth.T) for column in range(truth.shape[1])]
    if len(set(columns)) == truth.shape[1] and columns != sorted(columns):
        rows.append(
            (f"outputs match if the classes are in another order ({' '.join(map(str, columns))}): labels are swapped", truth[:, columns])
        )
    images = [_nearest(row, truth) for row in found]
    if images != list(range(len(found))) and len(set(images)) == len(images):
        rows.append(("outputs match if the images are in another order", truth[images]))
    if len(found) > 1 and np.allclose(found, found[:1], atol=1e-6 * max(1.0, float(np.abs(truth).max()))):
        rows.append(("all images give the same logits: the input does not reach the output", found))
    factor = float((found * truth).sum() / max((truth * truth).sum(), 1e-30))
    rows.append((f"outputs match if all logits are multiplied by {factor:.4g}: a scale of the last layer", factor * truth))
    shift = (found - truth).mean(0)
    rows.append(("outputs match if a constant is added to each class: the bias of the last layer", truth + shift))
    return rows


def _nearest(row: Array, rows: Array) -> int:
    return int(np.linalg.norm(rows - row, axis=1).argmin())
