"""Known faults, planted in copies of a good artifact: the proof that the gate can fail, and that it names what is wrong.

To add a fault: a function that plants it, and a line in FAULTS (table.py).
"""

from toolkit.faults.alone import self_test_alone
from toolkit.faults.fault import Fault, NotApplicable, Planted
from toolkit.faults.selftest import IMAGES, SelfTestResult, SelfTestRow, self_test
from toolkit.faults.surgery import Layer, Surgery, open_surgery
from toolkit.faults.table import FAULTS

__all__ = [
    "FAULTS", "IMAGES", "Fault", "Layer", "NotApplicable", "Planted", "SelfTestResult", "SelfTestRow", "Surgery", "open_surgery",
    "self_test", "self_test_alone",
]  # fmt: skip
