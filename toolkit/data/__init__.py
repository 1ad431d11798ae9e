"""Data sets as uint8 tensors in memory, verified before they are used, and batched augmentation on the device.

To add one: a function that returns a Dataset, a line in DATASETS, its name in recipe.Data.
"""

from typing import TYPE_CHECKING

from toolkit.lazy import names_of

if TYPE_CHECKING:
    from toolkit.data.datasets import DATASETS, Dataset, held_out, load, stratified_subset
else:
    __getattr__ = names_of(__name__, {
        "datasets": "DATASETS Dataset held_out load stratified_subset",
    })  # fmt: skip

__all__ = ["DATASETS", "Dataset", "held_out", "load", "stratified_subset"]
