"""What the debugger found: plain, frozen, the same in memory and as JSON."""

from toolkit.records import Figure, Frozen


class Layer(Frozen):
    """One op of the file. `own`: its error on its own inputs, relative; `total`: against PyTorch from the start; `band`: for `own`.

    `reference` None: nothing in PyTorch's graph corresponds to it; `own` and `total` are then NaN.
    """

    position: int
    op: str
    name: str
    reference: str | None
    module: str
    source: str
    own: Figure
    band: Figure
    total: Figure
    snr_db: Figure
    largest: Figure  # |value|
    non_finite: int
    inside: bool

    @property
    def verdict(self) -> str:
        """A pass only where something was compared."""
        if self.inside:
            return "–" if self.reference is None else "pass"
        return "FAIL"


class DebugResult(Frozen):
    """`culprit` None: no layer leaves its band. `kind`: agreement, overflow, rounding, constant, operation, wiring, golden.

    `compared`: images whose logits were; `images`: those of them that are furthest off, which were followed op by op.
    """

    model: str
    artifact: str
    precision: str
    images: int
    compared: int
    agrees: bool
    kind: str
    culprit: Layer | None
    explanation: str
    max_abs_logit: Figure
    allowed: float | None
    layers: list[Layer]
    keep_fp32: list[str]
    keep_fp32_works: bool | None  # None: not searched
    seconds: float


class Hazard(Frozen):
    """One op over real images. `headroom_bits`: log2(65504 / largest).

    `subnormal` and `lost` are shares of its non-zero values: those below 2^-14 and below 2^-24.
    """

    position: int
    op: str
    name: str
    largest: Figure
    smallest: Figure  # of those that are not zero
    headroom_bits: Figure
    subnormal: float
    lost: float
    verdict: str  # overflow, cliff, tight, subnormal, ok
    why: str


class HazardsResult(Frozen):
    model: str
    artifact: str
    images: int
    hazards: list[Hazard]  # the worst first
    seconds: float

    @property
    def passed(self) -> bool:
        return not any(each.verdict in ("overflow", "cliff") for each in self.hazards)
