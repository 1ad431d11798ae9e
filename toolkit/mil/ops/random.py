"""Random ops. Only shape, support and distribution of a result are defined, never the stream: Apple's generator is not known.

The same seed gives the same values in each run of this evaluator; seed -1, the default, gives new ones. Results are
float32; where the program declares fp16, rounding may carry random_uniform up to `high`.
"""

import math

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.limits import current
from toolkit.mil.ops.types import Ints, Tensor


def random_bernoulli(shape: Ints, prob: float = 0.5, seed: int = -1) -> Tensor:
    """1 with probability `prob`, else 0, as floats of `shape`. iOS15/random.py"""
    if not 0 <= prob <= 1:
        raise ArtifactError(f"prob {prob} is no probability")
    return (torch.rand(_checked(shape), generator=_generator(seed), dtype=torch.float64) < prob).float()


def random_categorical(x: Tensor, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    """`size` indices drawn with replacement for each row of x [*D, classes]: [*D, size], in the float type of x. iOS15/random.py

    Class i has probability softmax(x)_i with mode "logits", x_i / Σ x with "probs" (the definition takes their logarithm).
    """
    if mode not in ("logits", "probs"):
        raise ArtifactError(f"mode {mode!r} is neither 'logits' nor 'probs'")
    if x.ndim < 1 or size < 1:
        raise ArtifactError(f"x of rank {x.ndim} and size {size}: both must be at least 1")
    shape = (*x.shape[:-1], size)
    if x.is_meta:
        return x.new_empty(shape)
    weights = (torch.softmax(x.double(), -1) if mode == "logits" else x.double()).reshape(-1, x.shape[-1])
    if not bool(((weights >= 0) & weights.isfinite()).all() & (weights.sum(-1) > 0).all()):
        raise ArtifactError("a row of x gives no probabilities: it holds a negative or non-finite value, or only zeros")
    return torch.multinomial(weights, size, replacement=True, generator=_generator(seed)).reshape(shape).to(x.dtype)


def random_normal(shape: Ints, mean: float = 0.0, stddev: float = 1.0, seed: int = -1) -> Tensor:
    """mean + stddev · standard normal values, of `shape`. iOS15/random.py"""
    if not stddev >= 0:
        raise ArtifactError(f"stddev {stddev} is negative")
    return mean + stddev * torch.randn(_checked(shape), generator=_generator(seed))


def random_uniform(shape: Ints, low: float = 0.0, high: float = 1.0, seed: int = -1) -> Tensor:
    """Values of `shape`, uniform in [low, high); low where high = low; high < low is undefined and refused. iOS15/random.py"""
    if not low <= high:
        raise ArtifactError(f"high {high} is smaller than low {low}")
    values = low + (high - low) * torch.rand(_checked(shape), generator=_generator(seed), dtype=torch.float64)
    below = torch.nextafter(torch.tensor(high, dtype=torch.float32), torch.tensor(-math.inf))
    return values.float().clamp(max=max(below.item(), low))  # rounded to float32, values just below high may reach it


def _checked(shape: Ints) -> Ints:
    if not all(size > 0 for size in shape):
        raise ArtifactError(f"shape {list(shape)} has an axis that is not positive")
    if math.prod(shape) > (most := current().budget.elements):
        raise ArtifactError(f"shape {list(shape)} has more than {most} elements")
    return shape


def _generator(seed: int) -> torch.Generator:
    generator = torch.Generator()
    if seed == -1:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
