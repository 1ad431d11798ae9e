"""What validation found: plain, frozen, and the same in memory and in reports/validation.json."""

from typing import Literal

from pydantic import Field

from toolkit.artifact import TORCH
from toolkit.records import Count, Figure, Frozen, Many, Positive, Seconds, Share

Interval = tuple[Figure, Figure]
Level = Literal["files", "golden", "contract", "preprocessing", "test set"]
REFERENCE = "torch-cpu"
REPORT = "validation.json"
LEVELS: tuple[Level, ...] = ("files", "golden", "contract", "preprocessing", "test set")  # cheapest first
OPENED, READ, ENDED = "files are those of the export", "the file can be read", "runs to the end"
FITS = "takes this model's images"
DECISIVE = frozenset({OPENED, READ, FITS, ENDED})  # where one of these fails, the other levels were not asked at all


class Check(Frozen):
    """One question and its answer. `figure` is what was found, `gate` what is allowed, `why` where the gate comes from.

    `passed` None: it could not be judged, which is no pass and no breach: nothing is claimed of the artifact on that runtime.
    `detail`: what is known of the cause, or what to do; empty where nothing is. `runtime` None: nothing had to be run.
    """

    level: Level
    name: str
    artifact: str
    runtime: str | None
    passed: bool | None
    figure: str
    gate: str
    why: str
    detail: str = ""


class Figures(Frozen):
    """Logits against PyTorch's, over N images (metrics.py). Accuracies are shares of 1; top5 None: five classes or fewer."""

    accuracy: Share
    accuracy_interval: Interval
    reference_accuracy: Share
    top5: Share | None
    reference_top5: Share | None
    lost: Count
    gained: Count
    difference_interval: Interval
    mcnemar_p: Share
    max_abs_logit: Figure
    mean_abs_logit: Figure
    p999_abs_logit: Figure
    max_abs_probability: Figure
    snr_db: Figure
    kl: Figure
    ece: Figure
    reference_ece: Figure
    nan: Count
    inf: Count
    saturated: Count


class RuntimeRow(Frozen):
    """One artifact through one runtime. `changed`: test-set index → the class that it says instead of PyTorch's.

    `worst`: test-set indices of the images that are furthest off, where any is off at all: `toolkit debug` looks at them as well.
    `golden_abs_logit`: against PyTorch in float64, on the golden images. `seconds` of inference alone, when it was run.
    """

    artifact: str
    runtime: str
    precision: str
    images: Positive
    indices: Many[Count] | None  # which images; None: all that were asked for
    figures: Figures
    changed: dict[Count, Count]
    golden_abs_logit: Figure
    allowed_changed: Count | None  # None: PyTorch itself, the reference, or not judged
    allowed_abs_logit: float | None
    seconds: Seconds
    cached: bool
    worst: Many[Count] = Field(default_factory=list)

    @property
    def is_reference(self) -> bool:
        return self.runtime == REFERENCE

    @property
    def proves(self) -> bool:
        """PyTorch, on whatever device and in whatever precision, says nothing of what ships."""
        return self.artifact != TORCH


class Unavailable(Frozen):
    """What could not run here, and why. Never counted as passed."""

    artifact: str | None  # None: there is no artifact of the format that the runtime reads
    runtime: str
    reason: str


class ValidationResult(Frozen):
    schema_version: Literal[2] = 2
    model: str
    dataset: str
    data_sha256: str
    recipe_hash: str
    checkpoint_sha256: str
    seed: Count
    test_images: Positive
    limit: Positive | None
    rows: Many[RuntimeRow]
    checks: Many[Check]
    unavailable: Many[Unavailable]
    artifacts: dict[str, dict[str, str]]  # name → file → sha256
    class_labels: Many[str]
    test_labels: Many[Count]
    test_indices: Many[Count]
    reference_predictions: Many[Count]
    seconds: Seconds
    environment: dict[str, str]

    @property
    def breaches(self) -> list[Check]:
        return [check for check in self.checks if check.passed is False]

    @property
    def unjudged(self) -> list[Check]:
        return [check for check in self.checks if check.passed is None]

    @property
    def proved(self) -> dict[str, int]:
        """Artifact → images, of those that may ship and were compared with PyTorch, on the runtime that saw the most."""
        return self._proved(())

    def _proved(self, levels: tuple[str, ...]) -> dict[str, int]:
        """As `proved`, where only those levels had to be judged; without levels, all."""
        unjudged = {(check.artifact, check.runtime) for check in self.unjudged if not levels or check.level in levels}
        found: dict[str, int] = {}
        for row in self.rows:
            if row.proves and (row.artifact, row.runtime) not in unjudged:
                found[row.artifact] = max(row.images, found.get(row.artifact, 0))
        return found

    @property
    def passed(self) -> bool:
        """Something that may ship was compared with PyTorch, and no check failed."""
        return bool(self.proved) and not self.breaches

    @property
    def unproved(self) -> list[str]:
        """Artifacts that no runtime was asked about, or could be, or could be judged on: nothing is claimed of them."""
        return [name for name in self.artifacts if name != TORCH and name not in self.proved]

    def fails_on(self, levels: tuple[str, ...]) -> bool:
        """Whether a check of one of those levels failed; without levels, of any.

        Nothing compared, or not judged on those levels, fails as well, and so does an artifact that could not be opened or run: it
        failed every level.
        """
        return not self._proved(levels) or any(not levels or check.level in levels or check.name in DECISIVE for check in self.breaches)
