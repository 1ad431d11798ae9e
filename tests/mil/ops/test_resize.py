"""Resizing against NumPy's interp, SciPy's map_coordinates, PyTorch's own kernels and ONNX's RoiAlign, in float64."""

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops import resize as ops

Array = Any
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
SIZE = st.integers(1, 7)
MODES = {  # the definition's grid points, in terms of NumPy's linspace
    "STRICT_ALIGN_CORNERS": lambda x, n: np.linspace(0, x - 1, n),
    "ALIGN_CORNERS": lambda x, n: np.linspace(0, x - 1, n) if n > 1 else np.array([(x - 1) / 2]),
    "DEFAULT": lambda x, n: np.minimum(x - 1, np.linspace(0, x - x / n, n)),
    "OFFSET_CORNERS": lambda x, n: np.minimum(x - 1, np.linspace(0.5 * max(1, x - 1) / n, (n - 0.5) * max(1, x - 1) / n, n)),
    "UNALIGN_CORNERS": lambda x, n: np.clip(np.linspace(0.5 * x / n - 0.5, (n - 0.5) * x / n - 0.5, n), 0, x - 1),
}
MODE = st.sampled_from(sorted(MODES))


@st.composite
def images(draw: Any, least: int = 3, most: int = 5) -> Array:
    shape = [draw(st.integers(1, 2)) for _ in range(draw(st.integers(least, most)) - 2)] + [draw(SIZE), draw(SIZE)]
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=shape).astype(dtype)


def agree(result: torch.Tensor, expected: Array, dtype: Any) -> None:
    assert result.numpy().dtype == dtype
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.numpy(), expected, *((3e-6, 3e-6) if dtype == np.float32 else (1e-11, 1e-11)))


def interpolated(x: Array, sizes: tuple[int, ...], mode: str) -> Array:
    y = x.astype(np.float64)
    for axis, count in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        points = MODES[mode](x.shape[axis], count)
        y = np.apply_along_axis(lambda row, points=points: np.interp(points, range(len(row)), row), axis, y)
    return y


def picked(x: Array, sizes: tuple[int, ...], offset: float) -> Array:
    """x[floor((i + offset) · X / N)] along the last axes, in whole numbers."""
    for axis, count in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        twice = int(2 * offset)
        x = x.take([(2 * i + twice) * x.shape[axis] // (2 * count) for i in range(count)], axis)
    return x


@PROPERTY
@given(x=images(), height=SIZE, width=SIZE, mode=MODE)
def test_resize_bilinear_interpolates_at_the_modes_points(x: Array, height: int, width: int, mode: str) -> None:
    agree(ops.resize_bilinear(torch.from_numpy(x), height, width, mode), interpolated(x, (height, width), mode), x.dtype)


@PROPERTY
@given(x=images(1, 4), data=st.data(), mode=MODE)
def test_resize_linear_interpolates_the_last_axes(x: Array, data: Any, mode: str) -> None:
    dims = data.draw(st.integers(0, x.ndim))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), min_size=dims, max_size=x.ndim)))
    sizes = tuple(n or i for n, i in zip(shape[len(shape) - dims :], x.shape[x.ndim - dims :], strict=True))
    agree(ops.resize(torch.from_numpy(x), shape, dims, "LINEAR", mode), interpolated(x, sizes, mode), x.dtype)


@PROPERTY
@given(x=images(1, 4), data=st.data(), whole=st.booleans())
def test_resize_nearest_takes_the_pixel_at_the_middle(x: Array, data: Any, whole: bool) -> None:
    x = (x * 100).astype(np.int32) if whole else x
    sizes = tuple(data.draw(st.lists(st.integers(1, 9), max_size=x.ndim)))
    result = ops.resize(torch.from_numpy(x), sizes, len(sizes), "NEAREST_NEIGHBOR")
    np.testing.assert_array_equal(result.numpy(), picked(x, sizes, 0.5), strict=True)


@PROPERTY
@given(x=images(), height=st.integers(1, 20), width=st.integers(1, 20))
def test_resize_nearest_neighbor_takes_the_pixel_at_the_middle(x: Array, height: int, width: int) -> None:
    result = ops.resize_nearest_neighbor(torch.from_numpy(x), height, width)
    np.testing.assert_array_equal(result.numpy(), picked(x, (height, width), 0.5), strict=True)


def scaled(x: Array, factors: tuple[float, float]) -> tuple[int, ...]:
    return tuple(int(np.float32(size) * np.float32(factor)) for size, factor in zip(x.shape[-2:], factors, strict=True))


FACTOR = st.sampled_from([1.0, 2.0, 3.0, 0.67, 1.12, 2.6, 0.5, 1 / 3, 5 / 3])


@PROPERTY
@given(x=images(), factors=st.tuples(FACTOR, FACTOR))
def test_upsample_nearest_neighbor_rounds_down(x: Array, factors: tuple[float, float]) -> None:
    sizes = scaled(x, factors)
    if 0 in sizes:
        with pytest.raises(ArtifactError, match="scale factors"):
            ops.upsample_nearest_neighbor(torch.from_numpy(x), *factors)
        return
    np.testing.assert_array_equal(ops.upsample_nearest_neighbor(torch.from_numpy(x), *factors).numpy(), picked(x, sizes, 0), strict=True)


def test_upsampled_sizes_are_rounded_to_float32_before_rounding_down() -> None:
    """0.7 as float32 is below 0.7, and 10 times it below 7, but nearer to 7 than to the next float32."""
    assert ops.upsample_bilinear(torch.ones(1, 10, 10), float(np.float32(0.7)), 0.7).shape == (1, 7, 7)


UPSAMPLED = {  # align_corners, half_pixel_centers: mode
    (True, None): "STRICT_ALIGN_CORNERS",
    (True, False): "STRICT_ALIGN_CORNERS",
    (False, None): "UNALIGN_CORNERS",
    (False, True): "UNALIGN_CORNERS",
    (False, False): "DEFAULT",
}


@PROPERTY
@given(x=images(), factors=st.tuples(FACTOR, FACTOR), corners=st.sampled_from(sorted(UPSAMPLED, key=str)))
def test_upsample_bilinear_interpolates_at_its_corners_points(x: Array, factors: tuple[float, float], corners: Any) -> None:
    sizes = scaled(x, factors)
    if 0 in sizes:
        return
    agree(ops.upsample_bilinear(torch.from_numpy(x), *factors, *corners), interpolated(x, sizes, UPSAMPLED[corners]), x.dtype)


@PROPERTY
@given(x=images(4, 4), scale=st.sampled_from([2, 3, 4]), align_corners=st.booleans())
def test_upsampling_by_whole_numbers_is_that_of_pytorch(x: Array, scale: int, align_corners: bool) -> None:
    image = torch.from_numpy(x)
    expected = F.interpolate(image.double(), scale_factor=scale, mode="bilinear", align_corners=align_corners)
    agree(ops.upsample_bilinear(image, scale, scale, align_corners), expected.numpy(), x.dtype)
    nearest = F.interpolate(image, scale_factor=scale, mode="nearest")
    assert torch.equal(ops.upsample_nearest_neighbor(image, scale, scale), nearest)
    assert torch.equal(ops.resize_nearest_neighbor(image, *nearest.shape[2:]), nearest)


@pytest.mark.parametrize("mode", MODES)
def test_infinity_stays_where_it_is_and_does_not_become_nan(mode: str) -> None:
    x = torch.tensor([[[1.0, math.inf, 3.0]]])
    assert ops.resize_bilinear(x, 1, 5, "ALIGN_CORNERS").tolist() == [[[1.0, math.inf, math.inf, math.inf, 3.0]]]
    assert not ops.resize_bilinear(x, 2, 7, mode).isnan().any()


@PROPERTY
@given(x=images(), data=st.data())
def test_crop_cuts_from_both_ends(x: Array, data: Any) -> None:
    cuts = [(a := data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1 - a))) for size in x.shape[-2:]]
    rows, columns = (range(size)[a : size - b] for size, (a, b) in zip(x.shape[-2:], cuts, strict=True))
    np.testing.assert_array_equal(ops.crop(torch.from_numpy(x), *cuts).numpy(), x.take(rows, -2).take(columns, -1), strict=True)


def table(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


SQUARE, FOUR = table(11, 22, 33, 44).reshape(1, 1, 2, 2), torch.arange(1.0, 17).reshape(1, 1, 4, 4)
FLOATS = table(-1, -2, -3.7, -1, 0, 0, 3.5, 1.2).reshape(1, 2, 2, 2)
WHOLE = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]).reshape(1, 2, 2, 2)
THREE_BOXES = table(0.1, 0.3, 1.3, 1.0, 0.5, 1.8, 1.0, 0.3, 0.0, 0.4, 0.6, 0.7).reshape(3, 4)
RESAMPLED = [
    (("bilinear", "constant", 6.17, "normalized_minus_one_to_one", True), (8.585, 6.17, 27.5, 6.17), (27.5, 44, 27.5, 44)),
    (("nearest", "border", -1.0, "unnormalized", False), (11, 11, 11, 44), (11, 44, 11, 44)),
    (("bilinear", "reflection", -1.0, "normalized_zero_to_one", True), (22, 36.3, 11, 34.1), (11, 44, 11, 44)),
    (("nearest", "symmetric", -1.0, "normalized_zero_to_one", False), (22, 33, 11, 33), (11, 44, 11, 44)),
]


@pytest.mark.parametrize(("settings", "floats", "whole"), RESAMPLED)
def test_resample_gives_apples_values(settings: Any, floats: tuple[float, ...], whole: tuple[float, ...]) -> None:
    torch.testing.assert_close(ops.resample(SQUARE, FLOATS, *settings).flatten(), table(*floats))
    for dtype in (torch.int8, torch.int32):
        torch.testing.assert_close(ops.resample(SQUARE, WHOLE.to(dtype), *settings).flatten(), table(*whole))


@pytest.mark.parametrize(
    ("box", "settings", "expected"),
    [
        ((1, 1, 2, 2), {"target_height": 2, "target_width": 2}, (6, 7, 10, 11)),
        ((1, 1, 2, 2), {}, (8.5,)),
        ((2, 2, 1, 1), {"target_height": 2, "target_width": 2}, (11, 10, 7, 6)),
        ((0, 0, 0, 1 / 3, 1 / 3), {"target_height": 2, "target_width": 2, "normalized_coordinates": True}, (1, 2, 5, 6)),
    ],
)
def test_crop_resize_gives_apples_values(box: tuple[float, ...], settings: Any, expected: tuple[float, ...]) -> None:
    result = ops.crop_resize(FOUR, table(*box).reshape(1, 1, -1, 1, 1), sampling_mode="ALIGN_CORNERS", **settings)
    torch.testing.assert_close(result.flatten(), table(*expected))


def test_crop_resize_of_ios17_gives_apples_values() -> None:
    result = ops.crop_resize(
        FOUR, None, 2, 2, True, sampling_mode="ALIGN_CORNERS", pad_value=10.0, boxes=THREE_BOXES, box_indices=torch.zeros(3).int()
    )
    expected = table(3.1, 5.2, 10, 10, 10, 7.9, 10, 13.9, 2.2, 3.1, 9.4, 10.3)
    torch.testing.assert_close(result.flatten(), expected)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ops.resize(table(-6, 9).reshape(1, 1, 1, 2, 1), (1, 1, 3, 2), 2, "NEAREST_NEIGHBOR"), (-6, -6, 9, 9, 9, 9)),
        (ops.resize(table(0, 1).reshape(1, 1, 2), (1, 1, 5), 2), (0, 0.4, 0.8, 1, 1)),
        (ops.upsample_nearest_neighbor(table(1, -2, 3).reshape(1, 1, 1, 3), 3.17, 0.67), (1, -2, 1, -2, 1, -2)),
        (ops.upsample_nearest_neighbor(table(1, -2, 3).reshape(1, 1, 1, 3), 2.0, 1.12), (1, -2, 3, 1, -2, 3)),
        (ops.upsample_bilinear(table(0, 1).reshape(1, 1, 2), 1.0, 2.6, False), (0, 0.1, 0.5, 0.9, 1)),
        (ops.upsample_bilinear(table(1, 2).reshape(1, 1, 1, 2), 1.0, 3.0, False, False), (1, 4 / 3, 5 / 3, 2, 2, 2)),
        (ops.resize_bilinear(table(0, 1).reshape(1, 1, 2), 1, 5, "OFFSET_CORNERS"), (0.1, 0.3, 0.5, 0.7, 0.9)),
    ],
)
def test_the_values_of_apples_other_tests(result: torch.Tensor, expected: tuple[float, ...]) -> None:
    torch.testing.assert_close(result.flatten(), table(*expected))


AFFINE = ("bilinear", "constant", 0.0, "normalized_minus_one_to_one", True)
ROI = torch.zeros(1, 1, 4, 1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.resize_bilinear(torch.ones(2, 2), 1, 1), "rank 2"),
        (lambda: ops.resize_bilinear(FOUR, 0, 1), "positive"),
        (lambda: ops.resize_bilinear(FOUR, 1, 1, "CORNERS"), "sampling_mode 'CORNERS'"),
        (lambda: ops.resize_nearest_neighbor(FOUR, 1, -1), "positive"),
        (lambda: ops.upsample_bilinear(FOUR, 2.0, 2.0, True, True), "half_pixel_centers"),
        (lambda: ops.upsample_bilinear(FOUR, math.nan), "scale factors"),
        (lambda: ops.upsample_bilinear(FOUR, math.inf), "scale factors"),
        (lambda: ops.upsample_nearest_neighbor(FOUR, -1.0), "scale factors"),
        (lambda: ops.resize(FOUR, (2, 2), 3), "resized_dims 3"),
        (lambda: ops.resize(FOUR, (1, 1, 1, 2, 2), 2), "resized_dims 2"),
        (lambda: ops.resize(FOUR, (2, 2), 2, "CUBIC"), "CUBIC"),
        (lambda: ops.resize(FOUR, (2, 2), 2, "NEAREST_NEIGHBOR", "UNALIGN_CORNERS"), "no formula"),
        (lambda: ops.resize(FOUR.int(), (2, 2), 2), "rounding"),
        (lambda: ops.resize(FOUR, (-1, 2), 2), "positive"),
        (lambda: ops.crop(FOUR, (2, 2), (0, 0)), "leave nothing"),
        (lambda: ops.crop(FOUR, (-1, 0), (0, 0)), ">= 0"),
        (lambda: ops.crop(FOUR, (1,), (0, 0)), "two numbers"),
        (lambda: ops.crop_resize(FOUR), "just one of"),
        (lambda: ops.crop_resize(FOUR, ROI, boxes=torch.zeros(1, 4)), "just one of"),
        (lambda: ops.crop_resize(FOUR, ROI, sampling_mode="UNALIGN_CORNERS"), "not defined"),
        (lambda: ops.crop_resize(FOUR, ROI[:, :, :3]), "roi has shape"),
        (lambda: ops.crop_resize(FOUR, ROI, 0), "positive"),
        (lambda: ops.crop_resize(FOUR, ROI, box_coordinate_mode="CORNERS"), "box_coordinate_mode"),
        (lambda: ops.crop_resize(FOUR, boxes=torch.zeros(1, 5)), "boxes have shape"),
        (lambda: ops.crop_resize(FOUR, boxes=torch.zeros(2, 4)), "takes image 0 or 1"),
        (lambda: ops.crop_resize(FOUR, boxes=torch.zeros(1, 4), box_indices=torch.tensor([-1])), "takes image -1"),
        (lambda: ops.crop_resize(FOUR, boxes=torch.zeros(1, 4), box_indices=torch.zeros(2)), "box_indices has shape"),
        (lambda: ops.resample(SQUARE, FLOATS, "cubic", *RESAMPLED[0][0][1:]), "sampling_mode 'cubic'"),
        (lambda: ops.resample(SQUARE, FLOATS, "nearest", "wrap", 0.0, "unnormalized", True), "padding_mode 'wrap'"),
        (lambda: ops.resample(SQUARE, FLOATS, "nearest", "border", 0.0, "normalized", True), "coordinates_mode 'normalized'"),
        (lambda: ops.resample(SQUARE, FLOATS.expand(2, -1, -1, -1), *RESAMPLED[0][0]), "coordinates"),
        (lambda: ops.affine(SQUARE, torch.ones(2, 6), 2, 2, *AFFINE), "transform_matrix"),
        (lambda: ops.affine(SQUARE, torch.ones(1, 6), 2, 0, *AFFINE), "positive"),
        (lambda: ops.affine(SQUARE, torch.ones(1, 6), 2, 2, *AFFINE[:4], False), "align_corners=False"),
        (lambda: ops.affine(SQUARE, torch.ones(1, 6), 2, 2, "bilinear", "constant", 1.0, *AFFINE[3:]), "padding_value 1.0"),
    ],
)
def test_what_has_no_meaning_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.affine(x, torch.ones(1, 6, device=x.device), 3, 5, *AFFINE),
        lambda x: ops.crop(x, (0, 1), (1, 0)),
        lambda x: ops.crop_resize(x, ROI.to(x.device), 3, 5),
        lambda x: ops.crop_resize(x, torch.zeros(2, 1, 5, 1, 1, device=x.device), 3, 5, sampling_mode="OFFSET_CORNERS"),
        lambda x: ops.crop_resize(x, None, 3, 5, sampling_mode="ALIGN_CORNERS", boxes=torch.zeros(2, 4, device=x.device)),
        lambda x: ops.resample(x, torch.zeros(2, 3, 5, 2, device=x.device), *RESAMPLED[0][0]),
        lambda x: ops.resample(x, torch.zeros(2, 3, 5, 2, device=x.device), *RESAMPLED[3][0]),
        lambda x: ops.resize(x, (3, 0), 2),
        lambda x: ops.resize(x, (3, 5), 2, "NEAREST_NEIGHBOR"),
        *(functools.partial(lambda x, mode: ops.resize_bilinear(x, 3, 5, mode), mode=mode) for mode in MODES),
        lambda x: ops.resize_nearest_neighbor(x, 3, 5),
        *(
            functools.partial(lambda x, corners: ops.upsample_bilinear(x, 1.5, 0.7, *corners), corners=c)
            for c in itertools.islice(UPSAMPLED, 5)
        ),
        lambda x: ops.upsample_nearest_neighbor(x, 1.5, 0.7),
    ],
)
def test_meta_tensors_give_the_real_shape(call: Any) -> None:
    x = torch.ones(2, 3, 4, 6)
    assert call(x.to("meta")).shape == call(x).shape
