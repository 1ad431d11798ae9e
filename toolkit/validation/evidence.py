"""What a validation rests on, in reports/evidence.json: sha256 of all that counts. Who has its own sha256, the digest, has everything.

The report, recipe.toml with the gates, the checkpoint's weights and card, every file of every artifact with its manifest, and the
test set. Not README, curves, bench.json and the pages that `toolkit report` writes: nothing is claimed of those.
"""

import hashlib
from pathlib import Path
from typing import Literal

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import CARD, sha256_of
from toolkit.files import read_bytes
from toolkit.limits import MAX_EVIDENCE_BYTES, MAX_REPORT_BYTES
from toolkit.records import Count, Frozen, Positive, record_of
from toolkit.validation.result import ValidationResult
from toolkit.workspace import Workspace

EVIDENCE = "evidence.json"


class Evidence(Frozen):
    """`artifacts`: name → file → sha256, of those that a runtime was compared on. `passed`: what validation said when it was written.

    `recipe_sha256`: of recipe.toml, which holds the gates; `card_sha256`: of checkpoint.json. `limit`: test images, where not all were
    taken. `images`: name → how many an artifact was compared on. What the report says as well is taken from there, and must be the
    same here.
    """

    schema_version: Literal[4] = 4
    model: str
    dataset: str
    data_sha256: str
    recipe_hash: str
    recipe_sha256: str
    checkpoint_sha256: str
    card_sha256: str
    seed: Count
    limit: Positive | None
    artifacts: dict[str, dict[str, str]]
    images: dict[str, Count]
    report_sha256: str
    passed: bool
    versions: dict[str, str]


def evidence_of(workspace: Workspace, result: ValidationResult, report: str) -> Evidence:
    """The evidence of a validation. `report`: the text of its report."""
    return Evidence(
        model=result.model, dataset=result.dataset, data_sha256=result.data_sha256, recipe_hash=result.recipe_hash,
        recipe_sha256=sha256_of(workspace.recipe), checkpoint_sha256=result.checkpoint_sha256,
        card_sha256=sha256_of(workspace.checkpoint / CARD), seed=result.seed, limit=result.limit,
        report_sha256=hashlib.sha256(report.encode()).hexdigest(), passed=result.passed, versions=result.environment,
        artifacts=proved_files(result), images=result.proved,
    )  # fmt: skip


def read_evidence(path: Path) -> tuple[Evidence, bytes]:
    """Return the evidence and the very bytes that it was read from. Raises ToolkitError."""
    content = read_bytes(path, MAX_EVIDENCE_BYTES, advice="Give the folder of a model that was validated: toolkit validate")
    return record_of(content, path, Evidence, advice="Validate again: toolkit validate"), content


def read_report(path: Path) -> tuple[ValidationResult, str]:
    """Return the report and the sha256 of the very bytes that it was read from. Raises ToolkitError."""
    content = read_bytes(path, MAX_REPORT_BYTES, advice="Validate again: toolkit validate")
    return record_of(content, path, ValidationResult, advice="Validate again: toolkit validate"), hashlib.sha256(content).hexdigest()


def files_of(artifact: Artifact) -> dict[str, str]:
    """File → sha256 of all that it consists of."""
    return artifact.manifest.files | {MANIFEST: sha256_of(artifact.folder / MANIFEST)}


def proved_files(result: ValidationResult) -> dict[str, dict[str, str]]:
    """Artifact → file → sha256, of those that a runtime was compared on."""
    return {name: hashes for name, hashes in result.artifacts.items() if name in result.proved}


def not_proved(result: ValidationResult, artifact: Artifact) -> str | None:
    """Why a validation says nothing of an artifact as it is now; None where it does."""
    if artifact.id not in result.artifacts:
        return "not validated"
    if result.artifacts[artifact.id] != files_of(artifact):
        return "not validated: its files were changed since the validation"
    return None if artifact.id in result.proved else "not validated: no runtime compared it"
