"""Imports torchvision beside any torch build. The one place that knows why this is not just `import torchvision`.

PyPI's Linux torchvision is built against CUDA torch. Beside a CPU-only torch its compiled library does not load, the
operators `torchvision::nms` and `torchvision::qnms` stay undeclared, and the import dies where it registers their
shapes ("operator torchvision::nms does not exist"). We use none of the compiled operators, so declaring the two
schemas is enough for the Python parts (data sets, ResNet) to work. Where the plain import works, nothing is declared.
"""

import sys
from functools import cache
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def import_torchvision() -> ModuleType:
    """torchvision, imported. Raises what the import raises when the cause is another one."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # the failed attempt left half of its modules behind
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        import torchvision

        torchvision._toolkit_schemas = library  # the declarations live as long as this object does
    return torchvision  # type: ignore[no-any-return]  # torchvision publishes no types
