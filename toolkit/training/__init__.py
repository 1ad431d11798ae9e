"""From a recipe to a checkpoint: the loop, the start-up self-test of a device, and the measured accuracy.

`train` is the verb (fit.py); loop.py reads top to bottom; launcher.py starts several processes that are one run.
"""

from toolkit.training.fit import TrainResult, train
from toolkit.training.launcher import end_with_launcher, goal_missed, launch, report
from toolkit.training.seeds import SeedsResult, train_seeds

__all__ = ["SeedsResult", "TrainResult", "end_with_launcher", "goal_missed", "launch", "report", "train", "train_seeds"]
