"""An artifact: an exported model that proves itself. A folder with the model file, a manifest and golden outputs.

exports/<format>-<variant>/manifest.json   what it is, from what it was made, sha256 of every file
exports/<format>-<variant>/golden.npz      inputs, and the logits PyTorch computes for them in float64
exports/<format>-<variant>/model.<…>       the file (or package) that ships
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolkit.checkpoint import MAX_CARD_BYTES, WEIGHTS, Checkpoint, sha256_of
from toolkit.errors import ArtifactError
from toolkit.recipe import fault_rows
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES, TensorSpec

MANIFEST, GOLDEN = "manifest.json", "golden.npz"
MAX_GOLDEN_BYTES = 256 << 20
KEPT = "kept in fp32: "  # how a manifest's notes say which ops stayed so
TORCH = "torch"  # the format of a checkpoint when it is run beside the exported files


class Manifest(BaseModel):
    """manifest.json. `files` are relative POSIX paths inside the folder; `test_accuracy` is a share of 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    format: Literal["coreml", "onnx", "coreai", "torch"]
    precision: Literal["fp32", "fp16"]
    compression: str | None = None
    model: str
    entry: str = Field(description="the file or package that ships")
    input_kind: Literal["image", "tensor"]
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    class_labels: list[str] = Field(min_length=2)
    preprocessing: str
    recipe_hash: str
    checkpoint_sha256: str
    test_accuracy: float | None
    notes: list[str] = []
    versions: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    folder: Path
    manifest: Manifest

    @property
    def format(self) -> str:
        return self.manifest.format

    @property
    def id(self) -> str:
        """The folder's name, such as `coreml-fp16`; `torch` for the checkpoint itself."""
        return TORCH if self.format == TORCH else self.folder.name

    @property
    def entry(self) -> Path:
        return self.folder / self.manifest.entry

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Reads the manifest and verifies every file against it. Raises ArtifactError on the first thing that is off."""
        path = folder / MANIFEST
        if not path.is_file():
            raise ArtifactError(f"{folder} is no artifact of ours: it has no {MANIFEST}. Make one with: toolkit export")
        try:
            if path.stat().st_size > MAX_CARD_BYTES:
                raise ArtifactError(f"{path} has {path.stat().st_size} bytes, more than any manifest of ours")
            manifest = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArtifactError(f"{path} cannot be read as a manifest: {'; '.join(fault_rows(error))}. Export again") from error
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read as a manifest: {error}. Export again") from error
        for name, expected in manifest.files.items():
            _verify(folder, name, expected)
        listed = {PurePosixPath(name).parts[0] for name in manifest.files}
        if GOLDEN not in manifest.files:
            raise ArtifactError(f"{path} does not list {GOLDEN}, so nothing would prove the file. Export again")
        if PurePosixPath(manifest.entry).parts[:1] != (manifest.entry,) or manifest.entry not in listed:
            raise ArtifactError(f"{path}: its entry {manifest.entry!r} is not among its files. Export again")
        if (strange := _unlisted(folder, manifest)) is not None:
            raise ArtifactError(
                f"{folder / strange} is not in the manifest, so nobody vouches for it. Copy the artifact again, or export again"
            )
        return cls(folder, manifest)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> "Artifact":
        """The checkpoint seen as an artifact of format `torch`, which the torch-* runtimes read."""
        card, recipe = checkpoint.card, checkpoint.recipe
        manifest = Manifest(
            format=TORCH, precision="fp32", model=recipe.name, entry=WEIGHTS, input_kind="tensor",
            inputs=(image_spec(card.input_shape),), outputs=output_specs(len(card.class_labels)),
            class_labels=card.class_labels, preprocessing=describe_preprocessing(checkpoint),
            recipe_hash=card.recipe_hash, checkpoint_sha256=card.weights_sha256,
            test_accuracy=card.metrics.get("test_accuracy"), versions=card.versions, files={WEIGHTS: card.weights_sha256},
        )  # fmt: skip
        return cls(checkpoint.folder, manifest)

    def golden(self) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """(images (N, C, H, W) float32 0..255, logits (N, classes) float64)."""
        path = self.folder / GOLDEN
        try:
            with zipfile.ZipFile(path) as archive:
                if (size := sum(member.file_size for member in archive.infolist())) > MAX_GOLDEN_BYTES:
                    raise ArtifactError(f"{path} unpacks to {size} bytes; golden outputs have at most {MAX_GOLDEN_BYTES}")
            with np.load(path, allow_pickle=False) as arrays:
                images, logits = arrays["images"], arrays["logits"]
        except ArtifactError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen types, depending on where the file is damaged
            raise ArtifactError(f"{path} cannot be read as golden outputs: {error}. Export again") from error
        expected = self.manifest.inputs[0].shape[1:]
        if images.shape[1:] != expected or logits.shape != (len(images), len(self.manifest.class_labels)):
            raise ArtifactError(f"{path}: images {images.shape} and logits {logits.shape} do not fit the manifest {expected}. Export again")
        typed = (images.dtype, logits.dtype) == (np.float32, np.float64)
        if len(images) == 0 or not typed or not np.isfinite(images).all() or not np.isfinite(logits).all():
            raise ArtifactError(
                f"{path}: {len(images)} images {images.dtype}, logits {logits.dtype}: nothing that can prove a file. Export again"
            )
        return images, logits


def _unlisted(folder: Path, manifest: Manifest) -> str | None:
    """A file that the manifest does not know: external weights beside an ONNX file, say. macOS leaves .DS_Store everywhere."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (".DS_Store", MANIFEST))
    return next((name for path in inside if (name := path.relative_to(folder).as_posix()) not in manifest.files), None)


def _verify(folder: Path, name: str, expected: str) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name or not relative.parts:
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which is outside the artifact. Do not use this artifact")
    path = folder / relative
    try:
        inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
        found = sha256_of(path) if inside and there else None
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle, no permission
        raise ArtifactError(f"{path} cannot be read: {error}. Copy the whole folder, or export again") from error
    if not inside:
        raise ArtifactError(f"{path} is a link to outside the artifact. Do not use this artifact")
    if not there:
        raise ArtifactError(f"{path} is missing. Copy the whole folder, or export again")
    if found != expected:
        raise ArtifactError(
            f"{path} was changed after the export: sha256 expected {expected}, found {found}. Copy it again, or export again"
        )


def write_artifact(folder: Path, fields: dict[str, Any], images: "np.ndarray[Any, Any]", logits: "np.ndarray[Any, Any]") -> Artifact:
    """Adds golden outputs and the manifest to a folder that holds the model file, and opens the result."""
    np.savez_compressed(folder / GOLDEN, images=images, logits=logits)
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    text = Manifest(**fields, files=files).model_dump_json(indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Artifact.open(folder)


def image_spec(shape: tuple[int, int, int], batch: int = -1) -> TensorSpec:
    return TensorSpec(name=IMAGE, shape=(batch, *shape), dtype="float32", low=0, high=255)


def output_specs(classes: int, batch: int = -1, labels: bool = False) -> tuple[TensorSpec, ...]:
    specs = (
        TensorSpec(name=LOGITS, shape=(batch, classes), dtype="float32"),
        TensorSpec(name=PROBABILITIES, shape=(batch, classes), dtype="float32", low=0, high=1),
    )
    return (*specs, TensorSpec(name=CLASS_LABEL, shape=(batch,), dtype="str")) if labels else specs


def describe_preprocessing(checkpoint: Checkpoint) -> str:
    part, shape = checkpoint.recipe.preprocess, checkpoint.card.input_shape
    return (
        f"inside the model: {shape[1]}×{shape[2]} gray, 0..255 → bilinear resize to {part.size}×{part.size} "
        f"→ (x/255 − {part.mean}) / {part.std}; the caller hands over raw pixels"
    )
