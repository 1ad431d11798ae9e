"""Golden inputs and outputs: what travels with an artifact so that it can be proved with the file alone."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from toolkit.data import Dataset, stratified_subset
from toolkit.networks import Classifier

DIGITS, COUNT = 60, 64  # six of each of ten classes, and four made ones


def golden(model: Classifier, data: Dataset) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """(images (64, C, H, W) float32 0..255, logits (64, classes) float64 as PyTorch computes them in float64)."""
    images = torch.from_numpy(golden_images(data))
    with torch.inference_mode():
        logits = copy.deepcopy(model).double()(images.double())
    return images.numpy(), logits.numpy()


def golden_images(data: Dataset) -> "np.ndarray[Any, Any]":
    """(64, C, H, W) float32 0..255: test images evenly over the classes, then the ends of the range (`made_images`)."""
    chosen = data.test_images[stratified_subset(data.test_labels, DIGITS)].float()
    return np.concatenate([chosen.numpy(), made_images(chosen.shape[1:])])


def made_images(shape: Sequence[int]) -> "np.ndarray[Any, Any]":
    """(4, C, H, W) float32: black, white, a ramp and a checkerboard."""
    channels, height, width = shape
    ramp = torch.linspace(0, 255, height * width).round().reshape(height, width)
    board = 255.0 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2)
    made = [torch.zeros(height, width), torch.full((height, width), 255.0), ramp, board]
    return torch.stack(made)[:, None].expand(-1, channels, -1, -1).numpy()
