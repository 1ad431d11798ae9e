"""Runs Core ML ML Programs (.mlpackage) on any machine, without Apple software: a judge of what was exported.

Every op is one small function whose docstring is its specification; nothing is skipped and nothing is guessed.
It imports nothing of the toolkit but `errors`; it proves the file, not Apple's kernels (docs/mil.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.mil.evaluator import ReferenceEvaluator

__all__ = ["ReferenceEvaluator"]


def __getattr__(name: str) -> Any:
    """Imports the evaluator, and with it torch, only when somebody asks for it."""
    if name == "ReferenceEvaluator":
        from toolkit.mil.evaluator import ReferenceEvaluator

        return ReferenceEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
