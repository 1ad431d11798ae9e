"""The module that is trained and shipped: raw pixels in, logits out, resize and normalisation inside."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.checkpoint import Checkpoint
from toolkit.errors import CheckpointError, RecipeError
from toolkit.networks.resnet import NETWORKS
from toolkit.recipe import Recipe


class Classifier(nn.Module):
    """Raw pixels (N, C, H, W) float 0..255 → logits (N, classes)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, size: int, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.size = size
        # On the scale of the pixels, so that x/255 needs no step of its own. Not in the state dict: the recipe has them.
        self.register_buffer("mean", torch.tensor(255 * mean), persistent=False)
        self.register_buffer("scale", torch.tensor(1 / (255 * std)), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.interpolate(image, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.network((x - self.mean) * self.scale)  # type: ignore[no-any-return]


class WithProbabilities(nn.Module):
    """What is exported: (logits, probabilities)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(image)
        return logits, logits.softmax(dim=1)


def build(recipe: Recipe, classes: int, channels: int = 1) -> Classifier:
    """A freshly initialised classifier. Raises RecipeError when the builder is not known."""
    name = recipe.network.builder
    if name not in NETWORKS:
        raise RecipeError(f"network.builder {name!r} is not known; there are {', '.join(NETWORKS)}")
    part = recipe.preprocess
    return Classifier(NETWORKS[name](classes, channels), part.size, part.mean, part.std)


def from_checkpoint(checkpoint: Checkpoint) -> Classifier:
    """The trained classifier in eval mode, fp32, on the CPU. Raises CheckpointError when the weights do not fit."""
    weights = checkpoint.weights()
    with torch.device("meta"):  # shapes first: a wrong file costs no memory
        expected = build(checkpoint.recipe, len(checkpoint.card.class_labels), checkpoint.card.input_shape[0]).state_dict()
    faults = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    faults += [f"{name} is not of this network" for name in weights.keys() - expected.keys()]
    faults += [
        f"{name} is {weights[name].dtype} {tuple(weights[name].shape)}, should be {tensor.dtype} {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and (weights[name].shape, weights[name].dtype) != (tensor.shape, tensor.dtype)
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise CheckpointError(f"{checkpoint.weights_path} does not fit {checkpoint.recipe.network.builder}: {shown}")
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        names = ", ".join(sorted(broken)[:5])
        raise CheckpointError(f"{checkpoint.weights_path} holds NaN or Inf in {names}: training diverged. Train with a lower train.lr")
    classifier = build(checkpoint.recipe, len(checkpoint.card.class_labels), checkpoint.card.input_shape[0])
    classifier.load_state_dict(weights)
    return classifier.eval()


def parameter_counts(module: nn.Module) -> dict[str, int]:
    """Total, trainable and non-trainable parameters."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "non-trainable": total - trainable}
