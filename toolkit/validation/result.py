"""What validation found: plain, frozen, and the same in memory and in reports/validation.json."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer

# JSON has no NaN; pydantic would write null, and then not read its own file back. Written as text, read as a number.
Figure = Annotated[float, PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json")]


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuntimeRow(Frozen):
    """One artifact through one runtime. Accuracies are shares of 1; `changed` holds test-set indices."""

    artifact: str
    runtime: str
    precision: str
    images: int
    accuracy: float
    reference_accuracy: float  # of PyTorch fp32 on the CPU, on the same images
    changed: list[int]
    max_abs_logit: Figure
    allowed_changed: int | None  # None: PyTorch itself, the reference
    allowed_abs_logit: float | None
    breaches: list[str]
    seconds: float
    predictions: list[int]


class Unavailable(Frozen):
    """What could not run here, and why. Never counted as passed."""

    artifact: str | None  # None: there is no artifact of the format that the runtime reads
    runtime: str
    reason: str


class ValidationResult(Frozen):
    schema_version: Literal[1] = 1
    model: str
    dataset: str
    recipe_hash: str
    checkpoint_sha256: str
    test_images: int
    limit: int | None
    rows: list[RuntimeRow]
    unavailable: list[Unavailable]
    class_labels: list[str]
    test_labels: list[int]
    test_indices: list[int]
    reference_predictions: list[int]
    environment: dict[str, str]

    @property
    def passed(self) -> bool:
        """Something was compared with PyTorch on the CPU, and nothing breached its gate."""
        compared = [row for row in self.rows if row.allowed_changed is not None]
        return bool(compared) and not any(row.breaches for row in self.rows)
