"""Data sets as uint8 tensors in memory, verified before they are used, and batched augmentation on the device.

To add one: a function that returns a Dataset, a line in DATASETS, its name in recipe.Data.
"""

from toolkit.data.datasets import DATASETS, Dataset, held_out, load, stratified_subset

__all__ = ["DATASETS", "Dataset", "held_out", "load", "stratified_subset"]
