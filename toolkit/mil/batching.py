"""When may N inputs go through a program made for one? The proof, op by op.

A value is *batched* when its axis 0 is 1 in the program and becomes N. A rule says whether, for the operands it is
shown, op(stacked values) equals the stack of op(each value). It need not know what an axis means, only that no op mixes
or moves axis 0. Where a rule says no, the evaluator runs the inputs one after the other: slower, never wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor argument: its shape in the program, and whether its axis 0 becomes N."""

    shape: Shape
    batched: bool


@dataclass(frozen=True)
class Call:
    """What a rule is shown. `settings` holds the literal parameters, defaults filled in."""

    operands: dict[str, tuple[Operand, ...]]
    settings: dict[str, Any]
    outputs: tuple[Shape, ...]

    @property
    def output(self) -> Shape:
        return self.outputs[0]

    @property
    def everything(self) -> list[Operand]:
        return [operand for group in self.operands.values() for operand in group]

    @property
    def first(self) -> Operand:
        """x, or whatever the op's first tensor is called."""
        return self.everything[0]

    def only_first(self, min_rank: int = 1) -> bool:
        """Whether the first operand is the one batched, and has room for axes besides the batch."""
        first, *others = self.everything
        return first.batched and len(first.shape) >= min_rank and not any(operand.batched for operand in others)


Rule = Callable[[Call], bool]
# (literal parameters, N, the first output's declared shape) -> the parameters that differ for N inputs
Stretch = Callable[[dict[str, Any], int, Shape], dict[str, Any]]


def never(call: Call) -> bool:
    """Axis 0 is mixed, or nobody has proved that it is not: one by one."""
    return False


def broadcast(call: Call) -> bool:
    """Elementwise: batched operands keep axis 0 in place; the others must not have one of their own to broadcast."""
    rank = len(call.output)
    return all(
        len(operand.shape) == rank if operand.batched else len(operand.shape) < rank or operand.shape[0] == 1 for operand in call.everything
    )


def spatial(call: Call) -> bool:
    """Convolution, pooling, batch_norm, up-sampling: x is [n, C, spatial…] and weights are shared."""
    return call.only_first(min_rank=3)


def channels(call: Call) -> bool:
    """prelu and the like: one parameter for each index of axis 1."""
    return call.only_first(min_rank=2)


rows = channels  # linear: only the last axis is contracted


def planes(call: Call) -> bool:
    """band_part: each matrix of the last two axes by itself."""
    return call.only_first(min_rank=3)


def images(call: Call) -> bool:
    """x is [n, C, H, W, …]; of rank 3, l2_norm and local_response_norm would reach axis 0."""
    return call.only_first(min_rank=4)


def matmul(call: Call) -> bool:
    """Either axis 0 is a batch axis of the product, or it counts the rows of x and y is shared."""
    x, y = call.operands["x"][0], call.operands["y"][0]
    if len(call.output) >= 3 and min(len(x.shape), len(y.shape)) >= 2:
        return broadcast(call)
    return call.only_first(min_rank=2) and len(y.shape) == 2 and not call.settings["transpose_x"]


def attention(call: Call) -> bool:
    """query, key, value [B, …, L, E]: axis 0 is a batch axis, and the mask broadcasts over it."""
    shared = any(not each.batched for name, group in call.operands.items() if name != "attn_mask" for each in group)
    return len(call.output) >= 3 and not shared and broadcast(call)


def einsum(call: Call) -> bool:
    """The first letter of every batched operand is the first of the output, and of nothing else."""
    inputs, _, output = call.settings["equation"].replace(" ", "").partition("->")
    letter = output[:1]
    return letter.isalpha() and all(
        term.find(letter) == 0 and term.count(letter) == 1 if operand.batched else letter not in term
        for term, operand in zip(inputs.split(","), call.everything, strict=True)
    )


def axes_of_x(call: Call) -> bool:
    """reduce, squeeze, softmax: the named axes exist and axis 0 is not among them."""
    return call.only_first() and _spares_axis_0(call.settings, len(call.first.shape))


def axes_of_output(call: Call) -> bool:
    """expand_dims: the new axes, counted in the output, come after axis 0."""
    return call.only_first() and _spares_axis_0(call.settings, len(call.output))


def all_along_axis(call: Call) -> bool:
    """concat, stack, gather_along_axis: all operands are batched (a shared one would need repeating), axis 0 does not grow."""
    return all(operand.batched for operand in call.everything) and _spares_axis_0(call.settings, len(call.output))


def quantized(call: Call) -> bool:
    """quantize, dequantize: one scale for all, or one for each index of an axis that is not 0."""
    return call.only_first() and (call.settings.get("axis") is None or _spares_axis_0(call.settings, len(call.first.shape)))


def reshape(call: Call) -> bool:
    """1 x anything to 1 x anything keeps each input's values together, in row-major order."""
    return call.only_first() and call.output[:1] == (1,)


def transpose(call: Call) -> bool:
    perm = call.settings["perm"]
    return call.only_first() and perm[0] in (0, -len(perm))


def gather(call: Call) -> bool:
    """Shared indices along a later axis of x; or, from a shared table, rows by batched indices."""
    x, indices = call.operands["x"][0], call.operands["indices"][0]
    if call.settings["batch_dims"]:
        return False
    axis = call.settings["axis"] % max(1, len(x.shape))
    return (x.batched and not indices.batched and axis != 0) or (indices.batched and not x.batched and axis == 0)


def sliced(call: Call) -> bool:
    """slice_by_index: the whole of axis 0, forwards."""
    settings = call.settings
    whole = _mask(settings, "begin_mask") or settings["begin"][0] in (0, -1)
    to_end = _mask(settings, "end_mask") or settings["end"][0] >= 1
    forwards = settings["stride"] is None or settings["stride"][0] == 1
    return call.only_first() and whole and to_end and forwards and not _mask(settings, "squeeze_mask")


def stretch_slice(settings: dict[str, Any], batch: int, output: Shape) -> dict[str, Any]:
    return {"begin": (0, *settings["begin"][1:]), "end": (batch, *settings["end"][1:])}


def sized(call: Call) -> bool:
    """slice_by_size: the whole of axis 0."""
    return call.only_first() and call.settings["begin"][0] == 0 and call.settings["size"][0] in (1, -1)


def stretch_size(settings: dict[str, Any], batch: int, output: Shape) -> dict[str, Any]:
    return {"size": (-1, *settings["size"][1:])}


def stretch_output_shape(settings: dict[str, Any], batch: int, output: Shape) -> dict[str, Any]:
    return {"output_shape": (batch, *settings["output_shape"][1:])} if settings.get("output_shape") else {}


def resized(call: Call) -> bool:
    """resize: only the last axes."""
    return call.only_first() and call.settings["resized_dims"] < len(call.first.shape)


def stretch_shape(settings: dict[str, Any], batch: int, output: Shape) -> dict[str, Any]:
    return {"shape": (batch, *output[1:])}


def tile(call: Call) -> bool:
    return call.only_first() and call.settings["reps"][0] == 1


def pad(call: Call) -> bool:
    """`pad` counts from the last axis backwards."""
    amounts = call.settings["pad"]
    return call.only_first() and (len(amounts) < 2 * len(call.first.shape) or set(amounts[:2]) == {0})


def one_hot(call: Call) -> bool:
    """The new axis, counted in the output, comes after axis 0."""
    return call.only_first() and _spares_axis_0(call.settings, len(call.output))


def flatten(call: Call) -> bool:
    return call.only_first() and call.settings["axis"] % len(call.first.shape) == 1


def classify(call: Call) -> bool:
    """One row of probabilities for each input."""
    return call.first.batched and len(call.first.shape) >= 2


def _mask(settings: dict[str, Any], name: str) -> bool:
    return bool(settings[name] and settings[name][0])


def _spares_axis_0(settings: dict[str, Any], rank: int) -> bool:
    axes = settings["axes"] if "axes" in settings else (settings["axis"],)
    return axes is not None and all(axis is not None and axis % rank != 0 for axis in axes)
