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


def augment(images: Tensor, generator: torch.Generator, by: Augmentation) -> Tensor:
    """(N, C, H, W) any dtype → the same shape; the same dtype where only whole pixels move, else float.

    Every image has its own draws, uniform in both directions; half of the images are mirrored where `flip` is asked for.
    What moves in from outside is 0, the background. `generator` is on the CPU: the same draws on every device.
    """
    count = len(images)
    offset = torch.randint(-by.shift, by.shift + 1, (2, count), generator=generator)  # down, right
    if by.rotate or by.scale or by.shear:
        turn, size, slant = torch.empty(3, count).uniform_(-1, 1, generator=generator)
        images = _warp(images.float(), by.rotate * turn, 1 + by.scale * size, by.shear * slant, offset)
    elif by.shift:
        images = _moved(images, offset, by.shift)
    if by.flip:
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images.contiguous()


def _moved(images: Tensor, offset: Tensor, most: int) -> Tensor:
    """By whole pixels, exactly: no interpolation, so that an integer stays the integer it is."""
    _, _, height, width = images.shape
    rows = (most - offset[0, :, None] + torch.arange(height)).to(images.device)  # (N, H), indices into the padded image
    columns = (most - offset[1, :, None] + torch.arange(width)).to(images.device)  # (N, W)
    padded = functional.pad(images, (most, most, most, most))
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # indexing moves C to the end


def _warp(images: Tensor, degrees: Tensor, size: Tensor, slant: Tensor, offset: Tensor) -> Tensor:
    """Slanted, made larger by `size`, turned counter-clockwise about the middle, then moved: one bilinear resampling.

    grid_sample asks, for each pixel of the result, where it comes from: the inverse of all that, in coordinates that
    run from -1 to 1 over either side.
    """
    height, width = images.shape[-2:]
    cos, sin = (degrees * (math.pi / 180)).cos(), (degrees * (math.pi / 180)).sin()
    slope = (slant * (math.pi / 180)).tan()
    # Pixels, y downwards: x' = size · R · S · x + offset with R = [[cos, sin], [-sin, cos]], S = [[1, slope], [0, 1]]
    inverse = torch.stack([cos - slope * sin, -sin - slope * cos, sin, cos]).reshape(2, 2, -1) / size  # S⁻¹ · R⁻¹ / size, (2, 2, N)
    down, right = offset.to(images.dtype)
    side = torch.tensor([width / 2, height / 2])
    theta = torch.empty(len(images), 2, 3)
    theta[:, :, :2] = inverse.permute(2, 0, 1) * side[None, None, :] / side[None, :, None]
    theta[:, :, 2] = -(inverse * torch.stack([right, down])[None]).sum(1).T / side
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
