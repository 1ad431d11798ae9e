"""Makes an op slightly wrong, to see whether Apple's tests notice.

Floats times 1.001 (1.02 in a float16 case, which may be off by 0.005 and more), and what exceeds 1 in place of a zero; whole numbers
plus 1, bools turned round.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

FACTOR = {"fp16": 1.02}
DEFAULT_FACTOR = 1.001


def perturbed(value: Any, factor: float = DEFAULT_FACTOR) -> Any:
    """The same kind of value, slightly wrong; what is neither numbers nor text stays."""
    import torch

    from toolkit.mil.ops.types import TensorList

    if isinstance(value, TensorList):
        return dataclasses.replace(value, items=perturbed(value.items, factor), blank=perturbed(value.blank, factor))
    if isinstance(value, tuple | list):
        return type(value)(perturbed(each, factor) for each in value)
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            return torch.where(value == 0, factor - 1, value * factor).to(value.dtype)
        return ~value if value.dtype == torch.bool else value + 1
    if isinstance(value, np.ndarray):
        floats = value.dtype.kind == "f"
        wrong = ~value if value.dtype == bool else np.where(value == 0, factor - 1, value * factor) if floats else value + 1
        return np.asarray(wrong).astype(value.dtype)
    return f"not {value}" if isinstance(value, str) else value


def wrong(function: Callable[..., Any], factor: float = DEFAULT_FACTOR) -> Callable[..., Any]:
    """`function` with its results perturbed; of an op that changes a state, the state."""
    from toolkit.mil.ops.types import Cell

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        cells = {id(each): (each, each.value) for each in (*args, *options.values()) if isinstance(each, Cell)}
        result = function(*args, **options)
        for cell, before in cells.values():
            if cell.value is not before:
                cell.value = perturbed(cell.value, factor)
        return perturbed(result, factor)

    return wrapper


@contextmanager
def mutated(op: str, precision: str = "") -> Iterator[None]:
    """The evaluator computes `op` slightly wrong, by as much as a case of that precision should notice."""
    from toolkit.mil.ops.table import OPS

    right = OPS[op]
    OPS[op] = dataclasses.replace(right, function=wrong(right.function, FACTOR.get(precision, DEFAULT_FACTOR)))
    try:
        yield
    finally:
        OPS[op] = right
