"""Augmentation moves and mirrors whole images and changes nothing else."""

import numpy as np
import pytest
import torch

from toolkit.data.augment import Augmentation, augment, draw


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return draw(len(images), generator(seed))


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
    for before, after in zip(images.numpy(), augment(images, draws(images), Augmentation(shift=shift)).numpy(), strict=True):
        both = range(-shift, shift + 1)
        fits = {(down, right) for down in both for right in both if np.array_equal(moved(before, down, right), after)}
        assert fits
        seen |= fits if len(fits) == 1 else set()
    assert {abs(down) <= shift and abs(right) <= shift for down, right in seen} == {True}
    assert len(seen) > shift  # not one and the same move


def test_all_moves_are_taken_equally_often():
    corner = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    corner[:, 0, 2, 2] = 1
    counts = augment(corner, draws(corner), Augmentation(shift=1)).sum(0)[0].numpy()
    assert counts[1:4, 1:4].sum() == 9000
    assert (np.abs(counts[1:4, 1:4] - 1000) < 5 * 1000**0.5).all()  # five standard deviations


def test_nothing_is_changed_without_a_shift_or_a_flip():
    images = pictures()
    assert torch.equal(augment(images, draws(images), Augmentation()), images)
    assert torch.equal(augment(images, draws(images), Augmentation(shift=0, flip=False)), images)


def test_a_shift_never_flips():
    images = torch.zeros(500, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 3], images[:, 0, 4, 5] = 1, 2  # left and right of the middle
    found = augment(images, draws(images), Augmentation(shift=2))
    assert (found.argmax(-1).amax((1, 2)) > (found == 1).float().argmax(-1).amax((1, 2))).all()


def test_half_of_the_images_are_mirrored_and_the_rest_are_not():
    images = pictures(2000)
    found = augment(images, draws(images), Augmentation(flip=True))
    mirrored = (found == images.flip(-1)).flatten(1).all(1)
    same = (found == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert abs(int(mirrored.sum()) - 1000) < 5 * (2000 / 4) ** 0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_shape_and_range_are_kept(dtype: torch.dtype):
    images = pictures(dtype=dtype)
    found = augment(images, draws(images), Augmentation(shift=2, flip=True))
    assert (found.dtype, found.shape) == (dtype, images.shape)
    assert found.is_contiguous()
    assert found.min() == 0
    assert found.max() <= images.max()


def test_the_given_images_are_not_changed():
    images = pictures()
    before = images.clone()
    augment(images, draws(images), Augmentation(shift=3, flip=True))
    assert torch.equal(images, before)


def test_the_same_generator_gives_the_same_and_another_seed_does_not():
    images = pictures()
    one, same, other = (augment(images, draws(images, seed), Augmentation(shift=2, flip=True)) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_draws_do_not_depend_on_the_type_of_the_images():
    images = pictures()
    assert torch.equal(
        augment(images, draws(images), Augmentation(shift=2)).float(), augment(images.float(), draws(images), Augmentation(shift=2))
    )


def scipy_warp(image: np.ndarray, matrix: np.ndarray, offset: tuple[float, float]) -> np.ndarray:
    """x' = matrix · x + offset about the middle, (x, y) with y downwards, resampled bilinearly by SciPy. One channel."""
    from scipy.ndimage import affine_transform

    swapped = matrix[::-1, ::-1]  # SciPy's axes are (y, x)
    inverse = np.linalg.inv(swapped)
    centre = (np.array(image.shape) - 1) / 2
    return affine_transform(image, inverse, centre - inverse @ (centre + np.array(offset)), order=1, mode="grid-constant", cval=0.0)


@pytest.mark.parametrize("by", [
    Augmentation(rotate=30), Augmentation(scale=0.2), Augmentation(shear=20), Augmentation(shift=3, rotate=15, scale=0.15, shear=10),
])  # fmt: skip
def test_a_warp_is_what_scipy_makes_of_the_same_draws(by: Augmentation):
    """Turn and slant and size about the middle, then the move; on pictures that are not square."""
    images = pictures(20, dtype=torch.float32)
    found = augment(images, draws(images, 4), by)
    uniform = draws(images, 4).double().numpy().T
    down, right = np.floor(uniform[:2] * (2 * by.shift + 1)) - by.shift
    turn, size, slant = 2 * uniform[2:5] - 1
    for place, image in enumerate(images[:, 0].numpy()):
        angle, slope = np.deg2rad(by.rotate * turn[place]), np.tan(np.deg2rad(by.shear * slant[place]))
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # against the clock, y downwards
        matrix = (1 + by.scale * size[place]) * rotation @ np.array([[1, slope], [0, 1]])
        expected = scipy_warp(image.astype(np.float64), matrix, (down[place], right[place]))
        np.testing.assert_allclose(found[place, 0].numpy(), expected, atol=255 * 2e-5)


def test_a_warp_turns_both_ways_and_keeps_the_range():
    images = torch.zeros(400, 1, 21, 21)
    images[:, 0, 10, 15] = 255.0  # right of the middle
    found = augment(images, draws(images), Augmentation(rotate=40))
    heights = (found.sum(-1) * torch.arange(21)).sum((1, 2)) / found.sum((1, 2, 3)) - 10
    assert heights.min() < -2.5  # 5 · sin 40° is 3.2
    assert heights.max() > 2.5
    assert abs(float(heights.mean())) < 0.5
    assert found.min() >= 0
    assert found.max() <= 255


def test_a_warp_never_mirrors():
    """Three spots, a channel each: the triangle that they span keeps its orientation."""
    images = torch.zeros(300, 3, 31, 31)
    for channel, (row, column) in enumerate(((8, 15), (20, 8), (20, 22))):
        images[:, channel, row - 1 : row + 2, column - 1 : column + 2] = 255
    found = augment(images, draws(images), Augmentation(rotate=45, scale=0.3, shear=30))
    rows, columns = torch.meshgrid(torch.arange(31.0), torch.arange(31.0), indexing="ij")
    weight = found.sum((2, 3))
    y, x = (found * rows).sum((2, 3)) / weight, (found * columns).sum((2, 3)) / weight  # (300, 3)
    area = (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0]) - (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0])
    assert (area > 0).all()
