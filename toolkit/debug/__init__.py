"""When a check fails: which layer, what is wrong with it, and, for fp16, which ops to keep in fp32. And hazards, before it fails."""

from toolkit.debug.alone import debug_alone, hazards_alone
from toolkit.debug.hazards import IMAGES, hazards
from toolkit.debug.repair import export_repaired
from toolkit.debug.result import DebugResult, HazardsResult
from toolkit.debug.run import IMAGES as FOLLOWED
from toolkit.debug.run import debug

__all__ = [
    "FOLLOWED",
    "IMAGES",
    "DebugResult",
    "HazardsResult",
    "debug",
    "debug_alone",
    "export_repaired",
    "hazards",
    "hazards_alone",
]
