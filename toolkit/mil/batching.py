"""When may N inputs go through a program made for one? The proof, op by op.

A value is *batched* when its axis 0 is 1 in the program and becomes N. A rule says whether, for the operands it is
shown, op(stacked values) equals the stack of op(each value). It need not know what an axis means, only that no op mixes
or moves axis 0. Where a rule says no, the evaluator runs the inputs one after the other: slower, never wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operand:
    """A tensor argument: its shape in the program, and whether its axis 0 becomes N."""

    shape: tuple[int, ...]
    batched: bool


@dataclass(frozen=True)
class Call:
    """What a rule is shown. `settings` holds the literal parameters, defaults filled in."""

    operands: dict[str, tuple[Operand, ...]]
    settings: dict[str, Any]
    output: tuple[int, ...]

    @property
    def everything(self) -> list[Operand]:
        return [operand for group in self.operands.values() for operand in group]

    def only_x(self, min_rank: int = 1) -> bool:
        """Whether x is the one batched operand and has room for axes besides the batch."""
        others = [operand for name, group in self.operands.items() if name != "x" for operand in group]
        x = self.operands["x"][0]
        return x.batched and len(x.shape) >= min_rank and not any(operand.batched for operand in others)


Rule = Callable[[Call], bool]


def broadcast(call: Call) -> bool:
    """Elementwise: batched operands keep axis 0 in place; the others must not have one of their own to broadcast."""
    rank = len(call.output)
    return all(
        len(operand.shape) == rank if operand.batched else len(operand.shape) < rank or operand.shape[0] == 1 for operand in call.everything
    )


def spatial(call: Call) -> bool:
    """Convolution, pooling, batch_norm, up-sampling: x is [n, C, spatial…] and weights are shared."""
    return call.only_x(min_rank=3)


def rows(call: Call) -> bool:
    """linear: only the last axis is contracted."""
    return call.only_x(min_rank=2)


def matmul(call: Call) -> bool:
    """Either axis 0 is a batch axis of the product, or it counts the rows of x and y is shared."""
    x, y = call.operands["x"][0], call.operands["y"][0]
    if len(call.output) >= 3 and min(len(x.shape), len(y.shape)) >= 2:
        return broadcast(call)
    return call.only_x(min_rank=2) and len(y.shape) == 2 and not call.settings["transpose_x"]


def axes_of_x(call: Call) -> bool:
    """reduce, squeeze, softmax: the named axes exist and axis 0 is not among them."""
    return call.only_x() and _spares_axis_0(call.settings, len(call.operands["x"][0].shape))


def axes_of_output(call: Call) -> bool:
    """expand_dims: the new axes, counted in the output, come after axis 0."""
    return call.only_x() and _spares_axis_0(call.settings, len(call.output))


def reshape(call: Call) -> bool:
    """1 x anything to 1 x anything keeps each input's values together, in row-major order."""
    return call.only_x() and call.output[:1] == (1,)


def transpose(call: Call) -> bool:
    perm = call.settings["perm"]
    return call.only_x() and perm[0] in (0, -len(perm))


def concat(call: Call) -> bool:
    """Every operand is batched (a shared one would have to be repeated) and axis 0 is not the one that grows."""
    return all(operand.batched for operand in call.everything) and _spares_axis_0(call.settings, len(call.output))


def classify(call: Call) -> bool:
    """One row of probabilities for each input."""
    operand = call.operands["probabilities"][0]
    return operand.batched and len(operand.shape) >= 2


def _spares_axis_0(settings: dict[str, Any], rank: int) -> bool:
    axes = settings["axes"] if "axes" in settings else (settings["axis"],)
    return axes is not None and all(axis % rank != 0 for axis in axes)
