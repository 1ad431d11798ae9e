"""Augmentation moves and mirrors whole images and changes nothing else."""

import numpy as np
import pytest
import torch

from toolkit.data.augment import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 200, channels: int = 1, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(1, 256, (count, channels, 9, 7), generator=generator(1)).to(dtype)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The whole image rolled, then what came round the edge set to 0."""
    found = np.roll(image, (down, right), axis=(1, 2))
    rows, columns = np.arange(image.shape[1]) - down, np.arange(image.shape[2]) - right
    found[:, (rows < 0) | (rows >= image.shape[1])] = 0
    found[:, :, (columns < 0) | (columns >= image.shape[2])] = 0
    return found


@pytest.mark.parametrize("shift", [1, 2, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_moved_by_whole_pixels_and_filled_with_background(shift: int, channels: int):
    images = pictures(60, channels)
    seen = set()
    for before, after in zip(images.numpy(), augment(images, generator(), shift=shift).numpy(), strict=True):
        both = range(-shift, shift + 1)
        fits = {(down, right) for down in both for right in both if np.array_equal(moved(before, down, right), after)}
        assert fits
        seen |= fits if len(fits) == 1 else set()
    assert {abs(down) <= shift and abs(right) <= shift for down, right in seen} == {True}
    assert len(seen) > shift  # not one and the same move


def test_all_moves_are_taken_equally_often():
    corner = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    corner[:, 0, 2, 2] = 1
    counts = augment(corner, generator(), shift=1).sum(0)[0].numpy()
    assert counts[1:4, 1:4].sum() == 9000
    assert (np.abs(counts[1:4, 1:4] - 1000) < 5 * 1000**0.5).all()  # five standard deviations


def test_nothing_is_changed_without_a_shift_or_a_flip():
    images = pictures()
    assert torch.equal(augment(images, generator()), images)
    assert torch.equal(augment(images, generator(), shift=0, flip=False), images)


def test_a_shift_never_flips():
    images = torch.zeros(500, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 3], images[:, 0, 4, 5] = 1, 2  # left and right of the middle
    found = augment(images, generator(), shift=2)
    assert (found.argmax(-1).amax((1, 2)) > (found == 1).float().argmax(-1).amax((1, 2))).all()


def test_half_of_the_images_are_mirrored_and_the_rest_are_not():
    images = pictures(2000)
    found = augment(images, generator(), flip=True)
    mirrored = (found == images.flip(-1)).flatten(1).all(1)
    same = (found == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * (2000 / 4) ** 0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_shape_and_range_are_kept(dtype: torch.dtype):
    images = pictures(dtype=dtype)
    found = augment(images, generator(), shift=2, flip=True)
    assert (found.dtype, found.shape) == (dtype, images.shape)
    assert found.is_contiguous()
    assert found.min() == 0
    assert found.max() <= images.max()


def test_the_given_images_are_not_changed():
    images = pictures()
    before = images.clone()
    augment(images, generator(), shift=3, flip=True)
    assert torch.equal(images, before)


def test_the_same_generator_gives_the_same_and_another_seed_does_not():
    images = pictures()
    one, same, other = (augment(images, generator(seed), shift=2, flip=True) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_draws_do_not_depend_on_the_type_of_the_images():
    images = pictures()
    assert torch.equal(augment(images, generator(), shift=2).float(), augment(images.float(), generator(), shift=2))
