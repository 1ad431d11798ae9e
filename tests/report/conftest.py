"""Results made by hand, with figures that are easy to find again, for the tiny model that was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import arm_of, result_of, round_of
from toolkit.bench import judged
from toolkit.bench.result import Arm, BenchResult, Skipped
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.validation.result import Check, Figures, RuntimeRow, Unavailable, ValidationResult
from toolkit.workspace import Workspace
from toolkit.writing import write_text

ENVIRONMENT = {"processor": "Test 9000", "cores": "8", "memory": "16 GiB", "system": "TestOS", "python": "3.11.0", "torch": "2.9.9"}
WHY_NOT = "Core ML needs macOS 13 or later"


def row(
    predictions: list[int], labels: list[int], reference: list[int], figures: dict[str, Any] | None = None, **fields: Any
) -> RuntimeRow:
    """`figures` replaces single ones of the default, which are those of a good fp16 file."""
    right, before = ([a == b for a, b in zip(each, labels, strict=True)] for each in (predictions, reference))
    lost, gained = (sum(a and not b for a, b in zip(x, y, strict=True)) for x, y in ((before, right), (right, before)))
    found = {
        "accuracy": sum(right) / len(labels), "accuracy_interval": (0.9, 1.0), "reference_accuracy": sum(before) / len(labels),
        "top5": 1.0, "reference_top5": 1.0, "lost": lost, "gained": gained, "difference_interval": (-0.0321, 0.0123), "mcnemar_p": 1.0,
        "max_abs_logit": 0.01234, "mean_abs_logit": 0.00123, "p999_abs_logit": 0.0111, "max_abs_probability": 0.00222, "snr_db": 61.5,
        "kl": 1e-6, "ece": 0.0345, "reference_ece": 0.0344, "nan": 0, "inf": 0, "saturated": 0, **(figures or {}),
    }  # fmt: skip
    return RuntimeRow(**{
        "artifact": "coreml-fp16", "runtime": "coreml-reference", "precision": "fp16", "images": len(labels), "indices": None,
        "figures": Figures(**found), "golden_abs_logit": 0.0234, "allowed_changed": 2, "allowed_abs_logit": 0.1, "seconds": 1.5,
        "cached": False,
        "changed": {index: new for index, (new, old) in enumerate(zip(predictions, reference, strict=True)) if new != old}, **fields,
    })  # fmt: skip


def check(passed: bool = True, **fields: Any) -> Check:
    return Check(**{
        "level": "golden", "name": "golden logits", "artifact": "coreml-fp16", "runtime": "coreml-reference", "passed": passed,
        "figure": "max |Δ logit| 0.0234", "gate": "≤ 0.1", "why": "21 layers in fp16", **fields,
    })  # fmt: skip


@pytest.fixture(name="check")
def check_maker() -> Callable[..., Check]:
    return check


@pytest.fixture(name="row")
def row_maker() -> Callable[..., RuntimeRow]:
    return row


@pytest.fixture
def validation(trained: Workspace) -> Callable[..., ValidationResult]:
    """Five mistakes of PyTorch (one for each of the first five images); fp16 changes images 7 and 9."""

    def make(**fields: Any) -> ValidationResult:
        labels = load("digits").test_labels.tolist()
        reference = [(label + 1) % 10 if index < 5 else label for index, label in enumerate(labels)]
        changed = [(label + 3) % 10 if index in (7, 9) else label for index, label in enumerate(reference)]
        rows = [
            row(reference, labels, reference, {"max_abs_logit": 0.0}, artifact="torch", runtime="torch-cpu", precision="fp32",
                allowed_changed=None, allowed_abs_logit=None),
            row(changed, labels, reference),
        ]  # fmt: skip
        card = Checkpoint.open(trained.checkpoint).card
        return ValidationResult(**{
            "model": "tiny", "dataset": "digits", "data_sha256": "d" * 64, "seed": 0, "seconds": 12.0,
            "recipe_hash": card.recipe_hash, "checkpoint_sha256": card.weights_sha256,
            "test_images": len(labels), "limit": None, "rows": rows,
            "checks": [check(), check(artifact="torch", runtime="torch-cpu")],
            "artifacts": {"coreml-fp16": {"model.mlpackage/x": "a" * 64}},
            "unavailable": [Unavailable(artifact="coreml-fp16", runtime="coreml-ane", reason=WHY_NOT),
                            Unavailable(artifact=None, runtime="coreai", reason="there is no coreai artifact")],
            "class_labels": card.class_labels, "test_labels": labels, "test_indices": list(range(len(labels))),
            "reference_predictions": reference, "environment": ENVIRONMENT, **fields,
        })  # fmt: skip

    return make


def arm(artifact: str, runtime: str, p50_ms: float | None, rounds: int = 5, calls: int = 250, **fields: Any) -> Arm:
    """Rounds whose medians lie 1 % apart, on a quiet machine."""
    medians = [] if p50_ms is None else [round(1e6 * p50_ms * (1 + 0.01 * (number - rounds // 2))) for number in range(rounds)]
    return arm_of([], runtime, **{
        "id": f"{artifact}:{runtime}", "artifact": artifact,
        "rounds": [
            round_of([median] * calls, number, load_ns=45_100_000, first_call_ns=33_750_000, peak_memory_bytes=512_300_000,
                     wall_ns=max(3 * 10**9, median * calls))
            for number, median in enumerate(medians)
        ], **fields,
    })  # fmt: skip


@pytest.fixture(name="arm")
def arm_maker() -> Callable[..., Arm]:
    return arm


@pytest.fixture
def bench(trained: Workspace) -> Callable[..., BenchResult]:
    def make(**fields: Any) -> BenchResult:
        return judged(result_of(**{
            "arms": [arm("torch", "torch-cpu", 8.0), arm("onnx-fp32", "onnxruntime-cpu", 2.0)],
            "checkpoint_sha256": Checkpoint.open(trained.checkpoint).card.weights_sha256, "environment": ENVIRONMENT,
            "skipped": [Skipped(artifact="coreml-fp16", runtime="coreml-ane", reason=WHY_NOT)],
            "load_average_before": [0.5, 0.5, 0.5], "load_average_after": [1.0, 1.0, 1.0], **fields,
        }))  # fmt: skip

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
