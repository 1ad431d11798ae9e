"""The data sets: MNIST (torchvision's class, mirrors and checksums) and scikit-learn's digits (no download)."""

import gzip
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from toolkit._torchvision import import_torchvision
from toolkit.errors import DataError
from toolkit.files import read_bytes
from toolkit.limits import MAX_ARCHIVE_BYTES

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Dataset:
    """Images (N, 1, 28, 28) uint8, light strokes on black; labels (N,) int64, indices into `classes`."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]

    def test_sha256(self) -> str:
        """Of the test images and labels as they lie in memory: which test set a figure is about."""
        digest = hashlib.sha256(self.test_images.numpy().tobytes())
        digest.update(self.test_labels.numpy().tobytes())
        return digest.hexdigest()


def load(name: str, data_dir: Path | None = None, *, download: bool = True) -> Dataset:
    """The data set of that name. Raises DataError when its files are not what their checksums say."""
    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name](data_dir or default_data_dir(), download)


def default_data_dir() -> Path:
    """TOOLKIT_DATA, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("TOOLKIT_DATA") or platformdirs.user_cache_path("toolkit"))


def load_mnist(data_dir: Path, download: bool) -> Dataset:
    """The official files in `data_dir`/MNIST/raw/*.gz, downloaded from torchvision's mirrors where there are none.

    Always unpacked afresh from the verified archives: an unpacked copy that somebody changed is never read.
    """
    import_torchvision()
    from torchvision.datasets import MNIST

    raw = data_dir / "MNIST" / "raw"
    missing = [file for file, _ in MNIST.resources if not os.path.lexists(raw / file)]  # a link to nowhere is there: it is not written to
    if missing and not download:
        raise DataError(f"MNIST is not in {raw}: {', '.join(missing)} missing. Give the folder with --data-dir or TOOLKIT_DATA")
    # Before a download as well: a damaged file is reported, not papered over.
    archives = {file: _verified(raw / file, md5) for file, md5 in MNIST.resources if file not in missing}
    if missing:
        _download_mnist(data_dir, missing)
        archives |= {file: _verified(raw / file, md5) for file, md5 in MNIST.resources if file in missing}
    try:
        return _unpacked(archives)
    except OSError as error:
        raise DataError(
            f"MNIST cannot be unpacked in {tempfile.gettempdir()}: {error.strerror or error}. Make room there (60 MB), or name another "
            "folder with TMPDIR"
        ) from error


def _unpacked(archives: dict[str, bytes]) -> Dataset:
    """By torchvision, which reads files that are unpacked. `archives`: name → content, of the right checksum."""
    from torchvision.datasets import MNIST

    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / "MNIST" / "raw"
        unpacked.mkdir(parents=True)
        for file, content in archives.items():
            with gzip.open(io.BytesIO(content)) as source, (unpacked / file.removesuffix(".gz")).open("wb") as target:
                shutil.copyfileobj(source, target)
        train, test = MNIST(folder, train=True), MNIST(folder, train=False)
        return Dataset(
            "mnist", train.data[:, None].clone(), train.targets.clone(), test.data[:, None].clone(), test.targets.clone(), DIGITS
        )


def _download_mnist(data_dir: Path, missing: list[str]) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(data_dir), download=True)
    except Exception as error:  # urllib, ssl, socket, OSError, RuntimeError: whatever the network or the disk does
        raise DataError(
            f"MNIST is not complete in {data_dir} ({', '.join(missing)} missing) and could not be downloaded: {error}. "
            "Put the four .gz files into MNIST/raw/ there, or give another folder with --data-dir or TOOLKIT_DATA"
        ) from error


def _verified(path: Path, expected: str) -> bytes:
    """The content of a file that has this MD5, which is what torchvision publishes; the mirrors' transport guards nothing."""
    content = read_bytes(path, MAX_ARCHIVE_BYTES, raises=DataError, advice="Delete it; it is downloaded again")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(f"{path} is damaged or another file: MD5 expected {expected}, found {found}. Delete it; it is downloaded again")
    return content


def load_digits(data_dir: Path, download: bool) -> Dataset:
    """1,797 real handwritten digits that travel with scikit-learn (8×8, 0..16), brought to MNIST's form.

    MNIST's own making: the digit scaled into a 20×20 box, centred in 28×28. Split 1,437 / 360, stratified, fixed.
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split
    from torch.nn import functional

    digits = sklearn_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # (1797, 1, 8, 8), 0..255
    large = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(large, (4, 4, 4, 4)).round().to(torch.uint8)  # (1797, 1, 28, 28)
    labels = torch.from_numpy(digits.target).long()
    train, test = train_test_split(torch.arange(len(labels)).numpy(), test_size=360, random_state=0, stratify=labels.numpy())
    return Dataset("digits", images[train], labels[train], images[test], labels[test], DIGITS)


DATASETS: dict[str, Callable[[Path, bool], Dataset]] = {
    "mnist": load_mnist,
    "digits": load_digits,
}


def stratified_subset(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` images, in order, whose classes are as evenly many as can be; all where count ≥ len(labels).

    The k-th image of each class is taken before the (k+1)-th of any: the same images on every machine, no random draw.
    """
    if count >= len(labels):
        return torch.arange(len(labels))
    rank = torch.empty_like(labels)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        rank[members] = torch.arange(len(members))
    return torch.argsort(rank, stable=True)[:count].sort().values


def held_out(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of `count` kept out, evenly over the classes. The same ones always, for every seed."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    kept_out = shuffled[stratified_subset(labels[shuffled], count)].sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[kept_out] = False
    return rest.nonzero()[:, 0], kept_out
