"""Runs Core ML ML Programs (.mlpackage) on any machine, without Apple software: a judge of what was exported.

Every op is one small function whose docstring is its specification; nothing is skipped and nothing is guessed.
It imports nothing of the toolkit but `errors`, `limits` and `files`; it proves the file, not Apple's kernels (docs/mil.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.mil.dropin import coremltools_predict
    from toolkit.mil.evaluator import ReferenceEvaluator, State

__all__ = ["ReferenceEvaluator", "State", "coremltools_predict"]


def __getattr__(name: str) -> Any:
    """Imports the evaluator, and with it torch, only when somebody asks for it."""
    if name == "coremltools_predict":
        from toolkit.mil.dropin import coremltools_predict

        return coremltools_predict
    if name in __all__:
        from toolkit.mil import evaluator

        return getattr(evaluator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
