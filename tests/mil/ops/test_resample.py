"""Boxes, coordinates and affine grids against SciPy, PyTorch's grid_sample and onnx's RoiAlign, in float64."""

import functools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from scipy.ndimage import map_coordinates

from toolkit.mil.ops import resize as ops

Array = Any
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def boxes(draw: Any) -> tuple[Array, Array]:
    """x [B, C, H, W] and boxes [N, 4] within or around it, either way round."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = rng.uniform(-0.5, 1.5, size=(draw(st.integers(1, 3)), 4)) * np.tile(np.array(shape[2:]) - 1, 2)
    return rng.normal(size=shape), corners


def cropped(x: Array, box: Array, sizes: tuple[int, int], mode: str, pad_value: float) -> Array:
    """One box [h0, w0, h1, w1] of x [C, H, W]."""
    places = []
    for start, end, count in zip(box[:2], box[2:], sizes, strict=True):
        extent, half = end - start, 0.5 * max(1, end - start) / count
        places.append(
            {
                "STRICT_ALIGN_CORNERS": lambda s=start, e=end, n=count: np.linspace(s, e, n),
                "ALIGN_CORNERS": lambda s=start, e=end, n=count: np.linspace(s, e, n) if n > 1 else np.array([(s + e) / 2]),
                "DEFAULT": lambda s=start, d=extent, n=count: s + np.minimum(d, np.maximum(0, np.linspace(0, d + 1 - (d + 1) / n, n))),
                "OFFSET_CORNERS": lambda s=start, d=extent, n=count, h=half: s + np.minimum(d, np.linspace(h, (2 * n - 1) * h, n)),
            }[mode]()
        )
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    inside = np.all([(g >= 0) & (g <= size - 1) for g, size in zip(grid, x.shape[1:], strict=True)], axis=0)
    return np.where(inside, np.stack([map_coordinates(plane, grid, order=1, mode="nearest") for plane in x]), pad_value)


BOX_MODES = {  # how to write [h0, w0, h1, w1]
    "CORNERS_HEIGHT_FIRST": lambda b: b,
    "CORNERS_WIDTH_FIRST": lambda b: b[:, [1, 0, 3, 2]],
    "CENTER_SIZE_HEIGHT_FIRST": lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
    "CENTER_SIZE_WIDTH_FIRST": lambda b: BOX_MODES["CENTER_SIZE_HEIGHT_FIRST"](b)[:, [1, 0, 3, 2]],
}


@PROPERTY
@given(
    case=boxes(),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    mode=st.sampled_from(["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS"]),
    box_mode=st.sampled_from(sorted(BOX_MODES)),
    normalized=st.booleans(),
    spatial_scale=st.sampled_from([1.0, 0.5]),
    pad_value=st.sampled_from([0.0, -3.0]),
    how=st.sampled_from(["roi4", "roi5", "boxes", "boxes in order"]),
)
def test_crop_resize_interpolates_within_each_box(
    case: tuple[Array, Array], sizes: Any, mode: str, box_mode: str, normalized: bool, spatial_scale: float, pad_value: float, how: str
) -> None:
    x, corners = case
    corners = corners[: len(x)] if how == "boxes in order" else corners
    rng = np.random.default_rng(0)
    images = np.arange(len(corners)) if how == "boxes in order" else rng.integers(0, len(x), size=len(corners))
    span = np.tile(np.array(x.shape[2:]) - 1, 2) if normalized else 1
    written = torch.from_numpy(BOX_MODES[box_mode](corners / span / spatial_scale))
    arguments: dict[str, Any] = {
        "roi4": {"roi": written.reshape(-1, 1, 4, 1, 1)},
        "roi5": {"roi": torch.cat([torch.from_numpy(images)[:, None], written], 1).reshape(-1, 1, 5, 1, 1)},
        "boxes": {"boxes": written, "box_indices": torch.from_numpy(images.astype(np.int32))},
        "boxes in order": {"boxes": written},
    }[how]
    result = ops.crop_resize(
        torch.from_numpy(x),
        target_height=sizes[0],
        target_width=sizes[1],
        normalized_coordinates=normalized,
        spatial_scale=spatial_scale,
        box_coordinate_mode=box_mode,
        sampling_mode=mode,
        pad_value=pad_value,
        **arguments,
    )
    one = functools.partial(cropped, sizes=sizes, mode=mode, pad_value=pad_value)
    if how == "roi4":
        expected = np.stack([[one(image, box) for image in x] for box in corners])
    else:
        expected = np.stack([one(x[image], box) for image, box in zip(images, corners, strict=True)])
        expected = expected[:, None] if how == "roi5" else expected
    np.testing.assert_allclose(result.numpy(), expected, 1e-9, 1e-9)


@PROPERTY
@given(count=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_offset_corners_of_a_box_is_roi_align(count: int, seed: int) -> None:
    """ONNX's with one sample for each bin, the bins' middles; boxes of at least one pixel, inside the image."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, 3, 9, 8)))
    start, extent = rng.uniform(0, 3, size=(5, 2)), rng.uniform(1, 4, size=(5, 2))
    box = torch.from_numpy(np.concatenate([start, start + extent], 1))
    index = torch.from_numpy(rng.integers(0, 2, size=5))
    node = onnx.helper.make_node(
        "RoiAlign",
        ["x", "box", "index"],
        ["y"],
        output_height=count,
        output_width=count,
        sampling_ratio=1,
        coordinate_transformation_mode="output_half_pixel",
    )
    typed = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in (("x", 11), ("box", 11), ("index", 7), ("y", 11))]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", typed[:3], typed[3:]))
    expected = ReferenceEvaluator(model).run(None, {"x": x.numpy(), "box": box.numpy(), "index": index.numpy()})[0]
    result = ops.crop_resize(
        x, None, count, count, box_coordinate_mode="CORNERS_WIDTH_FIRST", sampling_mode="OFFSET_CORNERS", boxes=box, box_indices=index
    )
    np.testing.assert_allclose(result.numpy(), expected, 1e-6)


SCIPY = {"constant": "grid-constant", "border": "nearest", "reflection": "mirror", "symmetric": "reflect"}
COORDINATES = {  # coordinates_mode, align_corners: how to write the pixel p of X
    ("unnormalized", True): lambda p, x: p,
    ("unnormalized", False): lambda p, x: p,
    ("normalized_minus_one_to_one", True): lambda p, x: 2 * p / (x - 1) - 1,
    ("normalized_minus_one_to_one", False): lambda p, x: (2 * p + 1) / x - 1,
    ("normalized_zero_to_one", True): lambda p, x: p / (x - 1),
    ("normalized_zero_to_one", False): lambda p, x: (p + 0.5) / x,
}


@st.composite
def points(draw: Any) -> tuple[Array, Array]:
    """x [B, C, H, W] and pixels [B, h, w, 2] (row, column) inside and far outside, none halfway between two."""
    shape = tuple(draw(st.integers(1, 2)) for _ in range(2)) + tuple(draw(st.integers(2, 5)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    place = rng.integers(-9, 12, size=(shape[0], 3, 2, 2)) + rng.choice([0.0, 0.1, 0.3, 0.7, 0.9], size=(shape[0], 3, 2, 2))
    return rng.normal(size=shape), place


@PROPERTY
@given(
    case=points(),
    sampling_mode=st.sampled_from(["bilinear", "nearest"]),
    padding_mode=st.sampled_from(sorted(SCIPY)),
    coordinates=st.sampled_from(sorted(COORDINATES)),
)
def test_resample_reads_at_its_coordinates(case: tuple[Array, Array], sampling_mode: str, padding_mode: str, coordinates: Any) -> None:
    x, place = case
    written = np.stack([COORDINATES[coordinates](place[..., axis], x.shape[2 + axis]) for axis in (1, 0)], -1)
    result = ops.resample(torch.from_numpy(x), torch.from_numpy(written), sampling_mode, padding_mode, 6.5, *coordinates)
    order = 1 if sampling_mode == "bilinear" else 0
    expected = [
        [map_coordinates(plane, np.moveaxis(p, -1, 0), order=order, mode=SCIPY[padding_mode], cval=6.5) for plane in image]
        for image, p in zip(x, place, strict=True)
    ]
    np.testing.assert_allclose(result.numpy(), expected, 1e-9, 1e-9)


@PROPERTY
@given(
    case=points(),
    mode=st.sampled_from(["bilinear", "nearest"]),
    padding=st.sampled_from(["zeros", "border", "reflection"]),
    align=st.booleans(),
)
def test_resample_is_grid_sample(case: tuple[Array, Array], mode: str, padding: str, align: bool) -> None:
    """Named as the PyTorch converter names it."""
    x, place = case
    written = np.stack([COORDINATES["normalized_minus_one_to_one", align](place[..., axis], x.shape[2 + axis]) for axis in (1, 0)], -1)
    arguments = torch.from_numpy(x), torch.from_numpy(written)
    ours = {"zeros": "constant", "reflection": "reflection" if align else "symmetric"}.get(padding, padding)
    result = ops.resample(*arguments, mode, ours, 0.0, "normalized_minus_one_to_one", align)
    torch.testing.assert_close(result, F.grid_sample(*arguments, mode, padding, align))


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid")  # one row or column is at 0, as here
@PROPERTY
@given(case=points(), sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)), shared=st.booleans(), seed=st.integers(0, 2**32))
def test_affine_is_grid_sample_of_affine_grid(case: tuple[Array, Array], sizes: tuple[int, int], shared: bool, seed: int) -> None:
    x = torch.from_numpy(case[0])
    matrix = torch.from_numpy(np.random.default_rng(seed).normal(size=(1 if shared else len(x), 6)))
    grid = F.affine_grid(matrix.reshape(-1, 2, 3).expand(len(x), -1, -1), [len(x), 1, *sizes], align_corners=True)
    result = ops.affine(x, matrix, *sizes, "bilinear", "constant", 0.0, "normalized_minus_one_to_one", True)
    torch.testing.assert_close(result, F.grid_sample(x, grid, align_corners=True))
