"""Random ops: shape, support, distribution (SciPy's tests, with fixed seeds) and reproducibility."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.errors import ArtifactError
from toolkit.mil.ops import random as ops

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, max_side=3)
SEEDS = [0, 7, -5]
N = 20_000
P = 1e-4  # the seeds are fixed: a right distribution passes once and for all

DRAWS: dict[str, Callable[[tuple[int, ...], int], torch.Tensor]] = {
    "bernoulli": lambda shape, seed: ops.random_bernoulli(shape, seed=seed),
    "categorical": lambda shape, seed: ops.random_categorical(torch.zeros(*shape[:-1], 1000), size=shape[-1], seed=seed),
    "normal": lambda shape, seed: ops.random_normal(shape, seed=seed),
    "uniform": lambda shape, seed: ops.random_uniform(shape, seed=seed),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_repeats_its_values_and_minus_one_does_not(name: str) -> None:
    draw, shape = DRAWS[name], (5, 40)
    assert torch.equal(draw(shape, 3), draw(shape, 3))
    assert not torch.equal(draw(shape, 3), draw(shape, 4))
    assert not torch.equal(draw(shape, -1), draw(shape, -1))


def test_by_default_each_call_draws_anew_from_the_standard_distribution() -> None:
    for draw in (ops.random_bernoulli, ops.random_normal, ops.random_uniform):
        assert not torch.equal(draw((100,)), draw((100,)))
    logits = torch.zeros(100, 1000)
    assert not torch.equal(ops.random_categorical(logits), ops.random_categorical(logits))
    assert torch.equal(ops.random_bernoulli((100,), seed=1), ops.random_bernoulli((100,), 0.5, 1))
    assert torch.equal(ops.random_normal((100,), seed=1), ops.random_normal((100,), 0.0, 1.0, 1))
    assert torch.equal(ops.random_uniform((100,), seed=1), ops.random_uniform((100,), 0.0, 1.0, 1))


@pytest.mark.parametrize("name", DRAWS)
def test_the_generator_of_the_process_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    DRAWS[name]((2, 3), 1)
    DRAWS[name]((2, 3), -1)
    assert torch.equal(torch.get_rng_state(), before)


@PROPERTY
@given(shape=SHAPES, seed=st.integers(-(2**31), 2**31 - 1))
def test_any_shape_is_filled_with_float32(shape: tuple[int, ...], seed: int) -> None:
    for result in (ops.random_bernoulli(shape, 0.5, seed), ops.random_normal(shape, 1, 2, seed), ops.random_uniform(shape, 0, 1, seed)):
        assert result.shape == shape
        assert result.dtype == torch.float32


@PROPERTY
@given(shape=SHAPES, value=st.integers(-8, 8).map(float), prob=st.sampled_from([0.0, 1.0]))
def test_degenerate_distributions_have_one_value(shape: tuple[int, ...], value: float, prob: float) -> None:
    assert (ops.random_bernoulli(shape, prob) == prob).all()
    assert (ops.random_normal(shape, value, 0.0) == value).all()
    assert (ops.random_uniform(shape, value, value) == value).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("prob", [0.1, 0.5, 0.75])
def test_bernoulli_is_one_with_its_probability(prob: float, seed: int) -> None:
    values = ops.random_bernoulli((N // 4, 4), prob, seed)
    assert set(values.unique().tolist()) == {0.0, 1.0}
    assert scipy.stats.binomtest(int(values.sum()), N, prob).pvalue > P


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("mean", "stddev"), [(0.0, 1.0), (-3.0, 0.5), (100.0, 20.0)])
def test_normal_has_its_distribution(mean: float, stddev: float, seed: int) -> None:
    values = ops.random_normal((N,), mean, stddev, seed).numpy()
    assert scipy.stats.kstest(values, scipy.stats.norm(mean, stddev).cdf).pvalue > P


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (10.0, 10.5)])
def test_uniform_has_its_distribution(low: float, high: float, seed: int) -> None:
    values = ops.random_uniform((N,), low, high, seed).numpy()
    assert low <= values.min()
    assert values.max() < high
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > P


def test_uniform_never_reaches_high() -> None:
    above = float(np.nextafter(np.float32(1), np.float32(2)))  # half of the values round up to it
    assert (ops.random_uniform((1000,), 1.0, above, 0) == 1.0).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", ["logits", "probs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_categorical_draws_each_class_with_its_probability(dtype: torch.dtype, mode: str, seed: int) -> None:
    weights = np.array([[[1.0, 2.0, 5.0]], [[4.0, 0.5, 0.5]]])
    x = torch.tensor(np.log(weights) - 7 if mode == "logits" else weights, dtype=dtype)
    values = ops.random_categorical(x, mode, N, seed)
    assert values.shape == (2, 1, N)
    assert values.dtype == dtype
    for row, weight in zip(values[:, 0], weights[:, 0], strict=True):
        counts = np.bincount(row.numpy().astype(int), minlength=3)
        assert scipy.stats.chisquare(counts, N * weight / weight.sum()).pvalue > P


def test_categorical_takes_logits_and_one_sample_by_default() -> None:
    certain = torch.tensor([[-math.inf, 0.0, -math.inf], [900.0, 0.0, 0.0]])
    assert ops.random_categorical(certain).tolist() == [[1.0], [0.0]]
    assert ops.random_categorical(torch.ones(1), size=4).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.random_bernoulli((2,), 1.5), "prob 1.5"),
        (lambda: ops.random_bernoulli((2,), math.nan), "prob nan"),
        (lambda: ops.random_normal((2,), 0.0, -1.0), "stddev -1.0 is negative"),
        (lambda: ops.random_uniform((2,), 1.0, 0.0), "high 0.0 is smaller than low 1.0"),
        (lambda: ops.random_uniform((2, 0)), r"shape \[2, 0\]"),
        (lambda: ops.random_normal((-1,)), r"shape \[-1\]"),
        (lambda: ops.random_categorical(torch.ones(2), "log"), "mode 'log'"),
        (lambda: ops.random_categorical(torch.ones(2), size=0), "size 0"),
        (lambda: ops.random_categorical(torch.tensor([1.0, -0.5]), "probs"), "gives no probabilities"),
        (lambda: ops.random_categorical(torch.zeros(2, 2), "probs"), "gives no probabilities"),
        (lambda: ops.random_categorical(torch.tensor([1.0, math.nan])), "gives no probabilities"),
    ],
)
def test_what_has_no_distribution_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        call()


def test_categorical_of_a_meta_tensor_has_the_shape_and_type_of_a_real_one() -> None:
    x = torch.rand(2, 5, 3)
    real, meta = ops.random_categorical(x, size=4), ops.random_categorical(x.to("meta"), size=4)
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)
