"""At which places resizing reads an image, and reading it there."""

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Tensor

_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def check_mode(mode: str) -> None:
    if mode not in _MODES:
        raise ArtifactError(f"sampling_mode {mode!r} is not one of {', '.join(_MODES)}")


def grid(mode: str, start: Tensor, extent: Tensor | int, count: int) -> Tensor:
    """Where each of N = `count` output pixels lies in start..start+extent; [..., N]. iOS15/image_resizing.py:resize_bilinear

    With pixels 0..X-1, X - 1 = extent, counted from start: STRICT_ALIGN_CORNERS i·(X-1)/(N-1); ALIGN_CORNERS the same,
    but (X-1)/2 for N = 1; DEFAULT i·X/N; OFFSET_CORNERS (i+0.5)·max(1, X-1)/N; UNALIGN_CORNERS (i+0.5)·X/N - 0.5; all
    cut off by min(X-1, max(0, ·)). The definition's divisions by N - 1 cancel, or for N = 1 belong to i = 0, as in
    TensorFlow's ResizeBilinear, to which it refers.
    """
    start = start.unsqueeze(-1)
    extent = torch.as_tensor(extent, dtype=start.dtype, device=start.device).unsqueeze(-1)
    i = torch.arange(count, dtype=start.dtype, device=start.device)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            i = i + 0.5 if mode == "ALIGN_CORNERS" else i
        return torch.lerp(*torch.broadcast_tensors(start, start + extent, i / max(1, count - 1)))  # exact at both ends
    if mode == "DEFAULT":
        point = i * (extent + 1) / count
    elif mode == "OFFSET_CORNERS":
        point = (i + 0.5) * extent.clamp(min=1) / count
    else:
        point = (i + 0.5) * (extent + 1) / count - 0.5
    return start + torch.minimum(point.clamp(min=0), extent)


def pixels(position: Tensor, mode: str, align_corners: bool, size: int) -> Tensor:
    if mode == "unnormalized":
        return position
    if mode not in ("normalized_minus_one_to_one", "normalized_zero_to_one"):
        raise ArtifactError(f"coordinates_mode {mode!r} is unknown")
    share = (position + 1) / 2 if mode == "normalized_minus_one_to_one" else position
    return share * (size - 1) if align_corners else share * size - 0.5


def padded(point: Tensor, mode: str, size: int) -> Tensor:
    """The point inside the image that stands for `point`; with constant padding, one near enough to be outside."""
    if mode == "constant":
        return point.clamp(-2, size + 1)
    if mode == "reflection":
        point = _folded(point, size - 1)
    elif mode == "symmetric":
        point = _folded(point + 0.5, size) - 0.5
    elif mode != "border":
        raise ArtifactError(f"padding_mode {mode!r} is not one of constant, border, reflection, symmetric")
    return point.clamp(0, size - 1)


def _folded(point: Tensor, span: int) -> Tensor:
    return span - (point.abs() % (2 * span) - span).abs() if span else torch.zeros_like(point)


def bilinear(x: Tensor, image: Tensor, y: Tensor, z: Tensor, outside: float | None) -> Tensor:
    """x [B, C, H, W] at rows y and columns z of `image`, all of one shape after broadcasting: [*shape, C]."""
    total: Tensor | None = None
    for row, row_share in _neighbours(y):
        for column, column_share in _neighbours(z):
            share = (row_share * column_share).to(x.dtype).unsqueeze(-1)
            term = torch.where(share == 0, 0.0, share * read(x, image, row, column, outside))  # 0 · inf is not 0
            total = term if total is None else total + term
    assert total is not None
    return total


def _neighbours(point: Tensor) -> list[tuple[Tensor, Tensor]]:
    below = point.floor()
    return [(below, 1 - (point - below)), (below + 1, point - below)]


def read(x: Tensor, image: Tensor, row: Tensor, column: Tensor, outside: float | None) -> Tensor:
    height, width = x.shape[2:]
    value = x[image, :, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]
    if outside is None:
        return value
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return torch.where(inside.unsqueeze(-1), value, outside)
