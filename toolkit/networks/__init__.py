"""Networks by name, and the classifier that is trained and shipped: preprocessing and network in one module.

To add one: a function (classes, channels) → nn.Module that returns logits, and a line in NETWORKS.
"""

from toolkit.networks.classifier import Classifier, WithProbabilities, build, from_checkpoint, parameter_counts
from toolkit.networks.resnet import NETWORKS

__all__ = ["NETWORKS", "Classifier", "WithProbabilities", "build", "from_checkpoint", "parameter_counts"]
