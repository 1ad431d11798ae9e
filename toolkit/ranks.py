"""Several processes that do one thing: torch's own launcher starts them (`torchrun -m toolkit …`), gloo joins them on CPUs, nccl on CUDA.

The first one speaks and writes. Training shares every batch among them, validation its test images.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from itertools import count
from typing import Any

import torch
from torch import Tensor, distributed, nn

from toolkit import devices
from toolkit.errors import DeviceError, ToolkitError

_JOINED = count()
LONGEST_S = 20 * 86400.0  # that gloo can count in milliseconds


class LostRank(ToolkitError):
    """Another process has gone; whatever made it go is the news, not this."""


def launched() -> bool:
    """Was this process started by torch's launcher, as one of several? A batch system sets WORLD_SIZE alone, too."""
    return {"RANK", "MASTER_ADDR", "WORLD_SIZE"} <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1


def leads() -> bool:
    """Is this the process that speaks and writes?"""
    return not launched() or int(os.environ["RANK"]) == 0


@dataclass(frozen=True)
class Ranks:
    """This process among all: `rank` of `size`. One process alone is rank 0 of 1, and nothing here costs it anything."""

    rank: int = 0
    size: int = 1
    wrapped: list[nn.Module] = field(default_factory=list, compare=False)
    groups: list[Any] = field(default_factory=list, compare=False)  # where torch's own is not waited with

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def group(self) -> Any:
        return self.groups[-1] if self.groups else None

    def share(self, batch: Tensor) -> Tensor:
        """Every size-th of a batch that all ranks hold."""
        return batch[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks; the tensor itself is changed."""
        if self.size > 1:
            there = tensor.to(_device())  # nccl takes CUDA tensors only
            distributed.all_reduce(there, group=self.group)
            tensor.copy_(there)
        return tensor

    def any(self, flag: bool) -> bool:
        """True on every rank where it is True on one."""
        return bool(self.sum(torch.tensor(int(flag), device=_device())).item()) if self.size > 1 else flag

    def wait(self) -> None:
        if self.size > 1:
            distributed.barrier(self.group)

    def deal(self, parts: Sequence[Any] = ()) -> Any:
        """The first rank hands out a part for each, and every rank gets its own."""
        if self.size == 1:
            return parts[0]
        mine = [None]
        distributed.scatter_object_list(mine, list(parts) if self.leads else None, group=self.group)
        return mine[0]

    def collect(self, part: Any) -> list[Any]:
        """The parts of all ranks, in their order, where this one leads; elsewhere nothing."""
        if self.size == 1:
            return [part]
        parts = [None] * self.size if self.leads else None
        distributed.gather_object(part, parts, group=self.group)
        return parts or []

    def be_patient(self, seconds: float) -> None:
        """From now on one waits for another that long, and not half an hour. All ranks must call this."""
        if self.size > 1:
            self.groups.append(distributed.new_group(timeout=timedelta(seconds=min(seconds, LONGEST_S))))

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over the ranks; it shares its weights with `model`."""
        if self.size == 1:
            return model
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # of one channel they are ambiguous
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its new name is not in the oldest torch we take
        shared = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)  # batch-norm's statistics are equal already
        self.wrapped.append(shared)
        return shared

    def let_go(self) -> None:
        """Of groups, and of what was wrapped, which then computes nothing any more. An exception's frames hold them, too; where those are
        the last to, Python's lock is held while gloo's threads are waited for, of which one may wait for that lock.
        """
        self.groups.clear()
        while self.wrapped:
            vars(self.wrapped.pop()).clear()


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


@contextmanager
def joined(backend: devices.Backend) -> Iterator[Ranks]:
    """The ranks that torch's launcher has started together; one alone where it was not used.

    Raises DeviceError where a device cannot be shared like that.
    """
    if not launched():
        yield Ranks()
        return
    if backend.id == "mps":
        raise DeviceError("MPS has one device and no way to join processes; train in one process there, or with --device cpu")
    if backend.id == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise DeviceError(f"{local + 1} or more processes were asked for, and there are {there} CUDA devices. Use --nproc {there}")
        torch.cuda.set_device(local)
    ranks = None
    try:
        # Before there is a process group: its default arguments would keep the group, and with it gloo's threads, beyond the end. One
        # that lets go of a tensor while the interpreter goes down aborts the process, with all of its work done.
        import_module("torch.distributed.nn.functional")
        # A prefix, for where they met before, addresses of that time are left. Both names are torch's public ones, which its stubs
        # do not export.
        store, rank, size = next(distributed.rendezvous("env://"))  # type: ignore[attr-defined]
        store = distributed.PrefixStore(f"toolkit {next(_JOINED)}", store)  # type: ignore[attr-defined]
        distributed.init_process_group("nccl" if backend.id == "cuda" else "gloo", store=store, rank=rank, world_size=size)
        ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
        yield ranks
    except RuntimeError as error:  # of gloo a plain one, of nccl a DistBackendError
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise LostRank(f"rank {os.environ['RANK']} lost the others: {str(error).splitlines()[0]}") from error
        raise
    finally:
        if ranks is not None:
            ranks.let_go()
        if distributed.is_initialized():
            distributed.destroy_process_group()
