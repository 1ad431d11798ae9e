"""Random moves, turns, sizes, slants and mirrorings of a whole batch at once, on the device it lies on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """How strongly: `shift` in pixels, `rotate` and `shear` in degrees, `scale` as a share of 1. All 0: nothing is changed."""

    shift: int = 0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: bool = False


DRAWS = 6  # numbers that one image takes: down, right, turn, size, slant, mirrored


def draw(count: int, generator: torch.Generator) -> Tensor:
    """(count, DRAWS), uniform in 0..1, on the CPU: the same for every device, and moved to it once for a whole epoch."""
    return torch.rand(count, DRAWS, generator=generator)


def augment(images: Tensor, draws: Tensor, by: Augmentation) -> Tensor:
    """(N, C, H, W) any dtype → the same shape; the same dtype where only whole pixels move, else float.

    `draws` (N, DRAWS) beside the images: each has its own, uniform in both directions; half are mirrored where `flip` is asked
    for. What moves in from outside is 0, the background. Nothing here waits for the device.
    """
    down, right, turn, size, slant, mirrored = draws.unbind(1)
    down, right = _whole(down, by.shift), _whole(right, by.shift)
    if by.rotate or by.scale or by.shear:
        turn, size, slant = 2 * turn - 1, 2 * size - 1, 2 * slant - 1
        images = _warp(images.float(), by.rotate * turn, 1 + by.scale * size, by.shear * slant, down, right)
    elif by.shift:
        images = _moved(images, down, right, by.shift)
    if by.flip:
        images = torch.where((mirrored < 0.5)[:, None, None, None], images.flip(-1), images)
    return images.contiguous()


def _whole(uniform: Tensor, most: int) -> Tensor:
    """0..1 → whole numbers from -most to most."""
    return (uniform * (2 * most + 1)).long().clamp_max(2 * most) - most


def _moved(images: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """By whole pixels, exactly: no interpolation, so that an integer stays the integer it is."""
    _, _, height, width = images.shape
    rows = most - down[:, None] + torch.arange(height, device=images.device)  # (N, H), indices into the padded image
    columns = most - right[:, None] + torch.arange(width, device=images.device)  # (N, W)
    padded = functional.pad(images, (most, most, most, most))
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # indexing moves C to the end


def _warp(images: Tensor, degrees: Tensor, size: Tensor, slant: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Slanted, made larger by `size`, turned counter-clockwise about the middle, then moved: one bilinear resampling.

    grid_sample asks, for each pixel of the result, where it comes from: the inverse of all that, in coordinates that
    run from -1 to 1 over either side.
    """
    half_height, half_width = images.shape[-2] / 2, images.shape[-1] / 2
    cos, sin = (degrees * (math.pi / 180)).cos(), (degrees * (math.pi / 180)).sin()
    slope = (slant * (math.pi / 180)).tan()
    # Pixels, y downwards: x' = size · R · S · x + offset with R = [[cos, sin], [-sin, cos]], S = [[1, slope], [0, 1]]
    xx, xy, yx, yy = (cos - slope * sin) / size, (-sin - slope * cos) / size, sin / size, cos / size  # S⁻¹ · R⁻¹ / size
    theta = torch.stack(
        [
            torch.stack([xx, xy * (half_height / half_width), -(xx * right + xy * down) / half_width], 1),
            torch.stack([yx * (half_width / half_height), yy, -(yx * right + yy * down) / half_height], 1),
        ],
        1,
    )  # (N, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
