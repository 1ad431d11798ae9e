"""What a fault is, and the three ways to plant one: in the model file, in the manifest, in the golden outputs."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.artifact import GOLDEN, MANIFEST, Manifest
from toolkit.checkpoint import Checkpoint, sha256_of
from toolkit.faults.surgery import NotApplicable, Surgery, open_surgery

__all__ = ["BOTH", "COREML", "EVERY", "ONNX", "Fault", "NotApplicable", "Plant", "Planted", "in_file", "in_golden", "in_manifest", "sign"]

COREML, ONNX = ("coreml",), ("onnx",)
BOTH = ("coreml", "onnx")  # the formats that surgery can edit
EVERY = ("coreml", "onnx", "coreai")  # faults beside the model file need no surgery

Stage = Literal["files", "contract", "preprocessing", "layer", "output", "golden"]


@dataclass(frozen=True)
class Planted:
    """Where a fault lies: the output value of the op that is wrong, or a word; and what a diagnosis may call it."""

    where: str
    words: tuple[str, ...]

    @classmethod
    def at(cls, where: str, *words: str) -> "Planted":
        """Any of `words` names it, and so does `where`, unless it is a word that any sentence may hold (`logits`, `mean`, `relu`)."""
        own = (where,) if re.search(r"[_.\d]", where) else ()
        return cls(where, tuple(dict.fromkeys((*own, *words))))

    def named_in(self, text: str) -> bool:
        """Whole words only, in any case: `mean` is not in `means`."""
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in self.words)


Plant = Callable[[Path, Checkpoint], Planted]


@dataclass(frozen=True)
class Fault:
    """A line of FAULTS. `plant` edits a copied artifact folder in place, or raises NotApplicable before it changes anything."""

    id: str
    stage: Stage
    formats: tuple[str, ...]
    plant: Plant
    sentence: str  # how it happens in the field


def in_file(edit: Callable[[Surgery, Checkpoint], Planted]) -> Plant:
    """A fault in the model file, signed: made by an exporter and not by a copy."""

    @functools.wraps(edit)
    def plant(copy: Path, checkpoint: Checkpoint) -> Planted:
        surgery = open_surgery(copy, read_manifest(copy))
        planted = edit(surgery, checkpoint)
        surgery.save()
        sign(copy)
        return planted

    return plant


def in_manifest(edit: Callable[[dict[str, Any], Checkpoint], Planted]) -> Plant:
    """A fault in manifest.json, which `edit` is given as plain values."""

    @functools.wraps(edit)
    def plant(copy: Path, checkpoint: Checkpoint) -> Planted:
        values = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
        planted = edit(values, checkpoint)
        (copy / MANIFEST).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        return planted

    return plant


def in_golden(edit: Callable[[dict[str, "np.ndarray[Any, Any]"], Checkpoint], Planted]) -> Plant:
    """A fault in golden.npz: `edit` is given images (N, C, H, W) float32 and logits (N, classes) float64 by name. Signed."""

    @functools.wraps(edit)
    def plant(copy: Path, checkpoint: Checkpoint) -> Planted:
        with np.load(copy / GOLDEN, allow_pickle=False) as stored:
            arrays = dict(stored)
        planted = edit(arrays, checkpoint)
        np.savez_compressed(copy / GOLDEN, **arrays)
        sign(copy)
        return planted

    return plant


def read_manifest(copy: Path) -> Manifest:
    return Manifest.model_validate_json((copy / MANIFEST).read_bytes())


def sign(copy: Path) -> None:
    """Makes the manifest's sha256 fit the files again; everything else in it stays."""
    values = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    values["files"] = {name: sha256_of(copy / name) for name in values["files"]}
    (copy / MANIFEST).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
