"""The networks: torchvision's ResNet18 with the small-image stem, and a tiny one for smoke tests."""

from collections.abc import Callable

from torch import nn

from toolkit._torchvision import import_torchvision


def resnet18(classes: int, channels: int = 1) -> nn.Module:
    """ResNet18 (arXiv 1512.03385) for 32×32 images: 3×3 stem with stride 1 and no max-pool, as for CIFAR.

    11,172,810 parameters with one channel and ten classes. (N, channels, H, W) float → (N, classes) logits.
    """
    import_torchvision()
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision initialises its own
    network.maxpool = nn.Identity()
    return network  # type: ignore[no-any-return]  # torchvision publishes no types


def small_cnn(classes: int, channels: int = 1) -> nn.Module:
    """Two convolutions and a linear layer, 6,186 parameters for ten classes: seconds to train, for smoke tests."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32 * 4, classes),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet18": resnet18,
    "small-cnn": small_cnn,
}
