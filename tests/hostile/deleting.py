"""Kind 1: a model's folder that makes a command read or delete what is not ours."""

import json
from pathlib import Path

from tests.hostile.attack import Attack


def _manifest_names(model: Path, name: str) -> None:
    """The manifest of onnx-fp32 lists a file of that name as well."""
    path = model / "exports/onnx-fp32/manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")


ATTACKS = (
    Attack(
        "a manifest that names a file outside",
        lambda model: _manifest_names(model, "../../../../victim/Documents/letter.txt"),
        "inspect {model}/exports/onnx-fp32",
        says="outside the artifact",
    ),
)
