"""What an exported file may differ by from PyTorch, derived from its number format and from the network's own layers.

Rounding errors of independent layers add up like a random walk (Higham and Mary, SIAM J. Sci. Comput. 41, 2019): relative
to its size the result of L layers is off by about √(Σ 2u² + n·v²), with u the unit roundoff of what is stored (a layer's
weights, and its result), v that of the sums (float32 everywhere) and n the products in each sum. A resize to S pixels adds
(S·v)²: it computes its places on an axis of that length in float32. No constant is fitted; SAFETY says how far beyond that
the largest single logit, and RMS_SAFETY how far the whole, may lie.
"""

import math
from dataclasses import dataclass

from toolkit.artifact import Manifest
from toolkit.checkpoint import Checkpoint
from toolkit.recipe import Gates

UNIT_ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
SUMS = UNIT_ROUNDOFF["fp32"]
SAFETY = 4.0  # the largest of some 10^5 nearly normal errors lies at 4.4 σ, and a rounding's σ is u/√3
RMS_SAFETY = 2.0


@dataclass(frozen=True)
class Allowed:
    """The gates of one artifact on one runtime. What is None is not judged.

    `max_changed` is for each 10,000 images, `max_accuracy_loss` a share of 1. `why`: where the figures come from.
    """

    max_changed: int | None
    max_abs_logit: float | None
    min_snr_db: float | None
    max_accuracy_loss: float | None
    why: str


def relative_error(sums: list[int], size: int, precision: str) -> float:
    """About how large rounding errors are, relative to the result. `sums`: products in each sum of a layer; `size`: pixels a side."""
    unit = UNIT_ROUNDOFF[precision]
    return math.sqrt((size * SUMS) ** 2 + sum(2 * unit**2 + products * SUMS**2 for products in sums))


def rounding(checkpoint: Checkpoint, precision: str) -> float:
    """How far one file's logits for one image may lie apart, by whatever way it is computed: a share of its largest logit."""
    return SAFETY * _of(checkpoint, precision)[1]


def _of(checkpoint: Checkpoint, precision: str) -> tuple[list[int], float]:
    """(products in each sum, layer by layer; how far off they leave the result, relative to it)."""
    sums = [math.prod(shape[1:]) for shape in checkpoint.shapes().values() if len(shape) >= 2]
    return sums, relative_error(sums, checkpoint.recipe.preprocess.size, precision)


def allowed(gates: Gates, checkpoint: Checkpoint, manifest: Manifest, largest_logit: float, precision: str | None = None) -> Allowed:
    """What the recipe sets goes before what is derived; of compressed weights, which are other weights, nothing is derived.

    `largest_logit`: of |logit| over the images compared. `precision`: what a runtime computes in, if not the artifact's.
    """
    precision = precision or manifest.precision
    if manifest.compression is not None:
        gate = gates.compressed
        return Allowed(gate.max_changed, gate.max_abs_logit, gate.min_snr_db, gate.max_accuracy_loss, "compressed: judged by its accuracy")
    gate = gates.of(precision)
    sums, relative = _of(checkpoint, precision)
    derived = f"{len(sums)} layers in {precision} round off about {relative:.1e} of the result"
    return Allowed(
        gate.max_changed,
        SAFETY * relative * largest_logit if gate.max_abs_logit is None else gate.max_abs_logit,
        -20 * math.log10(RMS_SAFETY * relative) if gate.min_snr_db is None else gate.min_snr_db,
        gate.max_accuracy_loss,
        derived if gate.max_abs_logit is None else "set by the recipe",
    )


def wider(gates: Gates, checkpoint: Checkpoint, manifest: Manifest, largest_logit: float) -> list[str]:
    """What the recipe allows beyond what is derived, in words: a reader cannot know how good a reason there was."""
    own, derived = (allowed(each, checkpoint, manifest, largest_logit) for each in (gates, Gates()))
    pairs = (
        ("max_abs_logit", own.max_abs_logit, derived.max_abs_logit, 1), ("min_snr_db", own.min_snr_db, derived.min_snr_db, -1),
        ("max_accuracy_loss", own.max_accuracy_loss, derived.max_accuracy_loss, 1),
    )  # fmt: skip
    which = "compressed" if manifest.compression is not None else manifest.precision
    return [
        f"recipe.toml allows more than what is derived: gates.{which}.{name} is {'not set' if mine is None else f'{mine:.3g}'}, "
        f"by default it would be {usual:.3g}"
        for name, mine, usual, sign in pairs
        if usual is not None and (mine is None or sign * (mine - usual) > 1e-9 * abs(usual))
    ]
