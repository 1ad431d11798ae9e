"""Train a classifier, convert it for Apple devices, prove that the file is the model, and time it honestly.

The public names load on first use, so that `import toolkit` (and `toolkit --help`) stays fast.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# onnxruntime's Linux wheel comes with telemetry switched on: it writes a device id into the user's cache folder when it is imported,
# and knows an address to send to. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Recipe": "toolkit.recipe",
    "Workspace": "toolkit.workspace",
    "Artifact": "toolkit.artifact",
    "Checkpoint": "toolkit.checkpoint",
    "ReferenceEvaluator": "toolkit.mil",
    "ToolkitError": "toolkit.errors",
    "train": "toolkit.training",
    "validate": "toolkit.validation",
}
# Rooms named like their verb: `toolkit.export` is the room and `toolkit.export.export` the verb. Python itself sets
# the first of these when anything imports the room, so a function of that name would come and go.
_ROOMS = ("bench", "export", "predict", "report")
__all__ = ["__version__", *sorted((*_HOMES, *_ROOMS))]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"toolkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
