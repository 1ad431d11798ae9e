"""What goes into a model and comes out: named host arrays, and their specification. Nothing here computes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Batch = dict[str, "np.ndarray[Any, Any]"]

IMAGE, LOGITS, PROBABILITIES, CLASS_LABEL = "image", "logits", "probabilities", "classLabel"  # the same in every format


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One named input or output. `shape` counts the batch axis, -1 where any size is taken; values lie in low..high."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None
