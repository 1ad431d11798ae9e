"""Which artifacts of a model a command is about. Whatever a killed process had moved aside is put back before anything is listed."""

import os
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

    Whether a folder is whole, or an artifact at all, is for the caller to find out; so it is of a link that leads nowhere. Raises
    ArtifactError for a name that is not there, and where exports/ is, but cannot be listed: that is not to have no artifacts.
    """
    put_back(workspace.exports)
    there = {path.name: path for path in _entries(workspace.exports) if _may_hold_one(path)}
    if unknown := [name for name in names or [] if name not in there]:
        raise ArtifactError(f"there is no artifact {unknown[0]!r} in {workspace.exports}; there are: {', '.join(there) or 'none'}")
    return [path for name, path in there.items() if name in (names or there)]


def _entries(exports: Path) -> list[Path]:
    """All that lies in it, by name. Raises ArtifactError; where it links to a disk that is not there, too."""
    if not os.path.lexists(exports):
        return []
    try:
        return sorted(exports.iterdir())
    except OSError as error:
        raise ArtifactError(f"{exports} cannot be read: {error.strerror}. Put it right, or move it away") from error


def _may_hold_one(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_symlink() or path.is_dir())


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
