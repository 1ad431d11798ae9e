"""What makes N processes take the steps that one would have taken, up to rounding: batch-norm's statistics are those of the whole batch.

The rest is DistributedDataParallel's, which averages the gradients (toolkit/ranks.py).
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from toolkit import devices


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
