"""Golden inputs and outputs: what travels with an artifact so that it can be proved with the file alone."""

import copy
from typing import Any

import numpy as np
import torch

from toolkit.data import Dataset, stratified_subset
from toolkit.networks import Classifier

DIGITS, COUNT = 60, 64  # six of each of ten classes, and four made ones


def golden(model: Classifier, data: Dataset) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """(images (64, C, H, W) float32 0..255, logits (64, classes) float64 as PyTorch computes them in float64).

    Test images evenly over the classes, then the ends of the range: black, white, a ramp and a checkerboard.
    """
    chosen = data.test_images[stratified_subset(data.test_labels, DIGITS)].float()
    _, channels, height, width = chosen.shape
    ramp = torch.linspace(0, 255, height * width).round().reshape(height, width)
    board = 255.0 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2)
    made = [torch.zeros(height, width), torch.full((height, width), 255.0), ramp, board]
    images = torch.cat([chosen, torch.stack(made)[:, None].expand(-1, channels, -1, -1)])
    with torch.inference_mode():
        logits = copy.deepcopy(model).double()(images.double())
    return images.numpy(), logits.numpy()
