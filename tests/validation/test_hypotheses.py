"""Each known mistake, made with PyTorch by hand, is named; and what is none of them is not."""

import copy
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.networks import from_checkpoint
from toolkit.validation.hypotheses import name

IMAGES = load("digits").test_images[:32].float()


@pytest.fixture(scope="module")
def classifier(trained):
    return from_checkpoint(Checkpoint.open(trained.checkpoint))


GATE = 1e-3


def logits(classifier, images) -> np.ndarray:
    with torch.inference_mode():
        return classifier(images).numpy()


PIXELS = {
    "the scale is applied twice": lambda x: x / 255,
    "the scale is missing": lambda x: x * 255,
    "inverted": lambda x: 255 - x,
    "mirrored": lambda x: torch.flip(x, [3]),
    "transposed": lambda x: x.permute(0, 1, 3, 2),
    "turned by 180°": lambda x: torch.rot90(x, 2, [2, 3]),
}


@pytest.mark.parametrize("words", PIXELS)
def test_a_mistreated_picture_is_named(classifier, words):
    found = logits(classifier, PIXELS[words](IMAGES))
    assert words in name(classifier, IMAGES.numpy(), found, logits(classifier, IMAGES), GATE)


@pytest.mark.parametrize(("words", "options"), [
    ("aligns corners", {"mode": "bilinear", "align_corners": True}), ("nearest pixel", {"mode": "nearest"}),
    ("bicubic", {"mode": "bicubic"}),
])  # fmt: skip
def test_another_resize_is_named(classifier, words, options):
    resized = functional.interpolate(IMAGES, (32, 32), **options)
    with torch.inference_mode():
        found = classifier.network((resized / 255 - 0.1558) / 0.2774).numpy()
    assert words in name(classifier, IMAGES.numpy(), found, logits(classifier, IMAGES), GATE)


@pytest.mark.parametrize(("words", "mean", "std"), [
    ("ImageNet's mean", 0.449, 0.226), ("mean 0.5", 0.5, 0.5), ("mean is not subtracted", 0.0, 0.2774),
    ("nothing is divided by the standard deviation", 0.1558, 1.0),
])  # fmt: skip
def test_other_constants_are_named(classifier, words, mean, std):
    other = copy.deepcopy(classifier)
    other.mean, other.scale = torch.tensor(255 * mean), torch.tensor(1 / (255 * std))
    assert words in name(classifier, IMAGES.numpy(), logits(other, IMAGES), logits(classifier, IMAGES), GATE)


@pytest.mark.parametrize(("mean", "std"), [(0.25, 0.2774), (0.1558, 0.36), (0.3, 0.2)])
def test_any_other_constants_are_found_and_given(classifier, mean, std):
    other = copy.deepcopy(classifier)
    other.mean, other.scale = torch.tensor(255 * mean), torch.tensor(1 / (255 * std))
    said = name(classifier, IMAGES.numpy(), logits(other, IMAGES), logits(classifier, IMAGES), GATE)
    found = [float(word) for word in re.findall(r"\d\.\d{4}", said)]
    assert found == pytest.approx([mean, std, 0.1558, 0.2774], abs=0.01)


OUTPUTS = {
    "probabilities are given as logits": lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
    "the other sign": lambda x: -x,
    "labels are swapped": lambda x: x[:, [1, 0, *range(2, 10)]],
    "images are in another order": lambda x: np.roll(x, 1, 0),
    "multiplied by 1.5": lambda x: 1.5 * x,
    "bias of the last layer": lambda x: x + np.arange(10),
    "the input does not reach the output": lambda x: np.tile(x[:1] * 0 + 1, (len(x), 1)),
    "NaN or Inf": lambda x: np.where(np.arange(len(x))[:, None] == 3, np.nan, x),
}


@pytest.mark.parametrize("words", OUTPUTS)
def test_a_mistreated_output_is_named(classifier, words):
    truth = logits(classifier, IMAGES)
    assert words in name(classifier, IMAGES.numpy(), OUTPUTS[words](truth), truth, GATE)


def test_noise_is_not_explained_away(classifier):
    truth = logits(classifier, IMAGES)
    noise = np.random.default_rng(0).normal(size=truth.shape)
    assert name(classifier, IMAGES.numpy(), truth + noise, truth, GATE) == ""


def test_channels_in_another_order_are_named():
    from toolkit.networks import Classifier

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 10))
    color = Classifier(network, 8, 0.5, 0.25).eval()
    images = torch.randint(0, 256, (16, 3, 8, 8)).float()
    found = logits(color, images[:, [2, 1, 0]])
    assert "RGB taken for BGR" in name(color, images.numpy(), found, logits(color, images), GATE)
