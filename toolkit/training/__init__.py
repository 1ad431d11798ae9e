"""From a recipe to a checkpoint: the loop, the start-up self-test of a device, and the measured accuracy.

`train` is the verb (fit.py); loop.py reads top to bottom; distributed.py makes several processes one run,
which launcher.py starts.
"""

from toolkit.training.distributed import launched, leads
from toolkit.training.fit import TrainResult, train
from toolkit.training.launcher import goal_missed, launch, report
from toolkit.training.seeds import SeedsResult, train_seeds

__all__ = ["SeedsResult", "TrainResult", "goal_missed", "launch", "launched", "leads", "report", "train", "train_seeds"]
