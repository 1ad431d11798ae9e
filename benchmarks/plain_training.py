"""What the toolkit's training is compared with: the reference experiment as a script that many would write.

torchvision's MNIST through PIL transforms and a DataLoader, fp32, batch 64, SGD at a constant learning rate, random flips.
"""

import gzip
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional

from toolkit._torchvision import import_torchvision
from toolkit.data.datasets import default_data_dir
from toolkit.networks.resnet import resnet18

torchvision = import_torchvision()
transforms, MNIST = torchvision.transforms, torchvision.datasets.MNIST
PIXELS = [transforms.Resize(32), transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)]


class Plain:
    """A fresh network; `steps()` trains it."""

    def __init__(self, seed: int = 0) -> None:
        self.folder = tempfile.TemporaryDirectory()
        unpacked = Path(self.folder.name, "MNIST", "raw")  # torchvision reads them unpacked
        unpacked.mkdir(parents=True)
        for archive in (default_data_dir() / "MNIST" / "raw").glob("*.gz"):
            (unpacked / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
        self.images = MNIST(self.folder.name, transform=transforms.Compose([transforms.RandomHorizontalFlip(), *PIXELS]))
        torch.manual_seed(seed)
        self.model = resnet18(10)

    def steps(self) -> Iterator[int]:
        """Without end, epoch after epoch; yields after each step how many images it took."""
        loader = torch.utils.data.DataLoader(self.images, batch_size=64, shuffle=True)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        while True:
            for batch, labels in loader:
                optimizer.zero_grad()
                functional.cross_entropy(self.model(batch), labels).backward()
                optimizer.step()
                yield len(labels)

    @torch.inference_mode()
    def test_correct(self) -> int:
        """Of the 10,000 test images, in eval mode."""
        self.model.eval()
        loader = torch.utils.data.DataLoader(MNIST(self.folder.name, train=False, transform=transforms.Compose(PIXELS)), batch_size=500)
        correct = sum(int((self.model(batch).argmax(1) == labels).sum()) for batch, labels in loader)
        self.model.train()
        return correct
