"""Before training on a GPU: the model's own forward and backward, once, against the CPU in float64.

PyTorch has shipped wrong gradients on MPS (batch-norm among them); a run on those ends in a bad model, hours later.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.devices import Backend
from toolkit.errors import DeviceError

# Relative L2 error of the loss, or of one parameter's gradient. fp32 on the CPU (ResNet18, 25 seeds) gives about 1e-5, and
# up to 1e-2 where rounding decides on which side of a ReLU a value lies; the bugs this is for give errors of the order of 1.
TOLERANCE = 0.05


def check_gradients(model: nn.Module, images: Tensor, labels: Tensor, backend: Backend) -> float:
    """The largest relative error of loss and gradients. Raises DeviceError naming the worst parameter above TOLERANCE.

    `images` (N, C, H, W) uint8 on the CPU. The model itself, and its batch-norm statistics, stay as they were.
    """
    truth = _loss_and_gradients(copy.deepcopy(model).cpu().double(), images.double(), labels)
    device = torch.device(backend.torch_device)
    # float first, then move: MPS has no float64, and must never be handed one
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):  # TF32's rounding alone gives 0.2
        found = _loss_and_gradients(copy.deepcopy(model).float().to(device), images.float().to(device), labels.to(device))
        backend.synchronise()
    # A gradient that is zero in exact arithmetic (a bias before batch-norm) is pure rounding: measured against all.
    overall = torch.stack([tensor.norm() for tensor in truth.values()]).max() * 1e-3
    errors = {
        name: float((found[name].cpu().double() - tensor).norm() / torch.maximum(tensor.norm(), overall)) for name, tensor in truth.items()
    }
    worst = max(errors, key=lambda name: float("inf") if errors[name] != errors[name] else errors[name])
    if not errors[worst] <= TOLERANCE:
        raise DeviceError(
            f"{backend.id} computes wrong gradients: {worst} is off by {errors[worst]:.3g} relative to float64 on the CPU "
            f"(allowed {TOLERANCE}; torch {torch.__version__}). Not training on it. Use --device cpu, or another torch"
        )
    return errors[worst]


def _loss_and_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model.train()
    loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"the loss": loss.detach(), **gradients}
