"""A checkpoint: what training leaves. Weights in safetensors, everything else in JSON; neither can run code.

checkpoint/model.safetensors   the weights, fp32
checkpoint/checkpoint.json     recipe, hash, seed, progress, metrics, versions, sha256 of the weights
checkpoint/resume.pt           optimiser and schedule state, read with weights_only=True; only `train --resume` opens it
"""

import hashlib
import json
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from toolkit.archives import members
from toolkit.errors import CheckpointError, RecipeError
from toolkit.files import kind_of, opened
from toolkit.limits import MAX_CARD_BYTES, MAX_WEIGHTS_BYTES
from toolkit.recipe import Recipe
from toolkit.records import LARGEST, read_record

if TYPE_CHECKING:
    import torch

MAX_MEMBERS = 1 << 15  # of resume.pt: three numbers or more for each weight
MAX_HEADER_BYTES = 16 << 20  # of the weights: a hundred bytes for each
MAX_PICKLE_BYTES = 4 << 20  # of resume.pt: a hundred bytes for each of these; read as Python objects, ten times as large
WEIGHTS, CARD, RESUME = "model.safetensors", "checkpoint.json", "resume.pt"
MOST_VALUES = 64_000_000  # of one raw image: an 8000×8000 photograph

Side = Annotated[int, Field(ge=1, le=8192)]
Sha256 = Annotated[str, Field(max_length=64)]


class Card(BaseModel):
    """checkpoint.json. Accuracies are shares of 1: of test and held-out images measured on the CPU from the saved file, once training
    has ended; `train_accuracy` and `train_loss` are running means of the last epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    schema_version: Literal[1] = 1
    recipe: dict[str, Any]
    recipe_hash: Sha256
    seed: int = Field(ge=0, le=LARGEST)
    class_labels: list[str] = Field(min_length=2, max_length=1_000_000)
    input_shape: tuple[Side, Side, Side]  # channels, height, width of a raw image
    device: str
    setting: dict[str, str] = {}  # what the arithmetic depended on: precision, layout, threads, processes
    finished: bool
    epochs_done: float = Field(ge=0, le=1e9)
    metrics: dict[str, int | float] = Field(max_length=1000)
    versions: dict[str, str] = Field(max_length=1000)
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _possible(self) -> "Card":
        """Raises ValueError, which pydantic turns into one of its own, for figures that no training can have left."""
        if math.prod(self.input_shape) > MOST_VALUES:
            raise ValueError(f"an image of shape {self.input_shape} has more than {MOST_VALUES:,} values")
        for name, value in self.metrics.items():
            largest = 1 if name.endswith("accuracy") else LARGEST
            if not 0 <= value <= largest:
                raise ValueError(f"metrics: {name} is {value:g}; it must be 0 to {largest:g}")
        images, correct = self.metrics.get("test_images"), self.metrics.get("test_correct", 0)
        if images is not None and not (images >= 1 and correct <= images):
            raise ValueError(f"metrics: {correct:g} of {images:g} test images are right, which cannot be")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose weights are those its card names."""

    folder: Path
    card: Card
    recipe: Recipe

    @classmethod
    def open(cls, folder: Path) -> "Checkpoint":
        """Reads and verifies. Raises CheckpointError when anything is missing, damaged or does not belong together."""
        card_path = folder / CARD
        if kind_of(card_path) is None:
            raise CheckpointError(f"there is no checkpoint in {folder}: {CARD} is missing. Train one first: toolkit train")
        card = read_record(card_path, Card, MAX_CARD_BYTES, raises=CheckpointError, advice="Train again")
        try:
            recipe = Recipe.from_values(card.recipe, source=str(card_path))
        except RecipeError as error:
            raise CheckpointError(f"{card_path} cannot be read as a checkpoint's card: {error}. Train again") from error
        if recipe.hash != card.recipe_hash:
            raise CheckpointError(
                f"{card_path}: the recipe's hash is {recipe.hash[:12]}, the card says {card.recipe_hash[:12]}: it was edited. Train again"
            )
        return cls(folder, card, recipe)

    @property
    def weights_path(self) -> Path:
        return self.folder / WEIGHTS

    def weights(self) -> "dict[str, torch.Tensor]":
        """name → fp32 tensor on the CPU, after the file's sha256 was checked against the card."""
        import safetensors
        from safetensors.torch import load_file

        path = self.weights_path
        if not path.is_file():
            raise CheckpointError(f"the checkpoint in {self.folder} has no {WEIGHTS}. Copy the whole folder, or train again")
        _check_header(path)
        if (found := sha256_of(path)) != self.card.weights_sha256:
            expected = self.card.weights_sha256
            raise CheckpointError(
                f"{path} is not what was trained: sha256 expected {expected}, found {found}. Copy it again, or train again"
            )
        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is not a safetensors file: {error}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """name → shape of each weight, from the file's header alone."""
        import safetensors

        _check_header(self.weights_path)
        try:
            with safetensors.safe_open(self.weights_path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # it is no dict
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{self.weights_path} is not a safetensors file: {error}") from error

    def resume_state(self) -> dict[str, Any]:
        """Optimiser state. `weights_only=True`: an untrusted file must not be able to run code.

        Raises CheckpointError for what is missing, larger than makes sense beside the weights, damaged, or of other weights.
        """
        import torch

        path = self.folder / RESUME
        if not path.is_file():
            raise CheckpointError(f"the checkpoint in {self.folder} has no {RESUME}, so training cannot go on. Begin anew: --restart")
        most = 8 * self.weights_path.stat().st_size + (16 << 20)  # two moments, an average, and the same again
        with opened(path, most, raises=CheckpointError, advice="Begin anew: --restart") as file:
            try:
                _check_stored(file)
                file.seek(0)
                state = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises a dozen types here, depending on where the file is damaged
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise CheckpointError(f"{path} cannot be read as training state ({reason}). Begin anew: --restart") from error
        if not isinstance(state, dict) or state.get("weights_sha256") != self.card.weights_sha256:
            raise CheckpointError(f"{path} belongs to other weights than {WEIGHTS} beside it. Begin anew: --restart")
        return state


def _check_header(path: Path) -> None:
    """A safetensors file begins with the length of its header, which becomes an object for each tensor that it names."""
    with opened(path, MAX_WEIGHTS_BYTES, raises=CheckpointError, advice="Copy it again, or train again") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is not a safetensors file of ours: its header has {length} bytes, at most {MAX_HEADER_BYTES} are read. "
            "Copy it again, or train again"
        )


def _check_stored(file: BinaryIO) -> None:
    """torch.save packs nothing, and lays nothing over something else. Raises ValueError for an archive that grows when it is read."""
    size = file.seek(0, os.SEEK_END)
    for each in members(file, MAX_MEMBERS, size):
        if each.compress_type != zipfile.ZIP_STORED or each.file_size != each.compress_size:
            raise ValueError(f"{each.filename[:80]!r} is packed, {each.compress_size} bytes for {each.file_size}; torch.save packs nothing")
        if each.filename.endswith(".pkl") and each.file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"{each.filename[:80]!r} has {each.file_size} bytes, and says only where the numbers lie")


def write_checkpoint(folder: Path, weights: "dict[str, torch.Tensor]", card: dict[str, Any], resume: dict[str, Any] | None) -> Checkpoint:
    """Fills an empty `folder` (see toolkit.writing.replacing_folder) and opens what it wrote."""
    import torch
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    digest = sha256_of(folder / WEIGHTS)
    if resume is not None:
        torch.save({**resume, "weights_sha256": digest}, folder / RESUME)
    text = json.dumps(Card(**card, weights_sha256=digest).model_dump(mode="json"), indent=1)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")
    return Checkpoint.open(folder)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
