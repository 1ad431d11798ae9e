"""Finds the two files of a .mlpackage, the program and its weights, and reads the program's protobuf.

The layout is coremltools' `modelpackage/src/ModelPackage.cpp`: Manifest.json names a root item and paths relative to
Data/. Every path is resolved, symbolic links included, and must stay inside the package.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ArtifactError
from toolkit.files import read_bytes
from toolkit.mil import wire
from toolkit.mil._proto import model_pb2
from toolkit.mil.limits import MAX_MANIFEST_BYTES, current

_AGAIN = "Export the model again, or copy the whole .mlpackage folder again."


@dataclass(frozen=True)
class Package:
    """A .mlpackage on disk: `root` is the folder itself, `model` the protobuf file inside it."""

    root: Path
    model: Path

    def blob(self, file_name: str) -> Path:
        """The path of a weight file as the program writes it, '@model_path/weights/weight.bin'."""
        prefix = "@model_path/"
        if not file_name.startswith(prefix):
            raise ArtifactError(f"{self.root}: weight file {file_name!r} does not start with {prefix!r}. {_AGAIN}")
        return _inside(self.root, self.model.parent, file_name.removeprefix(prefix))


def open_package(path: str | Path) -> Package:
    """Follows Manifest.json to the program; a bare .mlmodel file has its weights beside it, in `weights/`.

    Raises ArtifactError when the folder is not a sound .mlpackage.
    """
    root = Path(path)
    try:
        is_file, exists = root.is_file(), root.exists()
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL byte
        raise ArtifactError(f"{root}: cannot be read ({error}). Give a .mlpackage folder or a .mlmodel file.") from error
    if is_file:
        return Package(root.parent, root)
    if not exists:
        raise ArtifactError(f"{root}: there is nothing at this path. Give a .mlpackage folder or a .mlmodel file.")
    if (root / "coremldata.bin").is_file() or root.suffix == ".mlmodelc":
        raise ArtifactError(
            f"{root}: a model compiled for Apple's devices (.mlmodelc), not a program. Give the .mlpackage it was made from."
        )
    manifest_path = root / "Manifest.json"
    if not manifest_path.is_file():
        raise ArtifactError(f"{root}: no Manifest.json, so this is not a .mlpackage folder. Give the folder itself, or a .mlmodel file.")
    manifest = _read_manifest(root, _inside(root, root, "Manifest.json"))
    try:
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{root}: Manifest.json names no root model ({error!r} is missing). {_AGAIN}") from error
    if not isinstance(item, str):
        raise ArtifactError(f"{root}: Manifest.json gives the root model's path as {item!r}, not as text. {_AGAIN}")
    return Package(root, _inside(root, root / "Data", item))


def read_spec(package: Package) -> Any:
    """The `Model` protobuf. Raises ArtifactError when it is damaged or is not an ML Program."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    budget = current().budget
    data = read_bytes(package.model, budget.model_bytes, raises=ArtifactError, advice=_AGAIN)
    spec = model_pb2().Model()
    try:
        wire.check(data, spec.DESCRIPTOR, budget.fields)
        spec.ParseFromString(data)
    except ArtifactError as error:
        raise ArtifactError(f"{package.model}: {error}. {_AGAIN}") from error
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{package.model}: {len(data)} bytes, no Core ML protobuf ({error}). {_AGAIN}") from error
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise ArtifactError(
            f"{package.model}: holds {kind or 'no model at all'}, which is another format than mlProgram and cannot be run here. "
            'Convert with convert_to="mlprogram" (iOS 15 and later).'
        )
    return spec


def _read_manifest(root: Path, path: Path) -> Any:
    try:
        return json.loads(read_bytes(path, MAX_MANIFEST_BYTES, raises=ArtifactError, advice=_AGAIN))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{root}: Manifest.json is no JSON ({error}). {_AGAIN}") from error


def _inside(root: Path, folder: Path, relative: str) -> Path:
    """`folder / relative`, resolved. Raises ArtifactError when it leaves `root` or is no file."""
    try:
        resolved = (folder / relative).resolve()
        contained = resolved.is_relative_to(root.resolve())
        is_file = contained and resolved.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a name too long, a loop of links
        raise ArtifactError(f"{root}: {relative!r} is no usable path ({error}). {_AGAIN}") from error
    if not contained:
        raise ArtifactError(f"{root}: {relative!r} points outside the package, to {resolved}. Do not trust this file.")
    if not is_file:
        raise ArtifactError(f"{root}: the file {relative!r} is missing. {_AGAIN}")
    return resolved
