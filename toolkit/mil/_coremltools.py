"""Imports coremltools without the dozen lines it logs on Linux. The one place that knows which lines those are.

Each says that something this toolkit does not use there is missing: Apple's framework, scikit-learn conversion,
torchao's CUDA kernels. Every other record, and every Python warning, still comes through.
"""

import logging
import re
from functools import cache
from types import ModuleType

_KNOWN = {
    "coremltools": re.compile(
        r"Failed to load _ML\w+Proxy: No module named 'coremltools\.libcoremlpython'"
        r"|scikit-learn version \S+ is not supported"
        r"|Torch version \S+ has not been tested with coremltools"
    ),
    "torchao": re.compile(r"Failed to load \S*torchao\S*\.so"),
    "torchao.kernel.intmm": re.compile(r"Warning: Detected no triton"),
    "torch.utils._pytree": re.compile(r"<enum 'KernelPreference'> is an Enum subclass"),
}


@cache
def import_coremltools() -> ModuleType:
    """coremltools, imported once; takes seconds the first time."""
    filters = {name: _drop(pattern) for name, pattern in _KNOWN.items()}
    for name, drop in filters.items():
        logging.getLogger(name).addFilter(drop)
    try:
        import coremltools
    finally:
        for name, drop in filters.items():
            logging.getLogger(name).removeFilter(drop)
    return coremltools  # type: ignore[no-any-return]


def _drop(pattern: re.Pattern[str]) -> logging.Filter:
    class Drop(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return not pattern.match(record.getMessage())

    return Drop()
