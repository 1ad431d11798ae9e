"""Which artifacts of a model a command is about."""

from collections.abc import Sequence

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError
from toolkit.workspace import Workspace


def artifacts_of(workspace: Workspace, checkpoint: Checkpoint, names: Sequence[str] | None = None) -> list[Artifact]:
    """The checkpoint as an artifact, then those under exports/ (or the named ones), verified, in order of name.

    Raises ArtifactError for a name that is not there, and for an artifact that was made from another checkpoint.
    """
    there = sorted(path.parent.name for path in workspace.exports.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    for name in names or []:
        if name not in there:
            raise ArtifactError(f"there is no artifact {name!r} in {workspace.exports}; there are: {', '.join(there) or 'none'}")
    artifacts = [Artifact.open(workspace.exports / name) for name in there if not names or name in names]
    for artifact in artifacts:
        if artifact.manifest.checkpoint_sha256 != checkpoint.card.weights_sha256:
            raise ArtifactError(
                f"{artifact.folder} was made from another checkpoint ({artifact.manifest.checkpoint_sha256[:12]}) than "
                f"{checkpoint.folder} ({checkpoint.card.weights_sha256[:12]}). Export again: toolkit export --format {artifact.format}"
            )
    return [Artifact.of_checkpoint(checkpoint), *artifacts]
