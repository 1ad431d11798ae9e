"""Random shifts and flips of a whole batch at once, on the device it lies on."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, generator: torch.Generator, *, shift: int = 0, flip: bool = False) -> Tensor:
    """(N, C, H, W) any dtype → the same, each image moved by up to `shift` pixels each way, and mirrored at even odds.

    What moves in from outside is 0, the background. `generator` is on the CPU: the same draws on every device.
    """
    count, _, height, width = images.shape
    if shift:
        offset = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
        rows = (offset[0] + torch.arange(height)).to(images.device)  # (N, H), indices into the padded image
        columns = (offset[1] + torch.arange(width)).to(images.device)  # (N, W)
        padded = functional.pad(images, (shift, shift, shift, shift))
        each = torch.arange(count, device=images.device)[:, None, None]
        images = padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # indexing moves C to the end
    if flip:
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images.contiguous()
