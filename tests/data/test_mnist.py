"""MNIST: equal to torchvision's own reading, and never read from files that are not the official ones."""

import gzip
import hashlib
import io
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit._torchvision import import_torchvision
from toolkit.data import load
from toolkit.errors import DataError
from toolkit.recipe import Recipe
from toolkit.workspace import shipped_folder

import_torchvision()
from torchvision.datasets import MNIST  # noqa: E402  after the shim

TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


@pytest.fixture(scope="module")
def loaded(mnist: Path):
    return load("mnist", mnist, download=False)


@pytest.fixture
def copy(mnist: Path, tmp_path: Path) -> Path:
    """A data folder with the four archives: the small ones to damage, the large ones as links."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (mnist / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(path, raw) if path.name.startswith("t10k") else (raw / path.name).symlink_to(path)
    return tmp_path / "data"


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "__init__", lambda *_, **__: pytest.fail("it got as far as torchvision"))


def test_it_has_the_official_sizes_and_counts(loaded):
    assert loaded.name == "mnist"
    assert loaded.classes == tuple("0123456789")
    assert (loaded.train_images.shape, loaded.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert (loaded.train_images.dtype, loaded.train_labels.dtype) == (torch.uint8, torch.int64)
    assert loaded.train_labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert loaded.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("train", [True, False])
def test_it_is_what_torchvision_reads(loaded, mnist: Path, tmp_path: Path, train: bool):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (mnist / "MNIST" / "raw").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    theirs = MNIST(str(tmp_path), train=train)
    images, labels = (loaded.train_images, loaded.train_labels) if train else (loaded.test_images, loaded.test_labels)
    assert torch.equal(images[:, 0], theirs.data)
    assert torch.equal(labels, theirs.targets)


def test_it_is_what_the_file_format_says(loaded, mnist: Path):
    data = gzip.decompress((mnist / "MNIST" / "raw" / TEST_IMAGES).read_bytes())
    assert np.frombuffer(data[:16], ">u4").tolist() == [2051, 10_000, 28, 28]
    assert np.array_equal(np.frombuffer(data[16:], np.uint8).reshape(10_000, 1, 28, 28), loaded.test_images.numpy())


@pytest.mark.parametrize("model", ["resnet18-mnist", "resnet18-mnist-paper", "resnet18-mnist-sprint"])
def test_the_normalisation_of_the_recipes_is_that_of_the_training_images(loaded, model: str):
    part = Recipe.read(shipped_folder() / model / "recipe.toml").preprocess
    counts, values = np.bincount(loaded.train_images.numpy().ravel(), minlength=256), np.arange(256) / 255
    mean = (counts @ values) / counts.sum()
    assert part.mean == pytest.approx(mean, abs=1e-3)
    assert part.std == pytest.approx((counts @ (values - mean) ** 2 / counts.sum()) ** 0.5, abs=1e-3)


def test_nothing_is_left_beside_the_archives(copy: Path):
    load("mnist", copy, download=False)
    assert {path.name for path in (copy / "MNIST" / "raw").iterdir()} == {file for file, _ in MNIST.resources}


def test_an_unpacked_copy_that_somebody_changed_is_never_read(copy: Path, loaded):
    (copy / "MNIST" / "raw" / TEST_LABELS.removesuffix(".gz")).write_bytes(b"changed")
    assert torch.equal(load("mnist", copy, download=False).test_labels, loaded.test_labels)


def test_a_temporary_folder_that_is_full_is_one_message(copy: Path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"MNIST cannot be unpacked in .*No space left on device.*TMPDIR"):
        load("mnist", copy, download=False)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :],
        lambda raw: gzip.compress(gzip.decompress(raw) + b"\0"),
    ],
    ids=["truncated", "empty", "one bit", "another file"],
)
@pytest.mark.parametrize("download", [True, False])
def test_a_damaged_file_is_an_error_with_both_checksums_and_is_not_downloaded_over(copy: Path, damage, download: bool):
    path = copy / "MNIST" / "raw" / TEST_LABELS
    path.write_bytes(damage(path.read_bytes()))
    (copy / "MNIST" / "raw" / TEST_IMAGES).unlink() if download else None
    expected, found = dict(MNIST.resources)[TEST_LABELS], hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        load("mnist", copy, download=download)
    assert (
        str(caught.value) == f"{path} is damaged or another file: MD5 expected {expected}, found {found}. Delete it; it is downloaded again"
    )


@pytest.mark.usefixtures("no_download")
def test_a_file_in_the_place_of_another_is_an_error(copy: Path):
    raw = copy / "MNIST" / "raw"
    shutil.copy(raw / TEST_IMAGES, raw / TEST_LABELS)
    with pytest.raises(DataError, match=f"{TEST_LABELS} is damaged or another file"):
        load("mnist", copy)


@pytest.mark.usefixtures("no_download")
def test_missing_files_are_named_where_nothing_may_be_downloaded(copy: Path, tmp_path: Path):
    (copy / "MNIST" / "raw" / TEST_LABELS).unlink()
    with pytest.raises(DataError, match=rf"MNIST is not in .*raw: {TEST_LABELS} missing\. Give the folder with --data-dir or TOOLKIT_DATA"):
        load("mnist", copy, download=False)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz, .*t10k-labels-idx1-ubyte\.gz missing"):
        load("mnist", tmp_path / "nothing", download=False)


@pytest.mark.parametrize(
    "error", [OSError("no route to host"), RuntimeError("File not found or corrupted."), TimeoutError("timed out")], ids=str
)
def test_a_failed_download_is_one_error_that_says_what_to_do(tmp_path: Path, monkeypatch, error):
    def download(self):
        raise error

    monkeypatch.setattr(MNIST, "download", download)
    with pytest.raises(DataError, match=rf"could not be downloaded: {error}\. Put the four \.gz files into MNIST/raw/ there"):
        load("mnist", tmp_path)


class Response(io.BytesIO):
    length, url = None, "https://mirror.invalid/"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch):
    """Every address answers with the given bytes: torchvision's own code, without a network."""
    return lambda data: monkeypatch.setattr(urllib.request, "urlopen", lambda request: Response(data))


def test_a_download_fetches_what_is_missing_and_leaves_the_rest(copy: Path, mirror, loaded):
    path = copy / "MNIST" / "raw" / TEST_LABELS
    good = path.read_bytes()
    path.unlink()
    mirror(good)
    assert torch.equal(load("mnist", copy).test_labels, loaded.test_labels)
    assert path.read_bytes() == good


def test_a_mirror_that_gives_another_file_is_an_error(copy: Path, mirror):
    (copy / "MNIST" / "raw" / TEST_LABELS).unlink()
    mirror(b"<html>an error page</html>")
    with pytest.raises(DataError, match=rf"(?s)\({TEST_LABELS} missing\) and could not be downloaded: .*corrupted"):
        load("mnist", copy)


@pytest.mark.usefixtures("no_download")
def test_a_file_that_cannot_be_read_is_an_error(copy: Path, monkeypatch):
    def failing(path: Path, flags: int):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read: Permission denied"):
        load("mnist", copy)
