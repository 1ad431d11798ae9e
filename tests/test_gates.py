"""Gates: derived from roundoff and layers, the recipe's own before that, and close to what rounding really does."""

import math

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.gates import SAFETY, allowed, relative_error
from toolkit.recipe import Gate, Gates


def test_one_layer_by_hand():
    """Two fp16 roundings and 100 products summed in float32, after a resize to 32 pixels."""
    assert relative_error([100], 32, "fp16") == pytest.approx(math.sqrt(2 * 2**-22 + (100 + 32**2) * 2**-48))
    assert relative_error([100], 32, "fp32") == pytest.approx(2**-24 * math.sqrt(2 + 100 + 32**2))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_estimate_is_what_rounding_does(precision):
    """A chain of random layers, weights and results rounded: within a factor of three, and never above SAFETY times it."""
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    torch.manual_seed(0)
    x = y = torch.randn(64, 256, dtype=torch.float64)
    for _ in range(12):
        weight = torch.randn(256, 256, dtype=torch.float64) / 16
        x, y = x @ weight, (y @ weight.to(dtype).double()).to(dtype).double()
    error = float((y - x).norm() / x.norm())
    estimate = relative_error([256] * 12, 0, precision)
    assert estimate / 3 < error < estimate * 1.5


@pytest.fixture
def manifest(exported):
    return Artifact.open(exported.exports / "coreml-fp16").manifest


@pytest.fixture
def checkpoint(exported):
    return Checkpoint.open(exported.checkpoint)


def test_layers_are_counted_from_the_checkpoint(checkpoint, manifest):
    """The tiny network: convolutions of 9 and 144 products, a linear layer of 128."""
    found = allowed(Gates(), checkpoint, manifest, 10.0)
    relative = relative_error([9, 144, 128], 32, "fp16")
    assert found.max_abs_logit == pytest.approx(SAFETY * relative * 10)
    assert found.min_snr_db == pytest.approx(-20 * np.log10(2 * relative))
    assert (found.max_changed, found.max_accuracy_loss) == (None, None)
    assert found.why.startswith("3 layers in fp16 round off about 1.2e-03")


def test_the_recipe_goes_first(checkpoint, manifest):
    found = allowed(Gates(fp16=Gate(max_changed=1, max_abs_logit=0.5, min_snr_db=30.0)), checkpoint, manifest, 10.0)
    assert (found.max_changed, found.max_abs_logit, found.min_snr_db, found.why) == (1, 0.5, 30.0, "set by the recipe")


def test_a_runtime_that_computes_in_another_precision_has_the_gate_of_that(checkpoint, manifest):
    wide, narrow = (allowed(Gates(), checkpoint, manifest, 1.0, precision).max_abs_logit for precision in ("bf16", "fp32"))
    assert wide is not None
    assert narrow is not None
    assert wide > 1000 * narrow


def test_compressed_weights_are_judged_by_accuracy_alone(checkpoint, manifest):
    found = allowed(Gates(), checkpoint, manifest.model_copy(update={"compression": "int4"}), 10.0)
    assert (found.max_changed, found.max_abs_logit, found.min_snr_db, found.max_accuracy_loss) == (None, None, None, 0.01)
