"""What is in a checkpoint or an artifact, as a table of facts; everything is verified on the way."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import CARD, Checkpoint
from toolkit.errors import ToolkitError
from toolkit.scratch import put_back
from toolkit.selection import checkpoint_of
from toolkit.workers import Message, WorkerLost, call
from toolkit.workers.child import Link
from toolkit.workspace import Workspace, known_models


@dataclass(frozen=True)
class Facts:
    title: str
    rows: dict[str, str]


def inspect(path: Path, isolate: bool = True) -> Facts:
    """Facts of an artifact's folder, a checkpoint's folder, or a model by name or folder. Raises ToolkitError otherwise.

    `isolate`: the files are opened in a worker.
    """
    if not isolate:
        return _inspect(path)
    name = str(path) if str(path) in known_models() else None
    found = call("inspect", Message({"path": str(path.absolute()), "name": name}))
    try:
        return _FACTS.validate_python(found.fields)
    except ValidationError as error:
        raise WorkerLost(f"the process that looked into {path} gave no result that can be read: {error}") from error


def task(request: Message, link: Link) -> Message:
    """The task `inspect`."""
    path, name = Path(request.fields["path"]), request.fields["name"]
    known = name is not None and not any((path / each).is_file() for each in (MANIFEST, CARD))
    return Message(_FACTS.dump_python(_inspect(Path(name) if known else path), mode="json"))


def _inspect(path: Path) -> Facts:
    put_back(path.parent)
    if (path / MANIFEST).is_file():
        return _artifact(Artifact.open(path))
    if (path / CARD).is_file():
        return _checkpoint(Checkpoint.open(path))
    if str(path) in known_models():
        return _checkpoint(checkpoint_of(Workspace.of(str(path))))
    if (path / "recipe.toml").is_file():
        return _checkpoint(checkpoint_of(Workspace(path, path / "recipe.toml")))
    raise ToolkitError(f"{path} is neither an artifact ({MANIFEST}), nor a checkpoint ({CARD}), nor a model ({', '.join(known_models())})")


_FACTS = TypeAdapter(Facts)


def _checkpoint(checkpoint: Checkpoint) -> Facts:
    from toolkit.networks import from_checkpoint, parameter_counts

    card = checkpoint.card
    counts = parameter_counts(from_checkpoint(checkpoint))
    rows = {
        "total parameters": f"{counts['total']:,}",
        "trainable parameters": f"{counts['trainable']:,}",
        "non-trainable parameters": f"{counts['non-trainable']:,}",
        "input size": str(card.input_shape),
        "network": checkpoint.recipe.network.builder,
        "classes": " ".join(card.class_labels),
        "trained on": f"{card.device}, {card.epochs_done:.4g} epochs{'' if card.finished else ', not finished'}",
        **{name.replace("_", " "): f"{value:.6g}" for name, value in card.metrics.items()},
        "seed": str(card.seed),
        "recipe hash": card.recipe_hash,
        "sha256": card.weights_sha256,
        "versions": ", ".join(f"{name} {number}" for name, number in card.versions.items()),
    }
    return Facts(f"checkpoint of {checkpoint.recipe.name}", rows)


def _artifact(artifact: Artifact) -> Facts:
    manifest = artifact.manifest
    size = sum((artifact.folder / name).stat().st_size for name in manifest.files if Path(name).parts[0] == manifest.entry)
    rows = {
        "format": manifest.format,
        "precision": manifest.precision,
        "size": f"{size / 1e6:.2f} MB",
        **{
            f"input {spec.name}": f"{spec.dtype} {spec.shape}, {spec.low}..{spec.high}, as {manifest.input_kind}"
            for spec in manifest.inputs
        },
        **{f"output {spec.name}": f"{spec.dtype} {spec.shape}" for spec in manifest.outputs},
        "class labels": " ".join(manifest.class_labels),
        "preprocessing": manifest.preprocessing,
        "test accuracy": "not measured"
        if manifest.test_accuracy is None
        else f"{100 * manifest.test_accuracy:.2f} % (PyTorch, before conversion)",
        "notes": "; ".join(manifest.notes),
        "recipe hash": manifest.recipe_hash,
        "checkpoint sha256": manifest.checkpoint_sha256,
        "versions": ", ".join(f"{name} {number}" for name, number in manifest.versions.items()),
        "files": f"{len(manifest.files)}, all with the sha256 of the manifest",
    }
    return Facts(f"artifact {artifact.folder.name} of {manifest.model}", rows)
