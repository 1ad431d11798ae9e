"""Several processes, one run: each takes its share of every batch, and all hold the same weights after every step.

torch's own launcher starts them (`torchrun -m toolkit train …`, or `toolkit train --nproc N`, which calls it), gloo joins
them on CPUs and nccl on CUDA, DistributedDataParallel averages the gradients. Batch-norm's statistics are those of the whole
batch, so that N processes take the steps that one would have taken, up to rounding.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from toolkit import devices
from toolkit.errors import CHECK_FAILED, INTERRUPTED, DeviceError, ToolkitError
from toolkit.processes import signal_name

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


OURS = "TOOLKIT_LAUNCHED"  # set for processes that `launch` started: it speaks for them
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for what a process has to say
MISSED = 3  # such a process's CHECK_FAILED: a crash ends with 1, too


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

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Every size-th of a batch that all ranks hold."""
        return batch[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks; the tensor itself is changed."""
        if self.size > 1:
            there = tensor.to(_device())  # nccl takes CUDA tensors only
            distributed.all_reduce(there)
            tensor.copy_(there)
        return tensor

    def any(self, flag: bool) -> bool:
        """True on every rank where it is True on one."""
        return bool(self.sum(torch.tensor(int(flag), device=_device())).item()) if self.size > 1 else flag

    def wait(self) -> None:
        if self.size > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over the ranks; it shares its weights with `model`."""
        if self.size == 1:
            return model
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # of one channel they are ambiguous
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its new name is not in the oldest torch we take
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)  # batch-norm's statistics are equal already


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
    try:
        # Before there is a process group: its default arguments would keep the group, and with it gloo's threads, beyond the end. One
        # that lets go of a tensor while the interpreter goes down aborts the process, with all of its work done.
        import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if backend.id == "cuda" else "gloo")
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:  # of gloo a plain one, of nccl a DistBackendError
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise LostRank(f"rank {os.environ['RANK']} lost the others: {str(error).splitlines()[0]}") from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all ranks; the gradient of a sum is the sum of the ranks' gradients."""

    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch-norm over the images of all ranks. torch.nn.SyncBatchNorm computes the same, on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = x.to(self.weight.dtype)  # also where autocast gives bf16
        sums = _all_sum(torch.cat([wide.sum((0, 2, 3)), wide.new_full((1,), wide.numel() // self.num_features)]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = wide - mean[:, None, None]
        var = _all_sum((centred * centred).sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _all_sum(local: Tensor) -> Tensor:
    return _Sum.apply(local)  # type: ignore[no-untyped-call,no-any-return]


def share_batch_norm(model: nn.Module, backend: devices.Backend) -> nn.Module:
    """The model with batch-norms that know the whole batch. On the CPU in place: they keep their class's state."""
    if backend.id == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNorm2d
    return model


def launch(count: int, arguments: Sequence[str]) -> None:
    """Runs `python -m toolkit ARGUMENTS` in `count` processes of this machine, and waits for them.

    Raises ToolkitError with what the first one that failed has to say, or how it died; KeyboardInterrupt where they were told to
    stop; SystemExit where a goal was missed.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))  # else each takes every core
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")  # seconds to finish a step and save; then SIGKILL
    os.environ.update({OURS: "1", "PYTHONPATH": os.pathsep.join(sys.path)})  # with -P: they import what we import
    scratch = tempfile.TemporaryDirectory()
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id=str(os.getpid()),
        max_restarts=0, monitor_interval=0.2, local_addr="127.0.0.1", logs_specs=DefaultLogsSpecs(log_dir=scratch.name),
    )  # fmt: skip
    logging.disable(logging.ERROR)  # it tells the same in many lines
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "toolkit", *arguments)
    except SignalException as stopped:
        for path in Path(scratch.name).rglob("error.json"):  # the launcher does not look there when it was told to stop
            said = json.loads(path.read_text(encoding="utf-8"))["message"]
            if isinstance(said, dict) and not said.get("lost"):
                raise ToolkitError(said["message"]) from stopped
        raise KeyboardInterrupt from stopped
    except ChildFailedError as failed:
        rank, failure = min(failed.failures.items(), key=lambda each: _importance(each[1]))
        if failure.exitcode == INTERRUPTED:
            raise KeyboardInterrupt from failed
        if failure.exitcode == MISSED:
            raise SystemExit(CHECK_FAILED) from failed
        died = failure.exitcode < 0
        how = f"was killed by {signal_name(-failure.exitcode)}" if died else f"ended with exit code {failure.exitcode}"
        raise ToolkitError(_said(failure).get("message") or (
            f"rank {rank} of {count} {how}, and the others were stopped. The last checkpoint, if any, was kept: "
            "the same command with --resume goes on from it"
        )) from failed  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
        scratch.cleanup()
        os.environ.clear()
        os.environ.update(before)


def _importance(failure: "ProcessFailure") -> tuple[bool, bool, int]:
    """The smallest is the cause: not one that lost the others, nor one that was stopped because of them; then the earliest."""
    return bool(_said(failure).get("lost")), failure.exitcode == -signal.SIGTERM, failure.timestamp


def _said(failure: "ProcessFailure") -> dict[str, Any]:
    """What the process left by `report`; empty where it died of something else."""
    said = failure.error_file_data.get("message") if isinstance(failure.error_file_data, dict) else None
    return said if isinstance(said, dict) else {}


def goal_missed() -> int:
    """The exit code."""
    return MISSED if OURS in os.environ else CHECK_FAILED


def report(error: ToolkitError) -> bool:
    """In a process that `launch` started: leaves the message to it, which says it once. False in any other."""
    if OURS not in os.environ or ERROR_FILE not in os.environ:
        return False
    said = {"message": str(error), "lost": isinstance(error, LostRank), "extraInfo": {"timestamp": str(int(time.time()))}}
    target = Path(os.environ[ERROR_FILE])
    try:
        target.with_suffix(".new").write_text(json.dumps({"message": said}), encoding="utf-8")
        target.with_suffix(".new").replace(target)  # the launcher fails on half a file
    except OSError:
        return False
    return True
