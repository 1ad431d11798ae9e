"""Accuracy of a classifier over a set of images, in eval mode and in fp32, whatever it is trained in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toolkit.devices import Backend
from toolkit.progress import progress
from toolkit.ranks import Ranks

BATCH = 500


@torch.inference_mode()
def count_correct(model: nn.Module, images: Tensor, labels: Tensor, backend: Backend, title: str, ranks: Ranks | None = None) -> int:
    """How many of the images (N, C, H, W) uint8 are classified right, shared among the ranks. The model's mode is put back."""
    ranks = ranks or Ranks()
    mine, target = ranks.share(images), ranks.share(labels)
    correct = torch.zeros((), dtype=torch.int64, device=backend.torch_device)
    with _evaluating(model), progress(title, len(mine)) as update:
        for start in range(0, len(mine), BATCH):
            correct += _right(model, mine[start : start + BATCH], target[start : start + BATCH], backend)
            done = min(start + BATCH, len(mine))
            update(done, accuracy=int(correct) / done)
    return int(ranks.sum(correct))


@torch.inference_mode()
def reaches(model: nn.Module, images: Tensor, labels: Tensor, share: float, backend: Backend, ranks: Ranks | None = None) -> bool:
    """Is at least that share of the images classified right? Exact, and over as soon as too many are wrong for it."""
    ranks = ranks or Ranks()
    may_be_wrong = len(images) - math.ceil(share * len(images) - 1e-9)
    wrong = torch.zeros((), dtype=torch.int64, device=backend.torch_device)
    with _evaluating(model):
        for start in range(0, len(images), BATCH):
            mine, target = ranks.share(images[start : start + BATCH]), ranks.share(labels[start : start + BATCH])
            wrong += ranks.sum(len(mine) - _right(model, mine, target, backend))
            if int(wrong) > may_be_wrong:
                return False
    return True


def _right(model: nn.Module, images: Tensor, labels: Tensor, backend: Backend) -> Tensor:
    logits = model(images.to(backend.torch_device).float())  # (B, classes)
    right: Tensor = (logits.argmax(1) == labels.to(backend.torch_device)).sum()
    return right


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):  # a GPU's fp32 convolutions are none
            yield
    finally:
        model.train(was_training)
