"""Resizing, cropping and resampling of images. T is fp16 or fp32 unless said otherwise. Places are computed in float64."""

import math

import numpy as np
import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.sampling import bilinear, check_mode, grid, padded, pixels, read
from toolkit.mil.ops.types import Ints, Tensor


def upsample_nearest_neighbor(x: Tensor, scale_factor_height: float = 1.0, scale_factor_width: float = 1.0) -> Tensor:
    """out[…, i, j] = x[…, floor(i·H/H2), floor(j·W/W2)] with H2 = floor(H·scale), W2 likewise. iOS15/image_resizing.py

    The definition gives no formula; Apple's fractional test and the converters (TensorFlow without half_pixel_centers,
    PyTorch) do. H·scale is rounded to float32 as in the definition's shape code.
    """
    size, target = _spatial(x), _scaled(x, scale_factor_height, scale_factor_width)
    return _pick(x, *(torch.arange(n, device=x.device) * i // n for i, n in zip(size, target, strict=True)))


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """out[…, i, j] = x[…, floor((i+0.5)·H/H2), floor((j+0.5)·W/W2)]. iOS15/image_resizing.py

    The definition gives no formula; the TensorFlow converter uses this op for half_pixel_centers=True, which is this.
    """
    return _nearest(x, (target_size_height, target_size_width))


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1.0,
    scale_factor_width: float = 1.0,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Bilinear interpolation to floor(size · scale). iOS15|16/image_resizing.py

    align_corners: grid STRICT_ALIGN_CORNERS. Else half_pixel_centers (default: not align_corners): UNALIGN_CORNERS; else
    DEFAULT (Apple's test). Grids follow from the sizes, not from the scale; size · scale is rounded to float32 as in the
    definition's shape code. Both at once has no meaning and is refused.
    """
    if align_corners and half_pixel_centers:
        raise ArtifactError("half_pixel_centers=True with align_corners=True")
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    return _linear(x, _scaled(x, scale_factor_height, scale_factor_width), mode)


def resize_bilinear(x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT") -> Tensor:
    """Bilinear interpolation of x [*D, H, W] to the target size; sampling modes: sampling.grid. iOS15/image_resizing.py"""
    _spatial(x)
    return _linear(x, (target_size_height, target_size_width), sampling_mode)


def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Interpolation of the last `resized_dims` axes to the last ones of `shape`, 0: as in x. iOS17/image_resizing.py

    T also int32. LINEAR: sampling.grid, axis by axis. NEAREST_NEIGHBOR with DEFAULT: as resize_nearest_neighbor (the
    TensorFlow converter and Apple's tests; it is not the pixel next to DEFAULT's grid point). Refused for want of a
    formula: NEAREST_NEIGHBOR with other modes, LINEAR on integers.
    """
    if not 0 <= resized_dims <= len(shape) <= x.ndim:
        raise ArtifactError(f"resized_dims {resized_dims} and shape {list(shape)} for a tensor of rank {x.ndim}")
    check_mode(sampling_mode)
    size = tuple(x.shape[x.ndim - resized_dims :])
    target = tuple(n or i for i, n in zip(size, shape[len(shape) - resized_dims :], strict=True))
    if interpolation_mode == "NEAREST_NEIGHBOR":
        if sampling_mode != "DEFAULT":
            raise ArtifactError(f"NEAREST_NEIGHBOR with sampling_mode {sampling_mode}: the definition has no formula")
        return _nearest(x, target)
    if interpolation_mode != "LINEAR":
        raise ArtifactError(f"interpolation_mode {interpolation_mode!r} is not one of LINEAR, NEAREST_NEIGHBOR")
    if not x.is_floating_point():
        raise ArtifactError(f"LINEAR interpolation of {x.dtype}: its rounding is undefined")
    return _linear(x, target, sampling_mode)


def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """x without the first and last crop_height rows and crop_width columns. iOS15/image_resizing.py"""
    height, width = _spatial(x)
    if len(crop_height) != 2 or len(crop_width) != 2 or min(*crop_height, *crop_width) < 0:
        raise ArtifactError(f"crop_height {list(crop_height)} and crop_width {list(crop_width)} must be two numbers >= 0")
    if sum(crop_height) >= height or sum(crop_width) >= width:
        raise ArtifactError(f"crop_height {list(crop_height)} and crop_width {list(crop_width)} leave nothing of {height} x {width}")
    return x[..., crop_height[0] : height - crop_height[1], crop_width[0] : width - crop_width[1]]


def crop_resize(
    x: Tensor,
    roi: Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
    boxes: Tensor | None = None,
    box_indices: Tensor | None = None,
) -> Tensor:
    """Each box of x [B, C, H, W] by bilinear interpolation at sampling.grid's points. iOS15|16|17/image_resizing.py

    Boxes, times spatial_scale and, if normalized, H-1 or W-1. Points outside 0..H-1 or 0..W-1 give pad_value. To iOS16
    roi is [N, 1, 4, 1, 1], every box from every image: [N, B, C, h, w]; or [N, 1, 5, 1, 1], the image's index first:
    [N, 1, C, h, w]. From iOS17 boxes [N, 4] and box_indices [N], default 0..N-1: [N, C, h, w]. UNALIGN_CORNERS is
    refused: the result in Apple's only test of it (iOS15) does not follow from its box.
    """
    check_mode(sampling_mode)
    _check_target((target_height, target_width))
    if sampling_mode == "UNALIGN_CORNERS":
        raise ArtifactError("sampling_mode UNALIGN_CORNERS: what it means for a box is not defined")
    if x.ndim != 4 or (roi is None) == (boxes is None):
        raise ArtifactError(f"x has rank {x.ndim}, not 4, or not just one of roi and boxes is given")
    image, box = _boxes(x, roi, boxes, box_indices)
    if not image.is_meta and not bool(((image >= 0) & (image < x.shape[0])).all()):
        raise ArtifactError(f"a box takes image {image.min().item()} or {image.max().item()}, there are {x.shape[0]}")
    places, inside = [], []
    for size, count, (start, end) in zip(x.shape[2:], (target_height, target_width), _edges(box, box_coordinate_mode), strict=True):
        scale = spatial_scale * (size - 1 if normalized_coordinates else 1)
        point = grid(sampling_mode, start * scale, (end - start) * scale, count)
        inside.append((point >= 0) & (point <= size - 1))
        places.append(point.clamp(0, size - 1))
    y = bilinear(x, image[:, :, None, None], places[0][:, None, :, None], places[1][:, None, None, :], None)
    y = torch.where((inside[0][:, None, :, None] & inside[1][:, None, None, :]).unsqueeze(-1), y, pad_value).movedim(-1, 2)
    return y if boxes is None else y.squeeze(1)


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """out[b, :, i, j] = x [B, C, H, W] at coordinates[b, i, j] = (x, y). iOS15|16|17/image_resizing.py

    unnormalized: in pixels, whatever align_corners. normalized_minus_one_to_one, _zero_to_one: the range is pixel
    centres 0..W-1 with align_corners, else their edges -0.5..W-0.5. Outside, padding_mode: constant padding_value;
    border; reflection, about the outer pixels' centres; symmetric, about their edges. nearest: ties to even.
    """
    if x.ndim != 4 or coordinates.ndim != 4 or coordinates.shape[0] != x.shape[0] or coordinates.shape[3] != 2:
        raise ArtifactError(f"x {list(x.shape)} and coordinates {list(coordinates.shape)} are not [B, C, H, W] and [B, h, w, 2]")
    if sampling_mode not in ("bilinear", "nearest"):
        raise ArtifactError(f"sampling_mode {sampling_mode!r} is not one of bilinear, nearest")
    places = []
    for position, size in zip(coordinates.to(torch.float64).unbind(-1), (x.shape[3], x.shape[2]), strict=True):
        places.append(padded(pixels(position, coordinates_mode, align_corners, size), padding_mode, size))
    outside = padding_value if padding_mode == "constant" else None
    image = torch.arange(x.shape[0], device=x.device)[:, None, None]
    if sampling_mode == "nearest":
        return read(x, image, places[1].round(), places[0].round(), outside).movedim(-1, 1)
    return bilinear(x, image, places[1], places[0], outside).movedim(-1, 1)


def affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """resample of x [B, C, H, W] at (a0·u + a1·v + a2, b0·u + b1·v + b2). iOS15/image_resizing.py

    u and v run from -1 to 1 over output columns and rows (0 if there is one only, as in the PyTorch op it is converted
    from); transform_matrix [B or 1, 6] is a0 a1 a2 b0 b1 b2. The definition allows only bilinear, constant 0,
    normalized_minus_one_to_one and align_corners=True.
    """
    modes = sampling_mode.lower(), padding_mode.lower(), coordinates_mode.lower()
    allowed = "bilinear", "constant", "normalized_minus_one_to_one"
    if modes != allowed or padding_value != 0 or not align_corners:
        raise ArtifactError(f"{modes}, padding_value {padding_value}, align_corners={align_corners}: only {allowed}, 0, True")
    if x.ndim != 4 or transform_matrix.ndim != 2 or transform_matrix.shape[0] not in (1, x.shape[0]) or transform_matrix.shape[1] != 6:
        raise ArtifactError(f"x {list(x.shape)} and transform_matrix {list(transform_matrix.shape)} are not [B, C, H, W] and [B or 1, 6]")
    _check_target((output_height, output_width))
    v, u = (_minus_one_to_one(n, x) for n in (output_height, output_width))
    a = transform_matrix.to(torch.float64).reshape(-1, 6, 1, 1)
    places = [a[:, i] * u + a[:, i + 1] * v[:, None] + a[:, i + 2] for i in (0, 3)]
    coordinates = torch.stack(places, -1).expand(x.shape[0], -1, -1, -1)
    return resample(x, coordinates, *modes[:2], padding_value, modes[2], align_corners)


def _spatial(x: Tensor) -> tuple[int, int]:
    if x.ndim < 3:
        raise ArtifactError(f"x has rank {x.ndim}, less than 3")
    return x.shape[-2], x.shape[-1]


def _scaled(x: Tensor, *factors: float) -> Ints:
    with np.errstate(all="ignore"):
        sizes = [float(np.float32(factor) * np.float32(size)) for factor, size in zip(factors, _spatial(x), strict=True)]
    if not all(1 <= size < 2**31 for size in sizes):
        raise ArtifactError(f"scale factors {factors} make {x.shape[-2]} x {x.shape[-1]} to {sizes}")
    return tuple(math.floor(size) for size in sizes)


def _check_target(target: Ints) -> None:
    if any(n < 1 for n in target):
        raise ArtifactError(f"target size {list(target)} must be positive")


def _nearest(x: Tensor, target: Ints) -> Tensor:
    _check_target(target)
    size = x.shape[x.ndim - len(target) :]
    return _pick(x, *((2 * torch.arange(n, device=x.device) + 1) * i // (2 * n) for i, n in zip(size, target, strict=True)))


def _pick(x: Tensor, *indices: Tensor) -> Tensor:
    for axis, index in enumerate(indices, x.ndim - len(indices)):
        if len(index) != x.shape[axis]:  # both formulas are the identity where the size stays
            x = x.index_select(axis, index)
    return x


def _linear(x: Tensor, target: Ints, mode: str) -> Tensor:
    check_mode(mode)
    _check_target(target)
    for axis, count in enumerate(target, x.ndim - len(target)):
        size = x.shape[axis]
        if size == count and mode != "OFFSET_CORNERS":  # the identity
            continue
        if x.is_meta:  # the shape is all there is; arithmetic without data would import PyTorch's compiler, a second or more
            x = x.index_select(axis, torch.empty(count, dtype=torch.int64, device="meta"))
            continue
        point = grid(mode, torch.zeros((), dtype=torch.float64, device=x.device), size - 1, count)
        below = point.floor().long()
        weight = (point - below).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        lower, upper = x.index_select(axis, below), x.index_select(axis, (below + 1).clamp(max=size - 1))
        x = torch.where(weight == 0, lower, lower * (1 - weight) + upper * weight)  # 0 · inf is not 0
    return x


def _boxes(x: Tensor, roi: Tensor | None, boxes: Tensor | None, box_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which images [N, M] each box [N, 4] is taken from."""
    if roi is not None:
        if roi.ndim != 5 or roi.shape[2] not in (4, 5) or tuple(roi.shape[i] for i in (1, 3, 4)) != (1, 1, 1):
            raise ArtifactError(f"roi has shape {list(roi.shape)}, not [N, 1, 4, 1, 1] or [N, 1, 5, 1, 1]")
        table = roi.to(torch.float64).reshape(roi.shape[0], roi.shape[2])
        if roi.shape[2] == 5:
            return table[:, :1].long(), table[:, 1:]
        return torch.arange(x.shape[0], device=x.device).expand(roi.shape[0], -1), table
    assert boxes is not None
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ArtifactError(f"boxes have shape {list(boxes.shape)}, not [N, 4]")
    indices = torch.arange(boxes.shape[0], device=x.device) if box_indices is None else box_indices.long()
    if tuple(indices.shape) != (boxes.shape[0],):
        raise ArtifactError(f"box_indices has shape {list(indices.shape)} for {boxes.shape[0]} boxes")
    return indices[:, None], boxes.to(torch.float64)


def _edges(box: Tensor, mode: str) -> list[tuple[Tensor, Tensor]]:
    """First and last row, first and last column."""
    if mode not in ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"):
        raise ArtifactError(f"box_coordinate_mode {mode!r} is unknown")
    a, b, c, d = box.unbind(1)
    edges = [(a, c), (b, d)] if mode.startswith("CORNERS") else [(a - c / 2, a + c / 2), (b - d / 2, b + d / 2)]
    return edges if mode.endswith("HEIGHT_FIRST") else edges[::-1]


def _minus_one_to_one(count: int, x: Tensor) -> Tensor:
    i = torch.arange(count, dtype=torch.float64, device=x.device)
    return (2 * i - (count - 1)) / max(1, count - 1)
