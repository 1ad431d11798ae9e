"""Check what came back from a runtime before it is used: a file from elsewhere may name, shape and fill its outputs as it likes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError

Array = np.ndarray[Any, Any]


def rows_of(found: Mapping[str, Any], name: str, who: str, images: int, classes: int) -> Array:
    """The output of that name, (images, classes) of numbers. Raises ArtifactError where it is missing, or anything else.

    `who`: the artifact and its runtime, for the message. The numbers may be NaN: see `finite`.
    """
    if name not in found:
        raise ArtifactError(f"{who} gives {', '.join(map(str, found)) or 'nothing'}, and no {name}")
    rows = found[name]
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        kind = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ArtifactError(f"{who} gave {name} as {kind}, not as numbers")
    if rows.shape != (images, classes):
        raise ArtifactError(f"{who} gave {name} {rows.shape} for {images} images; ({images}, {classes}) are expected")
    return rows


def finite(rows: Array, name: str, who: str) -> Array:
    """`rows`, of which an answer is made. Raises ArtifactError where one of them holds NaN or infinity."""
    wrong = int((~np.isfinite(rows)).sum())
    if wrong:
        raise ArtifactError(f"{who} gave {name} of which {wrong} of {rows.size} are no numbers. Look into the file: toolkit debug")
    return rows
