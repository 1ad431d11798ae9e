"""Logits and accuracy of a classifier over a set of images, in eval mode."""

import torch
from torch import Tensor

from toolkit.devices import Backend
from toolkit.networks import Classifier
from toolkit.progress import progress

BATCH = 500


@torch.inference_mode()
def count_correct(model: Classifier, images: Tensor, labels: Tensor, backend: Backend, title: str) -> int:
    """How many of the images (N, C, H, W) uint8 are classified right, in fp32. The model's mode is put back."""
    was_training = model.training
    model.eval()
    correct = 0
    with progress(title, len(images)) as update:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH].to(backend.torch_device).float()
            target = labels[start : start + BATCH].to(backend.torch_device)
            correct += int((model(batch).argmax(1) == target).sum())
            update(min(start + BATCH, len(images)), accuracy=correct / min(start + BATCH, len(images)))
    model.train(was_training)
    return correct
