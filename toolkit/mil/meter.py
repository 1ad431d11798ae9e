"""What an op would cost, found by running it on tensors without data: no memory is taken, whatever a file asks for."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from toolkit.errors import ArtifactError
from toolkit.mil.limits import MAX_FLOPS, MAX_KERNELS, MAX_SCRATCH_ELEMENTS


class Meter(TorchDispatchMode):
    """Raises ArtifactError as soon as one op wants more memory or time than any model needs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = 0
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler, a second or more, only to keep it away from us."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.kernels += 1
        if function._overloadpacket in flop_registry:
            self.flops += flop_registry[function._overloadpacket](*args, **kwargs, out_val=result)
        if isinstance(result, Tensor) and result.numel() > MAX_SCRATCH_ELEMENTS:
            raise ArtifactError(f"would make a tensor of {list(result.shape)}, more than {MAX_SCRATCH_ELEMENTS} elements")
        if self.kernels > MAX_KERNELS or self.flops > MAX_FLOPS:
            raise ArtifactError(f"would take {self.kernels} kernels and {self.flops:.1e} operations, more than any real model's op")
        return result


def without_data(value: Any) -> Any:
    """`value` with tensors that have a shape and a type, and no numbers."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, tuple) and any(isinstance(each, Tensor) for each in value):
        return tuple(without_data(each) for each in value)
    return value
