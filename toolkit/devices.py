"""mps | cuda | cpu: choosing one with a reason, and the few things that differ between them.

A device asked for by name and not there is an error, never a silent run on the CPU.
"""

import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from toolkit.errors import DeviceError


@dataclass(frozen=True)
class Backend:
    """One kind of device. `torch_device` is what tensors are moved to; tests put a fake in BACKENDS."""

    id: str
    torch_device: str
    why_not: Callable[[], str | None]
    synchronise: Callable[[], None]  # wait for queued work: call before every clock reading
    memory_bytes: Callable[[], int]  # the most memory held so far
    has_bf16: Callable[[], bool]  # bf16 is multiplied by the hardware, and trusted
    likes_channels_last: bool = False  # is training faster with it

    def autocast(self, enabled: bool) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.torch_device, dtype=torch.bfloat16) if enabled else nullcontext()

    def channels_last(self, wanted: str) -> bool:
        """A recipe's auto, on or off as a yes or no."""
        return wanted == "on" or (wanted == "auto" and self.likes_channels_last)


def _why_not_mps() -> str | None:
    import torch

    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) is built without MPS; MPS needs macOS on Apple silicon, this is {sys.platform}"
    if not torch.backends.mps.is_available():
        return "macOS reports no Metal device; MPS needs macOS 14 or later on Apple silicon"
    return None


def _why_not_cuda() -> str | None:
    import torch

    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device or driver is there (nvidia-smi shows what the driver sees)"
    return None


def _mps_memory() -> int:
    import torch

    return torch.mps.driver_allocated_memory()


def _cuda_memory() -> int:
    import torch

    return torch.cuda.max_memory_allocated()


def peak_memory_bytes() -> int:
    """The most resident memory this process has held: ru_maxrss counts bytes on macOS and KiB on Linux."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _synchronise_mps() -> None:
    import torch

    torch.mps.synchronize()


def _synchronise_cuda() -> None:
    import torch

    torch.cuda.synchronize()


def _cuda_bf16() -> bool:
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_bf16() -> bool:
    import torch

    # torch has no public query for these two; without them bf16 is emulated, and slower than fp32.
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


BACKENDS = {  # in the order in which `auto` takes them
    "mps": Backend("mps", "mps", _why_not_mps, _synchronise_mps, _mps_memory, lambda: False),  # bf16 unmeasured there
    "cuda": Backend("cuda", "cuda", _why_not_cuda, _synchronise_cuda, _cuda_memory, _cuda_bf16, likes_channels_last=True),
    "cpu": Backend("cpu", "cpu", lambda: None, lambda: None, peak_memory_bytes, _cpu_bf16, likes_channels_last=True),
}


def choose(device: str = "auto") -> tuple[Backend, str]:
    """The backend for `auto` or a name, and the reason in words. Raises DeviceError when a named one is not there."""
    if device == "auto":
        passed_over: list[str] = []
        for backend in BACKENDS.values():
            reason = backend.why_not()
            if reason is None:
                return backend, "; ".join([*passed_over, f"{backend.id} is the first of {', '.join(BACKENDS)} that is here"])
            passed_over.append(f"no {backend.id}: {reason}")
    if device not in BACKENDS:
        raise DeviceError(f"there is no device {device!r}; choose one of auto, {', '.join(BACKENDS)}")
    if reason := BACKENDS[device].why_not():
        raise DeviceError(f"--device {device} was asked for, but {reason}. Use --device auto to take what is here")
    return BACKENDS[device], "asked for by name"
