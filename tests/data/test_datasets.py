"""The embedded digits, where data lies, and subsets with evenly many images of each class."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from toolkit.data import DATASETS, load, stratified_subset
from toolkit.data.datasets import default_data_dir
from toolkit.errors import DataError
from toolkit.recipe import Recipe
from toolkit.workspace import shipped_folder


@pytest.fixture(scope="module")
def digits():
    return load("digits", Path("nowhere"), download=False)


def test_there_are_1797_digits_split_1437_to_360(digits):
    assert (digits.train_images.shape, digits.test_images.shape) == ((1437, 1, 28, 28), (360, 1, 28, 28))
    assert (digits.train_images.dtype, digits.train_labels.dtype) == (torch.uint8, torch.int64)
    assert digits.classes == tuple("0123456789")


def test_every_image_of_sklearn_is_there_once_and_with_its_label(digits):
    ours = torch.cat([digits.train_images, digits.test_images])[:, 0, 4:24, 4:24].numpy()
    labels = torch.cat([digits.train_labels, digits.test_labels]).numpy()
    theirs = sklearn.datasets.load_digits()
    scaled = np.stack([_bilinear(image * 255 / 16, 20) for image in theirs.images])
    order = cdist(ours.reshape(1797, 400), scaled.reshape(1797, 400)).argmin(axis=1)
    assert np.abs(scaled[order] - ours).max() <= 0.5 + 1e-3  # rounding to whole numbers
    assert sorted(order) == list(range(1797))
    assert np.array_equal(theirs.target[order], labels)


def _bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel centres, edges repeated: the weights written out."""
    matrix = np.zeros((size, len(image)))
    for row in range(size):
        place = min(max((row + 0.5) * len(image) / size - 0.5, 0), len(image) - 1)
        low = int(place)
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, len(image) - 1)] += place - low
    return matrix @ image @ matrix.T


def test_the_split_is_stratified_and_the_same_every_time(digits):
    whole = torch.cat([digits.train_labels, digits.test_labels]).bincount()
    assert ((digits.test_labels.bincount() - 360 / 1797 * whole).abs() <= 1).all()
    again = load("digits")
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(digits, part), getattr(again, part))


def test_no_image_is_in_both_parts(digits):
    train = {image.numpy().tobytes() for image in digits.train_images}
    assert not any(image.numpy().tobytes() in train for image in digits.test_images)


def test_digits_are_light_on_black_with_a_border_of_four_pixels(digits):
    images = torch.cat([digits.train_images, digits.test_images])
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[4:24, 4:24] = True
    assert (images[..., ~inside] == 0).all()
    assert images.max() == 255
    assert images.float().mean() < 127


def test_the_normalisation_of_the_recipe_is_that_of_the_training_images(digits):
    part = Recipe.read(shipped_folder() / "resnet18-digits" / "recipe.toml").preprocess
    pixels = digits.train_images.numpy() / 255
    assert part.mean == pytest.approx(pixels.mean(), abs=1e-3)
    assert part.std == pytest.approx(pixels.std(), abs=1e-3)


def test_an_unknown_data_set_lists_those_there_are():
    with pytest.raises(DataError, match="there is no data set 'imagenet'; there are mnist, digits"):
        load("imagenet")


def test_the_recipe_takes_exactly_the_data_sets_there_are():
    assert set(Recipe.model_fields["data"].annotation.model_fields["set"].annotation.__args__) == set(DATASETS)


def test_data_lies_where_the_variable_says_else_in_the_users_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    seen = []
    monkeypatch.setitem(DATASETS, "seen", lambda folder, download: seen.append((folder, download)))
    load("seen")
    load("seen", tmp_path / "other", download=False)
    assert seen == [(tmp_path, True), (tmp_path / "other", False)]
    monkeypatch.delenv("TOOLKIT_DATA")
    assert default_data_dir().name == "toolkit"
    assert default_data_dir().is_absolute()


def _labels(*counts: int) -> Tensor:
    """Labels 0, 1, … so many times each, shuffled."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("count", [0, 1, 7, 10, 15, 29, 30])
def test_a_subset_has_as_evenly_many_of_each_class_as_can_be(count: int):
    labels = _labels(10, 10, 10)
    chosen = stratified_subset(labels, count)
    assert len(chosen) == count
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    counts = labels[chosen].bincount(minlength=3)
    assert counts.max() - counts.min() <= 1


def test_a_subset_takes_the_first_images_of_each_class():
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 1])
    assert stratified_subset(labels, 4).tolist() == [0, 1, 3, 4]


def test_a_rare_class_is_taken_whole_and_the_others_fill_up():
    labels = _labels(2, 20, 20)
    assert labels[stratified_subset(labels, 20)].bincount().tolist() == [2, 9, 9]


def test_a_smaller_subset_is_part_of_a_larger_one():
    labels = _labels(12, 5, 30)
    chosen = [set(stratified_subset(labels, count).tolist()) for count in range(48)]
    assert all(small < large for small, large in pairwise(chosen))


@pytest.mark.parametrize("count", [5, 6, 10_000])
def test_a_subset_of_all_or_more_is_everything_in_order(count: int):
    assert stratified_subset(torch.tensor([1, 0, 1, 0, 0]), count).tolist() == [0, 1, 2, 3, 4]
