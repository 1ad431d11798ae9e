"""What validation found: plain, frozen, and the same in memory and in reports/validation.json."""

from typing import Literal

from toolkit.artifact import TORCH
from toolkit.records import Figure, Frozen

Interval = tuple[Figure, Figure]
Level = Literal["files", "golden", "contract", "preprocessing", "test set"]
REFERENCE = "torch-cpu"
LEVELS: tuple[Level, ...] = ("files", "golden", "contract", "preprocessing", "test set")  # cheapest first
OPENED, READ, ENDED = "files are those of the export", "the file can be read", "runs to the end"
DECISIVE = frozenset({OPENED, READ, ENDED})  # where one of these fails, the other levels were not asked at all


class Check(Frozen):
    """One question and its answer. `figure` is what was found, `gate` what is allowed, `why` where the gate comes from.

    `detail`: what is known of the cause, or what to do; empty where nothing is. `runtime` None: nothing had to be run.
    """

    level: Level
    name: str
    artifact: str
    runtime: str | None
    passed: bool
    figure: str
    gate: str
    why: str
    detail: str = ""


class Figures(Frozen):
    """Logits against PyTorch's, over N images (metrics.py). Accuracies are shares of 1; top5 None: five classes or fewer."""

    accuracy: float
    accuracy_interval: Interval
    reference_accuracy: float
    top5: float | None
    reference_top5: float | None
    lost: int
    gained: int
    difference_interval: Interval
    mcnemar_p: float
    max_abs_logit: Figure
    mean_abs_logit: Figure
    p999_abs_logit: Figure
    max_abs_probability: Figure
    snr_db: Figure
    kl: Figure
    ece: Figure
    reference_ece: Figure
    nan: int
    inf: int
    saturated: int


class RuntimeRow(Frozen):
    """One artifact through one runtime. `changed`: test-set index → the class that it says instead of PyTorch's.

    `golden_abs_logit`: against PyTorch in float64, on the golden images. `seconds` of inference alone, when it was run.
    """

    artifact: str
    runtime: str
    precision: str
    images: int
    indices: list[int] | None  # which images; None: all that were asked for
    figures: Figures
    changed: dict[int, int]
    golden_abs_logit: Figure
    allowed_changed: int | None  # None: PyTorch itself, the reference, or not judged
    allowed_abs_logit: float | None
    seconds: float
    cached: bool

    @property
    def is_reference(self) -> bool:
        return self.runtime == REFERENCE

    @property
    def proves(self) -> bool:
        """PyTorch on the CPU, in whatever precision, says nothing of what ships."""
        return not self.runtime.startswith(REFERENCE)


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
    seed: int
    test_images: int
    limit: int | None
    rows: list[RuntimeRow]
    checks: list[Check]
    unavailable: list[Unavailable]
    artifacts: dict[str, dict[str, str]]  # name → file → sha256
    class_labels: list[str]
    test_labels: list[int]
    test_indices: list[int]
    reference_predictions: list[int]
    seconds: float
    environment: dict[str, str]

    @property
    def breaches(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def passed(self) -> bool:
        """Something that may ship was compared with PyTorch, and no check failed."""
        return any(row.proves for row in self.rows) and not self.breaches

    @property
    def unproved(self) -> list[str]:
        """Artifacts that no runtime was asked about, or could be: nothing is claimed of them."""
        proved = {row.artifact for row in self.rows if row.proves}
        return [name for name in self.artifacts if name != TORCH and name not in proved]

    def fails_on(self, levels: tuple[str, ...]) -> bool:
        """Whether a check of one of those levels failed; without levels, of any.

        Nothing compared fails as well, and so does an artifact that could not be opened or run: it failed every level.
        """
        compared = any(row.proves for row in self.rows)
        return not compared or any(not levels or check.level in levels or check.name in DECISIVE for check in self.breaches)
