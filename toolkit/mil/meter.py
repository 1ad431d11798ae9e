"""What an op would cost, found by running it on tensors without data: no memory is taken, whatever a file asks for."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from toolkit.errors import ArtifactError
from toolkit.mil.limits import PER_ELEMENT, PER_KERNEL, current

_POOLS = ("avg_pool", "max_pool")  # whose second argument is the kernel


class Meter(TorchDispatchMode):
    """Counts operations. Raises ArtifactError as soon as one op wants more memory or time than there is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.work = current()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler, a second or more, only to keep it away from us."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        most = self.work.budget.scratch
        results = [each for each in (result if isinstance(result, tuple | list) else (result,)) if isinstance(each, Tensor)]
        for each in results:
            if each.numel() > most:
                raise ArtifactError(f"would make a tensor of {list(each.shape)}, more than {most} elements")
        packet = function._overloadpacket
        moved = 0 if function.is_view else sum(each.numel() for each in (*_tensors(args), *results))
        operations = PER_KERNEL + PER_ELEMENT * moved
        if packet in flop_registry:
            operations += flop_registry[packet](*args, **kwargs, out_val=result)
        elif packet.__name__.startswith(_POOLS):
            operations += sum(each.numel() for each in results) * math.prod(args[1])
        if packet.__name__ == "convolution" and (columns := _columns(args, results[0])) > most:
            raise ArtifactError(f"would lay out its input for {columns} products, more than {most} elements")
        self.operations += operations
        self.work.check(self.operations)
        return result


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for each in arguments:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _columns(args: Any, result: Tensor) -> int:
    """Elements of the copy of one input, each number as often as a kernel reads it, that PyTorch makes where oneDNN is no help: float64."""
    x, weight, transposed = args[0], args[1], args[6]
    positions = math.prod((x if transposed else result).shape[2:])
    return positions * math.prod(weight.shape[1:]) if x.dtype == torch.float64 else 0


def without_data(value: Any) -> Any:
    """`value` with tensors that have a shape and a type, and no numbers."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, tuple) and any(isinstance(each, Tensor) for each in value):
        return tuple(without_data(each) for each in value)
    return value
