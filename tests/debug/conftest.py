"""A good model with residuals, for what the tiny one lacks, and faults planted in copies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.checkpoint import Checkpoint
from toolkit.debug import DebugResult, debug
from toolkit.faults import FAULTS, Planted
from toolkit.workspace import Workspace


@pytest.fixture
def planted(exported: Workspace, tmp_path: Path) -> Callable[[str, str], tuple[Planted, DebugResult]]:
    """(fault, artifact) → where it lies, and what the debugger says of a copy that has it."""

    def plant(fault: str, artifact: str) -> tuple[Planted, DebugResult]:
        folder = tmp_path / "models" / "tiny"
        shutil.copytree(exported.folder, folder, ignore=shutil.ignore_patterns(".cache", "reports"))
        workspace = Workspace(folder, folder / "recipe.toml")
        where = FAULTS[fault].plant(workspace.exports / artifact, Checkpoint.open(workspace.checkpoint))
        return where, debug(workspace, artifact, images=6)

    return plant
