"""A converter that takes its process down is an export that failed: one message, and nothing is left behind."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from tests.workers.scripted import SCRIPT, TASK
from toolkit.artifact import Artifact
from toolkit.errors import ExportError
from toolkit.export import Options, alone, export
from toolkit.export.formats import EXPORTERS
from toolkit.workers import call

pytestmark = pytest.mark.skipif(find_spec("coreai_torch") is None, reason="coreai-torch is not installed")
LIMITED = """
import resource, sys
from pathlib import Path
from toolkit.export import Options, export
from toolkit.workspace import Workspace
import toolkit.export.export as room
room.check_writable = lambda *given: None  # as where the disk becomes full later
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))
folder = Path(sys.argv[1])
export(Workspace(folder, folder / "recipe.toml"), ["coreai"], Options())
"""


@pytest.fixture
def scripted(monkeypatch):
    def replace(script: str) -> None:
        monkeypatch.setenv(SCRIPT, script)
        monkeypatch.setattr(alone, "call", lambda task, *given, **named: call(TASK, *given, **named))

    return replace


@pytest.mark.parametrize(("script", "said"), [
    ("import os, sys; print('LLVM ERROR: IO failure', file=sys.stderr, flush=True); os.abort()", "was lost: .*SIGABRT.*IO failure"),
    ("result = Message({'entry': 3})", "gave no result that can be read"),
])  # fmt: skip
def test_a_conversion_that_is_lost_leaves_what_was_there(exported_copy, scripted, script, said):
    before = sorted(path.name for path in exported_copy.exports.iterdir())
    manifest = (exported_copy.exports / "coreai-fp32/manifest.json").read_bytes()
    scripted(script)
    with pytest.raises(ExportError, match=said):
        export(exported_copy, ["coreai"], Options())
    assert sorted(path.name for path in exported_copy.exports.iterdir()) == before
    assert (exported_copy.exports / "coreai-fp32/manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("script", [
    "pass", "import numpy as np; result = Message({}, {'logits': np.zeros((2, 9))})",
    "import numpy as np; result = Message({}, {'logits': np.zeros((2, 10), np.int64)})",
])  # fmt: skip
def test_logits_that_are_none_prove_nothing(exported, scripted, script):
    scripted(script)
    artifact = Artifact.open(exported.exports / "coreai-fp32")
    with pytest.raises(ExportError, match="gave no logits for 2 images"):
        alone.run(EXPORTERS["coreai"], artifact, np.zeros((2, 1, 28, 28), np.float32))


def test_a_real_conversion_that_cannot_write_is_one_error(exported_copy):
    """Core AI's libraries abort where they cannot write; a limit of the file size is where that can be had without a full disk."""
    before = sorted(path.name for path in exported_copy.exports.iterdir())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(exported_copy.folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1, done.stderr  # an exception of ours, and no abort
    assert "Make room there" in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in exported_copy.exports.iterdir()) == before
