"""When a check fails: which layer, what is wrong with it, and, for fp16, which ops to keep in fp32. And hazards, before it fails."""

from toolkit.debug.hazards import IMAGES, hazards
from toolkit.debug.repair import export_repaired
from toolkit.debug.result import DebugResult, HazardsResult
from toolkit.debug.run import debug

__all__ = ["IMAGES", "DebugResult", "HazardsResult", "debug", "export_repaired", "hazards"]
