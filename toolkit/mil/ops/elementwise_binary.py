"""Elementwise ops of two operands and `select`: NumPy broadcasting, NaN stays NaN. T is fp16, fp32 or int32.

The definitions do not say what happens when an int32 result overflows, and neither does this file.
"""

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.ops.types import Tensor


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y. iOS15/elementwise_binary.py"""
    return x + y


def equal(x: Tensor, y: Tensor) -> Tensor:
    """x == y, as bool. iOS15/elementwise_binary.py"""
    return torch.eq(x, y)


def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y rounded towards -inf. Float x / 0 is ±inf or NaN; int32 x / 0 is refused. iOS15/elementwise_binary.py"""
    return torch.floor_divide(*_operands(x, y))


def greater(x: Tensor, y: Tensor) -> Tensor:
    """x > y, as bool. iOS15/elementwise_binary.py"""
    return torch.gt(x, y)


def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    """x >= y, as bool. iOS15/elementwise_binary.py"""
    return torch.ge(x, y)


def less(x: Tensor, y: Tensor) -> Tensor:
    """x < y, as bool. iOS15/elementwise_binary.py"""
    return torch.lt(x, y)


def less_equal(x: Tensor, y: Tensor) -> Tensor:
    """x <= y, as bool. iOS15/elementwise_binary.py"""
    return torch.le(x, y)


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """x AND y, for bool. iOS15/elementwise_binary.py"""
    return torch.logical_and(x, y)


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """x OR y, for bool. iOS15/elementwise_binary.py"""
    return torch.logical_or(x, y)


def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    """x XOR y, for bool. iOS15/elementwise_binary.py"""
    return torch.logical_xor(x, y)


def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of x and y. iOS15/elementwise_binary.py"""
    return torch.maximum(x, y)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of x and y. iOS15/elementwise_binary.py"""
    return torch.minimum(x, y)


def mod(x: Tensor, y: Tensor) -> Tensor:
    """x - y · floor(x / y): the sign of y, as Python's %. Float x % 0 is NaN; int32 is refused. iOS15/elementwise_binary.py"""
    return torch.remainder(*_operands(x, y))


def mul(x: Tensor, y: Tensor) -> Tensor:
    """x · y. iOS15/elementwise_binary.py"""
    return x * y


def not_equal(x: Tensor, y: Tensor) -> Tensor:
    """x != y, as bool. iOS15/elementwise_binary.py"""
    return torch.ne(x, y)


def pow_(x: Tensor, y: Tensor) -> Tensor:
    """x to the power y; 0⁰ = 1, NaN for a negative float to a fraction. iOS15/elementwise_binary.py

    A negative int32 exponent gives no int32 and is refused.
    """
    if not x.is_floating_point() and not y.is_floating_point() and not y.is_meta and bool((y < 0).any()):
        raise ArtifactError("an int32 exponent is negative; the power is no int32")
    return torch.pow(x, y)


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y; float x / 0 is ±inf or NaN. iOS15/elementwise_binary.py

    T int32: the quotient is truncated towards zero, as the tests have it (the definition is silent); x / 0 is refused.
    """
    return torch.div(*_operands(x, y), rounding_mode=None if x.is_floating_point() or y.is_floating_point() else "trunc")


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where cond, b elsewhere; all three are broadcast. T also bool. iOS15/control_flow.py (a and b are required)"""
    return torch.where(cond, a, b)


def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y. iOS15/elementwise_binary.py"""
    return x - y


def _operands(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The operands of a division; integers as int64, in which no quotient of two int32 overflows."""
    if x.is_floating_point() or y.is_floating_point():
        return x, y
    if not y.is_meta and bool((y == 0).any()):
        raise ArtifactError("an integer is divided by zero")
    return x.long(), y.long()
