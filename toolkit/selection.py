"""Which artifacts of a model a command is about. Whatever a killed process had moved aside is put back before anything is listed."""

from collections.abc import Sequence
from pathlib import Path

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError
from toolkit.scratch import put_back
from toolkit.workspace import Workspace


def checkpoint_of(workspace: Workspace) -> Checkpoint:
    """The model's checkpoint, opened. Raises CheckpointError."""
    put_back(workspace.folder)
    return Checkpoint.open(workspace.checkpoint)


def artifact_folders(workspace: Workspace, names: Sequence[str] | None = None) -> list[Path]:
    """The folders under exports/, or the named ones, in order of name; hidden ones are not artifacts.

    Whether a folder is whole, or an artifact at all, is for the caller to find out. Raises ArtifactError for a name that is not there.
    """
    put_back(workspace.exports)
    there = {path.name: path for path in sorted(workspace.exports.glob("*")) if path.is_dir() and not path.name.startswith(".")}
    if unknown := [name for name in names or [] if name not in there]:
        raise ArtifactError(f"there is no artifact {unknown[0]!r} in {workspace.exports}; there are: {', '.join(there) or 'none'}")
    return [path for name, path in there.items() if name in (names or there)]


def artifacts_of(workspace: Workspace, checkpoint: Checkpoint, names: Sequence[str] | None = None) -> list[Artifact]:
    """The checkpoint as an artifact, then those under exports/ (or the named ones), verified, in order of name.

    Raises ArtifactError for a name that is not there, and for an artifact that was made from another checkpoint.
    """
    artifacts = [Artifact.open(folder) for folder in artifact_folders(workspace, names) if names or (folder / MANIFEST).is_file()]
    for artifact in artifacts:
        if artifact.manifest.checkpoint_sha256 != checkpoint.card.weights_sha256:
            raise ArtifactError(
                f"{artifact.folder} was made from another checkpoint ({artifact.manifest.checkpoint_sha256[:12]}) than "
                f"{checkpoint.folder} ({checkpoint.card.weights_sha256[:12]}). Export again: toolkit export --format {artifact.format}"
            )
    return [Artifact.of_checkpoint(checkpoint), *artifacts]
