"""From a recipe to a checkpoint: the loop, the start-up self-test of a device, and the measured accuracy.

`train` is the verb; loop.py reads top to bottom.
"""

from toolkit.training.train import TrainResult, train

__all__ = ["TrainResult", "train"]
