"""Make every hash of a changed model folder fit again: manifests, checkpoint.json, validation.json, evidence.json."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20  # a larger file keeps its hash


def forge(model: Path) -> None:
    """Whatever can still be read is made consistent; what cannot be read stays as it is."""
    weights = _sha256(model / "checkpoint" / "model.safetensors")
    if weights is not None:
        _change(model / "checkpoint" / "checkpoint.json", {"weights_sha256": weights})
    artifacts: dict[str, dict[str, str]] = {}
    for folder in _folders(model / "exports"):
        files = _files(folder)
        changes: dict[str, Any] = {"files": files} | ({"checkpoint_sha256": weights} if weights else {})
        _change(folder / "manifest.json", changes)
        artifacts[folder.name] = files | {"manifest.json": _sha256(folder / "manifest.json") or ""}
    state: dict[str, Any] = {"checkpoint_sha256": weights} if weights else {}
    report, evidence = (model / "reports" / name for name in ("validation.json", "evidence.json"))
    _change(report, {**state, "artifacts": {**artifacts, "torch": {"model.safetensors": weights or ""}}})
    state |= {name: found for name, path in (("report_sha256", report), ("recipe_sha256", model / "recipe.toml"))
              if (found := _sha256(path)) is not None}  # fmt: skip
    _change(evidence, {**state, "artifacts": artifacts})


def _change(path: Path, fields: dict[str, Any]) -> None:
    """Only fields that are there; `artifacts` keeps the names that it has."""
    with contextlib.suppress(OSError, ValueError, RecursionError):  # no JSON: nothing of it can be made to fit
        if not _regular(path):
            return
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            return
        for key, value in fields.items():
            if key == "artifacts" and isinstance(content.get(key), dict):
                value = {name: value.get(name, old) for name, old in content[key].items()}
            if key in content:
                content[key] = value
        path.write_text(json.dumps(content), encoding="utf-8")


def _files(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of what lies below it, the manifest apart."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path != folder / "manifest.json" and (digest := _sha256(path)) is not None:
                found[path.relative_to(folder).as_posix()] = digest
    return {name: digest for name, digest in found.items() if name.isascii()}


def _folders(parent: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    return []


def _regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES


def _sha256(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        if _regular(path):
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return None
