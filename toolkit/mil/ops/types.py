"""The kinds of parameter an op function may take. The binder reads them off the signature.

`Tensor`: computed or constant. `Tensors`: a variadic argument. `Array`: a constant in its very own type, for constexpr_*.
`Cell`: a state. `Values`: anything, as loops carry. `Items`: a variadic argument of constants. `Rows`: a matrix of integers.
The others are plain Python values; where a program computes one, the evaluator reads it just before the call.
Two names are filled in by the evaluator: `ios` (15, 16, 17, 18: the opset) and `blocks` (nested blocks as callables).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


@dataclass
class Cell:
    """The one thing in a program that changes: what read_state reads and write_state replaces."""

    value: Tensor


@dataclass(frozen=True)
class TensorList:
    """A list of tensors, None where nothing was written yet; `blank` is what is read there. Never changed in place.

    elements: of all items together, kept along because counting them anew for each write would take too long.
    """

    items: tuple[Tensor | None, ...]
    blank: Tensor | None
    elements: int = 0


Tensors = tuple[Tensor, ...]
Values = tuple[object, ...]
Ints = tuple[int, ...]
Rows = tuple[Ints, ...]
Bools = tuple[bool, ...]
Items = tuple[int | bool | str, ...]
Labels = tuple[Any, ...]
Array = np.ndarray[Any, Any]
Blocks = tuple[Callable[..., tuple[Any, ...]], ...]

__all__ = ["Array", "Blocks", "Bools", "Cell", "Ints", "Items", "Labels", "Rows", "Tensor", "TensorList", "Tensors", "Values"]
