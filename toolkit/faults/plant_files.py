"""Faults of files and folders, and of the golden outputs: what copying, packing and mixing up does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import GOLDEN
from toolkit.checkpoint import Checkpoint
from toolkit.faults.fault import Plant, Planted, in_golden, read_manifest, sign

Arrays = dict[str, "np.ndarray[Any, Any]"]


def spoil_largest(change: Callable[[bytes], bytes], *words: str, signed: bool) -> Plant:
    """Changes the bytes of the largest file that ships: the weights."""

    def plant(copy: Path, checkpoint: Checkpoint) -> Planted:
        path = _largest(copy)
        path.write_bytes(change(path.read_bytes()))
        if signed:
            sign(copy)
        return Planted.at(path.name, *words)

    return plant


def first_two_thirds(raw: bytes) -> bytes:
    return raw[: len(raw) * 2 // 3]


def one_bit_flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 0x10]) + raw[middle + 1 :]


def lose_weights(copy: Path, checkpoint: Checkpoint) -> Planted:
    path = _largest(copy)
    path.unlink()
    return Planted.at(path.name, "missing")


def lose_golden(copy: Path, checkpoint: Checkpoint) -> Planted:
    (copy / GOLDEN).unlink()
    return Planted.at(GOLDEN, "missing")


def lose_manifest_line(copy: Path, checkpoint: Checkpoint) -> Planted:
    """The weights are in the folder and in no list, so that nothing would notice another file in their place."""
    import json

    from toolkit.artifact import MANIFEST

    path, manifest = _largest(copy), copy / MANIFEST
    values = json.loads(manifest.read_text(encoding="utf-8"))
    del values["files"][path.relative_to(copy).as_posix()]
    manifest.write_text(json.dumps(values), encoding="utf-8")
    return Planted.at(path.name, "unlisted", "not listed", "entry")


def _largest(copy: Path) -> Path:
    entry = copy / read_manifest(copy).entry
    return max((path for path in [entry, *entry.rglob("*")] if path.is_file()), key=lambda path: path.stat().st_size)


@in_golden
def roll_golden_logits(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    arrays["logits"] = np.roll(arrays["logits"], 1, axis=0)
    return Planted.at("golden.npz", "golden outputs")


@in_golden
def golden_of_another_model(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    """The same network with other weights."""
    import torch

    from toolkit.networks import build

    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(20)
        card = checkpoint.card
        other = build(checkpoint.recipe, len(card.class_labels), card.input_shape[0]).eval().double()
        arrays["logits"] = other(torch.tensor(arrays["images"]).double()).numpy()
    return Planted.at("golden.npz", "golden outputs")


@in_golden
def golden_in_single_precision(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    arrays["logits"] = arrays["logits"].astype(np.float32)
    return Planted.at("golden.npz", "golden outputs")


@in_golden
def golden_of_one_image(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    arrays["images"], arrays["logits"] = np.repeat(arrays["images"][:1], 64, 0), np.repeat(arrays["logits"][:1], 64, 0)
    return Planted.at("golden.npz", "golden outputs")


@in_golden
def golden_of_few_images(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    arrays["images"], arrays["logits"] = arrays["images"][:2], arrays["logits"][:2]
    return Planted.at("golden.npz", "golden outputs")


@in_golden
def golden_with_nan(arrays: Arrays, checkpoint: Checkpoint) -> Planted:
    arrays["images"][-1, 0, 0, 0] = np.nan
    arrays["logits"] = np.roll(arrays["logits"], 3, axis=0)
    return Planted.at("golden.npz", "golden outputs")
