"""Results made by hand, with figures that are easy to find again, for the tiny model that was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.bench.result import Arm, BenchResult, Skipped
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.validation.result import RuntimeRow, Unavailable, ValidationResult
from toolkit.workspace import Workspace, write_text

ENVIRONMENT = {"processor": "Test 9000", "cores": "8", "memory": "16 GiB", "system": "TestOS", "python": "3.11.0", "torch": "2.9.9"}
WHY_NOT = "Core ML needs macOS 13 or later"


def row(predictions: list[int], labels: list[int], **fields: Any) -> RuntimeRow:
    share = sum(a == b for a, b in zip(predictions, labels, strict=True)) / len(labels)
    return RuntimeRow(**{
        "artifact": "coreml-fp16", "runtime": "coreml-reference", "precision": "fp16", "images": len(labels), "accuracy": share,
        "reference_accuracy": share, "changed": [], "max_abs_logit": 0.01234, "allowed_changed": 2, "allowed_abs_logit": 0.1,
        "breaches": [], "seconds": 1.5, "predictions": predictions, **fields,
    })  # fmt: skip


@pytest.fixture
def validation(trained: Workspace) -> Callable[..., ValidationResult]:
    """Five mistakes of PyTorch (one for each of the first five images); fp16 changes images 7 and 9."""

    def make(**fields: Any) -> ValidationResult:
        labels = load("digits").test_labels.tolist()
        reference = [(label + 1) % 10 if index < 5 else label for index, label in enumerate(labels)]
        changed = [(label + 3) % 10 if index in (7, 9) else label for index, label in enumerate(reference)]
        before = sum(a == b for a, b in zip(reference, labels, strict=True)) / len(labels)
        rows = [
            row(reference, labels, artifact="torch", runtime="torch-cpu", precision="fp32", max_abs_logit=0.0,
                allowed_changed=None, allowed_abs_logit=None),
            row(changed, labels, changed=[7, 9], reference_accuracy=before),
        ]  # fmt: skip
        card = Checkpoint.open(trained.checkpoint).card
        return ValidationResult(**{
            "model": "tiny", "dataset": "digits", "recipe_hash": card.recipe_hash, "checkpoint_sha256": card.weights_sha256,
            "test_images": len(labels), "limit": None, "rows": rows,
            "unavailable": [Unavailable(artifact="coreml-fp16", runtime="coreml-ane", reason=WHY_NOT),
                            Unavailable(artifact=None, runtime="coreai", reason="there is no coreai artifact")],
            "class_labels": card.class_labels, "test_labels": labels, "test_indices": list(range(len(labels))),
            "reference_predictions": reference, "environment": ENVIRONMENT, **fields,
        })  # fmt: skip

    return make


def arm(artifact: str, runtime: str, p50_ms: float | None, **fields: Any) -> Arm:
    times = (None,) * 5 if p50_ms is None else (p50_ms, p50_ms * 0.97, p50_ms * 1.05, p50_ms * 1.2, None)
    measured = dict(zip(("p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms"), times, strict=True))
    return Arm(**{
        "artifact": artifact, "runtime": runtime, "precision": "fp32", "version": "1", "rounds": [], "error": None, **measured,
        "images_per_s": 812.5, "load_ms": 45.25, "first_call_ms": 33.75, "peak_memory_bytes": 512_300_000, **fields,
    })  # fmt: skip


@pytest.fixture(name="arm")
def arm_maker() -> Callable[..., Arm]:
    return arm


@pytest.fixture
def bench(trained: Workspace) -> Callable[..., BenchResult]:
    def make(**fields: Any) -> BenchResult:
        return BenchResult(**{
            "model": "tiny", "checkpoint_sha256": Checkpoint.open(trained.checkpoint).card.weights_sha256, "preset": "default",
            "batch": 1, "threads": None, "seed": 0, "order": [], "started_utc": "2026-01-02T03:04:05+00:00",
            "arms": [arm("torch", "torch-cpu", 8.0), arm("onnx-fp32", "onnxruntime-cpu", 2.0)],
            "skipped": [Skipped(artifact="coreml-fp16", runtime="coreml-ane", reason=WHY_NOT)], "environment": ENVIRONMENT,
            "load_average_before": [0.5, 0.5, 0.5], "load_average_after": [1.0, 1.0, 1.0], **fields,
        })  # fmt: skip

    return make


@pytest.fixture
def written(trained: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """A copy of the trained model, with these results in reports/ (or none)."""
    import shutil

    def make(validation: ValidationResult | None = None, bench: BenchResult | None = None, source: Workspace = trained) -> Workspace:
        folder = tmp_path / "models" / "tiny"
        shutil.copytree(source.folder, folder, ignore=shutil.ignore_patterns("reports"))
        workspace = Workspace(folder, folder / "recipe.toml")
        for name, result in (("validation.json", validation), ("bench.json", bench)):
            if result is not None:
                write_text(workspace.reports / name, result.model_dump_json())
        return workspace

    return make
