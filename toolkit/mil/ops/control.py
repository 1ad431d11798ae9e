"""Control flow, lists, states and the classifier's last step: what is not a function of tensors alone."""

import itertools
import math
from typing import Any

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.limits import ITEM_ELEMENTS, MAX_ITERATIONS, current
from toolkit.mil.ops.types import Blocks, Cell, Ints, Items, Labels, Tensor, TensorList, Values

_DTYPES = {"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}


def cond(pred: Tensor, blocks: Blocks) -> Values:
    """The results of the first block where `pred` (bool, one element) is true, else of the second. iOS15/control_flow.py"""
    return blocks[0]() if bool(pred) else blocks[1]()


def while_loop(loop_vars: Values, blocks: Blocks) -> Values:
    """v = body(v) as long as condition(v) holds, from v = loop_vars; returns the last v. iOS15/control_flow.py

    blocks: condition, body. More than MAX_ITERATIONS rounds are refused.
    """
    condition, body = blocks
    for round_ in itertools.count():
        (again,) = condition(*loop_vars)
        if not bool(again):
            return loop_vars
        if round_ == MAX_ITERATIONS:
            raise ArtifactError(f"a loop still runs after {MAX_ITERATIONS} rounds; it may never end")
        loop_vars = body(*loop_vars)
    raise AssertionError("unreachable")


def make_list(elem_shape: Items, init_length: int = 1, dynamic_length: bool = True, dtype: str = "fp32") -> TensorList:
    """A list of `init_length` elements, all zeros of elem_shape (Apple's test). iOS15/control_flow.py

    A name in elem_shape is a length not known yet: such elements exist once one of them was written.
    """
    if not 0 <= init_length <= MAX_ITERATIONS:
        raise ArtifactError(f"init_length {init_length} is not 0..{MAX_ITERATIONS}")
    shape = [size for size in elem_shape if isinstance(size, int)]
    known = len(shape) == len(elem_shape) and min(shape, default=0) >= 0 and math.prod(shape) <= current().budget.elements
    blank = torch.zeros((), dtype=_DTYPES[dtype]).expand(shape) if known else None
    return TensorList((None,) * init_length, blank)


def list_length(ls: TensorList) -> Tensor:
    """How many elements, int32 []. iOS15/control_flow.py"""
    return torch.tensor(len(ls.items))


def list_write(ls: TensorList, index: int, value: Tensor) -> TensorList:
    """`ls` with `value` at `index`, longer where index is beyond its end. iOS15/control_flow.py"""
    return _written(ls, (index,), (value,))


def list_read(ls: TensorList, index: int) -> Tensor:
    """The element at `index`; zeros where nothing was written. iOS15/control_flow.py"""
    return _element(ls, index)


def list_gather(ls: TensorList, indices: Ints) -> Tensor:
    """The elements at `indices` stacked: [len(indices), *element]. iOS15/control_flow.py"""
    if not indices:
        raise ArtifactError("no indices: the shape of the elements is not known")
    elements = [_element(ls, index) for index in indices]
    if sum(each.numel() for each in elements) > (most := current().budget.elements):
        raise ArtifactError(f"{len(elements)} elements of {list(elements[0].shape)}: more than {most} numbers")
    return torch.stack(elements)


def list_scatter(ls: TensorList, indices: Ints, value: Tensor) -> TensorList:
    """`ls` with value[i] at indices[i], longer where an index is beyond its end. iOS15/control_flow.py"""
    if len(indices) != len(value):
        raise ArtifactError(f"{len(value)} values for {len(indices)} indices")
    return _written(ls, indices, value)


def read_state(input: Cell) -> Tensor:
    """A copy of what the state holds. iOS18/states.py"""
    return input.value.clone()


def write_state(input: Cell, data: Tensor) -> tuple[()]:
    """Replaces what the state holds by a copy of `data`. Named in `backend/mil/load.py` of coremltools, for iOS18."""
    if data.shape != input.value.shape:
        raise ArtifactError(f"writes {list(data.shape)} into a state of {list(input.value.shape)}")
    input.value = data.clone()
    return ()


def classify(probabilities: Tensor, classes: Labels) -> tuple[list[Any], Tensor]:
    """Label of the largest probability, and all probabilities in class order. iOS15/classify.py

    Returns one label and one row for each len(classes) values. The first of equal probabilities wins: the definition
    is silent, and argmax is what everybody means.
    """
    if not classes or probabilities.numel() % len(classes):
        raise ArtifactError(f"{probabilities.numel()} probabilities for {len(classes)} class labels")
    table = probabilities.reshape(-1, len(classes))
    indices = [0] * len(table) if table.is_meta else table.argmax(dim=1).tolist()
    return [classes[index] for index in indices], table


def _written(ls: TensorList, indices: Ints, values: Tensor | tuple[Tensor, ...]) -> TensorList:
    """`ls` with values[i] at indices[i]."""
    if not all(0 <= index < MAX_ITERATIONS for index in indices):
        raise ArtifactError(f"indices {list(indices[:8])} are not 0..{MAX_ITERATIONS - 1}")
    if ls.elements + ITEM_ELEMENTS * len(indices) > (most := current().budget.live):
        raise ArtifactError(f"{len(indices)} items more in a list of {len(ls.items)}: more than {most} elements alive")
    written = [*ls.items, *[None] * (max(indices, default=-1) + 1 - len(ls.items))]
    elements = ls.elements
    for index, value in zip(indices, values, strict=True):
        before = written[index]
        elements += ITEM_ELEMENTS + value.numel() - (0 if before is None else ITEM_ELEMENTS + before.numel())
        written[index] = _owned(value)
    blank = values[0].new_zeros(()).expand(values[0].shape) if indices else ls.blank
    return TensorList(tuple(written), blank, elements)


def _owned(value: Tensor) -> Tensor:
    """`value`, but not as a view that would keep something far larger alive."""
    return value if value.untyped_storage().nbytes() <= 2 * value.nbytes else value.clone()


def _element(ls: TensorList, index: int) -> Tensor:
    if not 0 <= index < len(ls.items):
        raise ArtifactError(f"index {index} into a list of {len(ls.items)}")
    element = ls.items[index]
    element = ls.blank if element is None else element
    if element is None:
        raise ArtifactError(f"element {index} was never written, and its shape is not known")
    return element
