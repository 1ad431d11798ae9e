"""An artifact: an exported model that proves itself. A folder with the model file, a manifest and golden outputs.

exports/<format>-<variant>/manifest.json   what it is, from what it was made, sha256 of every file
exports/<format>-<variant>/golden.npz      inputs, and the logits PyTorch computes for them in float64
exports/<format>-<variant>/model.<…>       the file (or package) that ships
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from toolkit.archives import members
from toolkit.checkpoint import WEIGHTS, Checkpoint, sha256_of
from toolkit.errors import ArtifactError, CheckpointError
from toolkit.files import FILE, FOLDER, kind_of, opened, read_bytes
from toolkit.limits import MAX_CARD_BYTES, MAX_WEIGHTS_BYTES
from toolkit.records import fault_rows
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES, TensorSpec

MANIFEST, GOLDEN = "manifest.json", "golden.npz"
MAX_GOLDEN_BYTES = 256 << 20
MAX_GOLDEN_MEMBERS = 16  # images, logits
KEPT = "kept in fp32: "  # how a manifest's notes say which ops stayed so
TORCH = "torch"  # the format of a checkpoint when it is run beside the exported files
MAX_FILES = 10_000  # in an artifact's folder
MAX_DEPTH = 16
MAX_RANK = 8
_DO_NOT_USE = "Do not use this artifact"


def _sane(spec: TensorSpec) -> TensorSpec:
    """Raises ValueError for sizes and bounds that no tensor has."""
    if len(spec.name) > 200 or len(spec.shape) > MAX_RANK or not all(size == -1 or 0 < size < 1 << 31 for size in spec.shape):
        raise ValueError(f"no tensor has the name {spec.name[:80]!r} and the shape {spec.shape[:MAX_RANK]}")
    if not all(bound is None or abs(bound) < 1e30 for bound in (spec.low, spec.high)):  # NaN is not below it either
        raise ValueError(f"values between {spec.low} and {spec.high} are no range")
    return spec


Spec = Annotated[TensorSpec, AfterValidator(_sane)]
Digest = Annotated[str, Field(max_length=128)]
Name = Annotated[str, Field(max_length=1024)]
Line = Annotated[str, Field(max_length=1000)]


class Manifest(BaseModel):
    """manifest.json. `files` are relative POSIX paths inside the folder; `test_accuracy` is a share of 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    format: Literal["coreml", "onnx", "coreai", "torch"]
    precision: Literal["fp32", "fp16"]
    compression: Line | None = None
    model: Line
    entry: Name = Field(description="the file or package that ships")
    input_kind: Literal["image", "tensor"]
    inputs: tuple[Spec, ...] = Field(min_length=1, max_length=100)
    outputs: tuple[Spec, ...] = Field(min_length=1, max_length=100)
    class_labels: list[Line] = Field(min_length=2, max_length=100_000)
    preprocessing: Annotated[str, Field(max_length=10_000)]
    recipe_hash: Digest
    checkpoint_sha256: Digest
    test_accuracy: float | None = Field(ge=0, le=1, allow_inf_nan=False)
    notes: list[Annotated[str, Field(max_length=100_000)]] = Field(default=[], max_length=1000)
    versions: dict[Line, Line]
    files: dict[Name, Digest] = Field(max_length=MAX_FILES)


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
        if kind_of(path) is None:
            raise ArtifactError(f"{folder} is no artifact of ours: it has no {MANIFEST}. Make one with: toolkit export")
        if (kind := kind_of(path)) != FILE:
            raise ArtifactError(f"{path} is {kind}, not a regular file. {_DO_NOT_USE}")
        content = read_bytes(path, MAX_CARD_BYTES, raises=ArtifactError, advice="Export again")
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            raise ArtifactError(f"{path} cannot be read as a manifest: {'; '.join(fault_rows(error))}. Export again") from error
        _check_names(path, manifest.files)
        for name, expected in manifest.files.items():
            _verify(folder, name, expected)
        listed = {PurePosixPath(name).parts[0] for name in manifest.files}
        if GOLDEN not in manifest.files:
            raise ArtifactError(f"{path} does not list {GOLDEN}, so nothing would prove the file. Export again")
        if PurePosixPath(manifest.entry).parts[:1] != (manifest.entry,) or manifest.entry not in listed:
            raise ArtifactError(f"{path}: its entry {manifest.entry!r} is not among its files. Export again")
        _check_unlisted(folder, manifest)
        return cls(folder, manifest)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> "Artifact":
        """The checkpoint seen as an artifact of format `torch`, which the torch-* runtimes read."""
        card, recipe = checkpoint.card, checkpoint.recipe
        try:
            manifest = Manifest(
                format=TORCH, precision="fp32", model=recipe.name, entry=WEIGHTS, input_kind="tensor",
                inputs=(image_spec(card.input_shape),), outputs=output_specs(len(card.class_labels)),
                class_labels=card.class_labels, preprocessing=describe_preprocessing(checkpoint),
                recipe_hash=card.recipe_hash, checkpoint_sha256=card.weights_sha256,
                test_accuracy=card.metrics.get("test_accuracy"), versions=card.versions, files={WEIGHTS: card.weights_sha256},
            )  # fmt: skip
        except ValidationError as error:  # the card holds what no manifest may hold, such as an accuracy of 7
            raise CheckpointError(f"the card in {checkpoint.folder} does not hold: {'; '.join(fault_rows(error))}. Train again") from error
        return cls(checkpoint.folder, manifest)

    def golden(self) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """(images (N, C, H, W) float32 0..255, logits (N, classes) float64)."""
        path = self.folder / GOLDEN
        images, logits = golden_arrays(path)
        expected = self.manifest.inputs[0].shape[1:]
        if images.shape[1:] != expected or logits.shape != (len(images), len(self.manifest.class_labels)):
            raise ArtifactError(f"{path}: images {images.shape} and logits {logits.shape} do not fit the manifest {expected}. Export again")
        typed = (images.dtype, logits.dtype) == (np.float32, np.float64)
        if len(images) == 0 or not typed or not np.isfinite(images).all() or not np.isfinite(logits).all():
            raise ArtifactError(
                f"{path}: {len(images)} images {images.dtype}, logits {logits.dtype}: nothing that can prove a file. Export again"
            )
        return images, logits


def golden_arrays(path: Path) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """(images, logits) as they stand in a golden.npz, at most MAX_GOLDEN_BYTES of them. Raises ArtifactError."""
    try:
        with opened(path, MAX_GOLDEN_BYTES, raises=ArtifactError, advice="Export again") as file:
            members(file, MAX_GOLDEN_MEMBERS, MAX_GOLDEN_BYTES)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return arrays["images"], arrays["logits"]
    except ArtifactError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types, depending on where the file is damaged
        raise ArtifactError(f"{path} cannot be read as golden outputs: {error}. Export again") from error


def _check_names(path: Path, names: dict[str, str]) -> None:
    """Raises ArtifactError for a name that leaves the folder, or that another computer takes for something else."""
    seen: dict[str, str] = {}
    for name in names:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name or not relative.parts:
            raise ArtifactError(f"{path} names {name!r}, which is outside the artifact. {_DO_NOT_USE}")
        if relative.as_posix() != name or not name.isprintable() or any(map(_only_here, relative.parts)):
            raise ArtifactError(f"{path} names {name!r}, which is no name of a file on every computer. {_DO_NOT_USE}")
        same = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if (other := seen.setdefault(same, name)) != name:
            raise ArtifactError(f"{path} names {other!r} and {name!r}, which are one file on a Mac. {_DO_NOT_USE}")


def _only_here(part: str) -> bool:
    """Whether Windows takes this part of a name for a device or a stream, or drops its end."""
    device = part.split(".")[0].rstrip().upper()
    return device in _DEVICES or part[-1] in ". " or any(char in '<>:"|?*' for char in part)


_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{number}" for name in ("COM", "LPT") for number in range(1, 10))}


def _check_unlisted(folder: Path, manifest: Manifest) -> None:
    """Raises ArtifactError unless all below the folder are listed regular files. macOS leaves .DS_Store everywhere."""
    for number, (name, kind) in enumerate(_below(folder)):
        if number > 2 * MAX_FILES:
            raise ArtifactError(f"{folder} holds more than {number - 1} files and folders, which no export of ours does. {_DO_NOT_USE}")
        if kind not in (FILE, FOLDER):
            raise ArtifactError(f"{folder / name} is {kind}; an artifact holds the regular files of its manifest only. {_DO_NOT_USE}")
        if kind == FILE and name not in manifest.files and name != MANIFEST and PurePosixPath(name).name != ".DS_Store":
            raise ArtifactError(
                f"{folder / name} is not in the manifest, so nobody vouches for it. Copy the artifact again, or export again"
            )


def _below(folder: Path) -> Iterator[tuple[str, str]]:
    """(relative POSIX path, kind) of all below `folder`. No link is followed."""
    waiting = [(folder, 0)]
    while waiting:
        parent, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ArtifactError(f"{folder} holds more than {MAX_DEPTH} folders in one another, which no export of ours does. {_DO_NOT_USE}")
        try:
            paths = sorted(parent.iterdir())
        except OSError as error:
            raise ArtifactError(f"{parent} cannot be read: {error.strerror}. Copy the whole folder, or export again") from error
        for path in paths:
            kind = kind_of(path) or "gone"
            waiting += [(path, depth + 1)] if kind == FOLDER else []
            yield path.relative_to(folder).as_posix(), kind


def _verify(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    try:
        inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle, no permission
        raise ArtifactError(f"{path} cannot be read: {error}. Copy the whole folder, or export again") from error
    if not inside:
        raise ArtifactError(f"{path} is a link to outside the artifact. {_DO_NOT_USE}")
    if not there:
        raise ArtifactError(f"{path} is missing. Copy the whole folder, or export again")
    with opened(path, MAX_WEIGHTS_BYTES, raises=ArtifactError, advice="Copy the whole folder, or export again") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it is a buffered reader
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
