"""Every op against an independent computation in float64: PyTorch's, NumPy's or a closed form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from toolkit.errors import ArtifactError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.ops.table import OPS

RNG = np.random.default_rng(0)
IMAGE = (1, 4, 7, 6)
X = RNG.normal(size=IMAGE).astype(np.float32)
W = RNG.normal(size=(6, 2, 3, 2)).astype(np.float32)
B = RNG.normal(size=6).astype(np.float32)
V = RNG.uniform(0.5, 2, size=(4, 4)).astype(np.float32)  # rows: mean, variance, gamma, beta
M = RNG.normal(size=(5, 6)).astype(np.float32)
x64, w64, b64, v64, m64 = (torch.from_numpy(each).double() for each in (X, W, B, V, M))


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


def _excluded_average() -> torch.Tensor:
    return F.avg_pool2d(x64, (3, 2), (2, 1), (1, 1), count_include_pad=False)


def _same_average() -> torch.Tensor:
    """same, 7x6 with kernel 2x2 and stride 2: one row of zeros after, none before."""
    return F.avg_pool2d(F.pad(x64, (0, 0, 0, 1)), 2, 2)


CONV = {"weight": W, "bias": B, "groups": 2, "strides": [2, 1], "dilations": [1, 2]}
CASES: dict[str, tuple[Callable[[Any], Any], Callable[[], torch.Tensor]]] = {
    "add": (lambda x: _mb().add(x=x, y=X[:, :1]), lambda: x64 + x64[:, :1]),
    "sub": (lambda x: _mb().sub(x=x, y=np.float32(3)), lambda: x64 - 3),
    "mul": (lambda x: _mb().mul(x=x, y=X[0]), lambda: x64 * x64[0]),
    "real_div": (lambda x: _mb().real_div(x=x, y=np.float32(7)), lambda: x64 / 7),
    "relu": (lambda x: _mb().relu(x=x), lambda: x64.clamp(min=0)),
    "sigmoid": (lambda x: _mb().sigmoid(x=x), lambda: 1 / (1 + torch.exp(-x64))),
    "clip": (lambda x: _mb().clip(x=x, alpha=-0.5, beta=0.25), lambda: x64.clamp(-0.5, 0.25)),
    "cast": (lambda x: _mb().cast(x=x, dtype="int32"), lambda: x64.trunc()),
    "conv-custom": (
        lambda x: _mb().conv(x=x, pad_type="custom", pad=[1, 0, 2, 1], **CONV),
        lambda: F.conv2d(F.pad(x64, (2, 1, 1, 0)), w64, b64, (2, 1), 0, (1, 2), 2),
    ),
    "conv-symmetric": (
        lambda x: _mb().conv(x=x, pad_type="custom", pad=[1, 1, 2, 2], **CONV),
        lambda: F.conv2d(x64, w64, b64, (2, 1), (1, 2), (1, 2), 2),
    ),
    # 7 rows, kernel 3, stride 2: 4 outputs, 2 rows of padding; 6 columns, effective kernel 3: 2 columns.
    "conv-same": (
        lambda x: _mb().conv(x=x, pad_type="same", **CONV),
        lambda: F.conv2d(F.pad(x64, (1, 1, 1, 1)), w64, b64, (2, 1), 0, (1, 2), 2),
    ),
    # kernel 3x2 without dilation: 2 rows and 1 column in all; the odd column goes after (same) or before (same_lower).
    "conv-same-odd": (
        lambda x: _mb().conv(x=x, weight=W, groups=2, pad_type="same"),
        lambda: F.conv2d(F.pad(x64, (0, 1, 1, 1)), w64, groups=2),
    ),
    "conv-same_lower": (
        lambda x: _mb().conv(x=x, weight=W, groups=2, pad_type="same_lower"),
        lambda: F.conv2d(F.pad(x64, (1, 0, 1, 1)), w64, groups=2),
    ),
    "conv-valid": (lambda x: _mb().conv(x=x, weight=W, groups=2, pad_type="valid"), lambda: F.conv2d(x64, w64, groups=2)),
    "max_pool": (
        lambda x: _mb().max_pool(x=x, kernel_sizes=[3, 2], strides=[2, 1], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda: F.max_pool2d(x64, (3, 2), (2, 1), 1),
    ),
    "avg_pool": (
        lambda x: _mb().avg_pool(x=x, kernel_sizes=[3, 2], strides=[2, 1], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda: F.avg_pool2d(x64, (3, 2), (2, 1), 1),
    ),
    "avg_pool-excluded": (
        lambda x: _mb().avg_pool(
            x=x,
            kernel_sizes=[3, 2],
            strides=[2, 1],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        _excluded_average,
    ),
    "avg_pool-same": (
        lambda x: _mb().avg_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="same"),
        _same_average,
    ),
    "batch_norm": (
        lambda x: _mb().batch_norm(x=x, mean=V[0], variance=V[1], gamma=V[2], beta=V[3], epsilon=0.1),
        lambda: F.batch_norm(x64, v64[0], v64[1], v64[2], v64[3], eps=float(np.float32(0.1))),
    ),
    "linear": (lambda x: _mb().linear(x=_mb().squeeze(x=x, axes=[0]), weight=M), lambda: x64[0] @ m64.T),
    "matmul": (lambda x: _mb().matmul(x=x, y=M, transpose_y=True), lambda: x64 @ m64.T),
    "softmax": (lambda x: _mb().softmax(x=x, axis=1), lambda: x64.exp() / x64.exp().sum(1, keepdim=True)),
    "reduce_mean": (lambda x: _mb().reduce_mean(x=x, axes=[-2, -1], keep_dims=True), lambda: x64.mean((2, 3), True)),
    "reduce_mean-all": (lambda x: _mb().reduce_mean(x=x), lambda: x64.mean().reshape(1)),
    "upsample_bilinear": (
        lambda x: _mb().upsample_bilinear(
            x=x, scale_factor_height=1.3, scale_factor_width=2.0, align_corners=False
        ),
        lambda: F.interpolate(x64, size=(9, 12), mode="bilinear", align_corners=False),
    ),
    "reshape": (lambda x: _mb().reshape(x=x, shape=[1, -1, 6]), lambda: x64.reshape(1, 28, 6)),
    "expand_dims": (
        lambda x: _mb().expand_dims(x=_mb().squeeze(x=x, axes=[0]), axes=[-1, 1]),
        lambda: x64[0].unsqueeze(1).unsqueeze(-1),
    ),
    "squeeze": (lambda x: _mb().squeeze(x=x), lambda: x64[0]),
    "transpose": (lambda x: _mb().transpose(x=x, perm=[0, 2, -1, 1]), lambda: x64.permute(0, 2, 3, 1)),
    "concat": (lambda x: _mb().concat(values=[x, X, x], axis=-1), lambda: torch.cat([x64, x64, x64], -1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def together(build: Callable[..., Path]) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Each case's output, exact and fp32, from ONE program that computes them all: one conversion instead of thirty."""

    def body(x: Any) -> Any:
        # a copy of every result, so that none is the input itself or shared
        return tuple(make(x) for make, _ in CASES.values())

    path = build(body, IMAGE)
    results = [list(ReferenceEvaluator(path, mode).predict({"x": X}).values()) for mode in ("exact", "fp32")]
    return dict(zip(CASES, zip(*results, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_op_equals_the_independent_float64_value(case: str, together: dict[str, Any]) -> None:
    exact, fp32 = together[case]
    expected = CASES[case][1]().numpy()
    assert exact.shape == fp32.shape == expected.shape
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fp32, expected, rtol=1e-5, atol=1e-5)


MIXING = {"linear", "squeeze", "expand_dims", "reduce_mean-all", "concat"}  # these drop axis 0, or lack a batch of their own


def test_ops_that_batching_allows_give_the_same_batched(build: Callable[..., Path]) -> None:
    """One program of every other case, and a few that keep axis 0: proved to be batchable, and so they are."""
    keep = [make for case, (make, _) in CASES.items() if case not in MIXING]
    more: list[Callable[[Any], Any]] = [
        lambda x: _mb().linear(x=_mb().reshape(x=x, shape=[1, 28, 6]), weight=M),
        lambda x: _mb().squeeze(x=_mb().expand_dims(x=x, axes=[1]), axes=[1]),
        lambda x: _mb().concat(values=[x, x], axis=1),
        lambda x: _mb().matmul(x=_mb().reshape(x=x, shape=[1, 168]), y=np.ones((168, 3), np.float32)),
    ]
    evaluator = ReferenceEvaluator(build(lambda x: tuple(make(x) for make in keep + more), IMAGE), "exact")
    assert evaluator.why_not_batched is None
    images = np.random.default_rng(3).normal(size=(5, *IMAGE[1:]))
    batched, looped = evaluator.predict_array(images, batch_size=5), evaluator.predict_array(images, batch_size=1)
    for name, values in looped.items():
        np.testing.assert_allclose(batched[name], values, rtol=1e-12, atol=1e-12, err_msg=name)


def test_every_op_of_the_table_has_a_test_of_its_own() -> None:
    """By its function's name, in the tests of the ops or of control flow."""
    texts = "".join(
        path.read_text() for path in [*Path(__file__).parent.glob("ops/test_*.py"), Path(__file__).with_name("test_control.py")]
    )
    untested = [name for name, op in OPS.items() if op.function.__name__ not in texts and name not in texts]
    assert untested == []


@pytest.mark.parametrize("align", [True, False])
def test_upsampling_samples_the_grid_the_definition_prints(build: Callable[..., Path], align: bool) -> None:
    """The example in the docstring of iOS15/image_resizing.py: two points to six."""
    grid = [0, 0.2, 0.4, 0.6, 0.8, 1] if align else [0, 0, 1 / 3, 2 / 3, 1, 1]
    path = build(lambda x: _mb().upsample_bilinear(x=x, scale_factor_width=3.0, align_corners=align), (1, 1, 2))
    (result,) = ReferenceEvaluator(path, "exact").predict({"x": np.array([[[0.0, 1.0]]])}).values()
    np.testing.assert_allclose(result[0, 0], grid, atol=1e-15)


def test_cast_out_of_range_is_refused_not_guessed(build: Callable[..., Path]) -> None:
    evaluator = ReferenceEvaluator(build(lambda x: _mb().cast(x=x, dtype="int32"), (2,)))
    assert next(iter(evaluator.predict({"x": np.float32([-1.9, 1.9])}).values())).tolist() == [-1, 1]
    for bad in (3e9, np.nan, np.inf):
        with pytest.raises(ArtifactError, match="outside int32"):
            evaluator.predict({"x": np.float32([0, bad])})


def test_fp16_overflows_to_inf_as_typed_and_stays_finite_in_the_other_modes(build: Callable[..., Path]) -> None:
    """65519 rounds down to 65504, the largest fp16; from 65520 on IEEE 754 gives infinity. 300² = 90000."""
    path = build(lambda x: _mb().mul(x=x, y=x), (3,), dtype="fp16")
    x = np.float16([3, 255.875, 300])
    result = {mode: next(iter(ReferenceEvaluator(path, mode).predict({"x": x}).values())) for mode in ("as-typed", "exact", "fp32")}
    np.testing.assert_array_equal(result["as-typed"], np.float32([9, 65472, np.inf]))
    assert result["exact"].tolist() == [9, 255.875**2, 90000]
    assert result["fp32"].tolist() == [9, np.float32(255.875**2), 90000]
    assert [result[mode].dtype for mode in result] == [np.float32, np.float64, np.float32]


def test_as_typed_rounds_to_the_nearest_even_fp16(build: Callable[..., Path]) -> None:
    """NumPy's own float32 -> float16 is the judge; subnormals included."""
    path = build(lambda x: _mb().cast(x=x, dtype="fp16"), (512,))
    x = (RNG.normal(size=512) * np.logspace(-9, 4, 512)).astype(np.float32)
    (result,) = ReferenceEvaluator(path).predict({"x": x}).values()
    np.testing.assert_array_equal(result, x.astype(np.float16).astype(np.float32))
