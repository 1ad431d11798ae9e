"""What the evaluator must know of an op besides its function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.mil import batching


@dataclass(frozen=True)
class Op:
    """One line of OPS.

    gives: the type of each output, or of all of them: a parameter's name ("x": its type, "x or y": either's, "first": the first
        tensor's; of a state or list, its elements'), "=dtype" (named by the parameter `dtype`), or a group of signatures.py:
        "bool", "int" (any integer type), "float", "number", "list" …, "any". Empty: the op has no outputs.
    batch: when inputs may be stacked along axis 0 (batching.py). stretch: what parameters become for N of them.
    exact: results are values of the operands, or whole numbers that fp16 holds: rounding them would change nothing.
    dynamic: the output's shape depends on values, so it is only known after the call.
    bounded: results are never larger than the operands together. What is neither bounded nor elementwise is measured
        before it runs (meter.py): a small file must not ask for all the memory there is.
    since: the iOS whose opset brought it, as its docstring says.
    """

    function: Callable[..., Any]
    batch: batching.Rule = batching.never
    gives: tuple[str, ...] = ("first",)
    exact: bool = False
    dynamic: bool = False
    bounded: bool = False
    stretch: batching.Stretch | None = None
    since: int = 15

    @property
    def elementwise(self) -> bool:
        return self.batch is batching.broadcast
