"""What a measurement found. Durations are wall-clock nanoseconds from perf_counter_ns unless the name says otherwise.

Rounds are raw; figures, findings and verdicts are made from them alone (judge.py), so that a sceptic can make them again.
"""

from typing import Annotated, Literal

from pydantic import Field

from toolkit.bench.plan import PresetName, Scenario
from toolkit.records import Count, Figure, Frozen, Many, Positive, Seconds

Nanoseconds = Annotated[int, Field(ge=0, le=10**18)]  # 30 years
Rate = Annotated[float, Field(gt=0, le=1e9)]  # a second


class Sensors(Frozen):
    """The machine at one moment. None: it does not say, or was not asked. Of times in seconds only differences mean anything."""

    perf_ns: Count
    wall_ns: Count  # time.time_ns: a jump between the two clocks shows that one was set, or the machine slept
    busy_s: Seconds  # of all cores, all processes
    own_s: Seconds  # of this process, all threads
    switches: Count  # involuntary context switches of this process
    load: float
    thermal: int | None  # macOS: 0 nominal, 1 moderate, 2 heavy, 3 trapping, 4 sleeping
    on_mains: bool | None
    low_power: bool | None
    steal_s: float | None  # Linux: taken by the hypervisor
    throttled_s: float | None  # Linux: this cgroup was held back


class Placement(Frozen):
    """`requested` in the runtime's words. `planned`: device or provider → ops, as the runtime itself says before it runs; empty: unsaid."""

    requested: str
    planned: dict[str, int]
    fallback: str | None = None  # a setting by which ops may run elsewhere without a word


class Turn(Frozen):
    """A stretch of timed calls without a break; between two of them the other arms have theirs."""

    calls: Count
    before: Sensors
    after: Sensors


class Round(Frozen):
    """One process: load, first call, warm-up, timed calls in turns with the other arms' processes of the round."""

    number: int = Field(ge=-1, le=10**9)  # -1: the pilot round
    compile_ns: Nanoseconds | None  # from the file that ships to what the device loads, where that is a step of its own
    load_ns: Nanoseconds  # from the artifact on disk to a session, imports not counted
    first_call_ns: Nanoseconds
    warmup_calls: Count
    samples_ns: Many[Nanoseconds]  # one a call, host arrays in to host arrays out, in order of time; `paced`: from when it was due
    service_ns: Many[Nanoseconds]  # `paced`: from when it was begun; else empty
    wall_ns: Nanoseconds  # of all turns together
    framework_ns: Many[Nanoseconds]  # the runtime's own timing, where it has one: another quantity, never mixed in
    peak_memory_bytes: Count  # resident, of the whole process
    verified: dict[str, int]  # before, during, after → outputs that were compared with the golden ones; empty: there is nothing to compare
    max_abs_logit: Figure | None  # the largest difference among them
    allowed_abs_logit: float | None
    placement: Placement
    images: Count | None = None  # a call, counted in the arrays; 0: no batch axis. None: before schema 3, and then as the arm says
    turns: Many[Turn] = Field(min_length=1)


class Interval(Frozen):
    """A value and its 95 % interval over rounds; bounds None below three rounds."""

    value: float
    low: float | None
    high: float | None


class Figures(Frozen):
    """Of one arm, from its rounds. Milliseconds, images a second, bytes, shares of 1. None: not measured, or too few calls for it."""

    calls: int
    p50_ms: Interval | None
    p90_ms: float | None
    p99_ms: float | None
    early_stopping_p90_ms: float | None  # MLPerf LoadGen's estimate: at 99 % confidence the true quantile is not above it
    early_stopping_p99_ms: float | None
    images_per_s: float | None  # also None where the inputs have no batch axis
    calls_per_s: float | None = None
    service_p50_ms: float | None
    framework_p50_ms: float | None
    compile_ms: Interval | None
    load_ms: Interval
    first_call_ms: Interval
    between_rounds: float | None  # standard deviation of the logs of the rounds' medians, so a share
    within_rounds: float | None  # of the logs of a round's calls, the middle round
    drift: Interval | None  # last third of a round against its first, as a share; negative: it gets faster
    modes: Many[tuple[float, float]]  # (ms, share of the calls) where the calls fall into separate groups; else empty
    outliers: int  # beyond three times the interquartile range (Tukey); counted, and kept
    effective_calls: float | None  # how many independent calls they are worth, by their autocorrelation
    windows_ms: Many[float]  # `sustained`: p50 of each ten seconds
    peak_memory_bytes: int


GOLDEN_OUTPUTS = "outputs are the golden ones"


class Finding(Frozen):
    """One condition of a valid measurement. `ok` None: it cannot be known here, and is not counted against it."""

    name: str
    ok: bool | None
    figure: str
    need: str


class Arm(Frozen):
    """One artifact on one runtime. `control`: the first arm once more, so that it can be seen what no difference looks like."""

    id: str
    artifact: str
    runtime: str
    precision: str
    version: str
    threads: Positive | None
    batch: Positive
    control: bool
    rounds: Many[Round]
    error: str | None  # how a round ended that gave no result
    figures: Figures | None = None
    findings: Many[Finding] = Field(default_factory=list)

    @property
    def why_not(self) -> str | None:
        """None where it is valid, else in words why it is not."""
        if self.error is not None:
            return f"FAILED ({self.error})"
        if self.figures is None:
            return "not measured"
        broken = [each.name for each in self.findings if each.ok is False]
        return f"INVALID ({', '.join(broken)})" if broken else None

    @property
    def valid(self) -> bool:
        return self.why_not is None


class Verdict(Frozen):
    """Latency of `arm` over that of `against`, paired by rounds, or over a stored measurement. Interval: corrected for their number."""

    arm: str
    against: str
    ratio: float
    low: float
    high: float
    verdict: Literal["faster", "slower", "same", "inconclusive"]


class StoredArm(Frozen):
    """Of an earlier measurement, what is compared with: the median of each round, of cold rounds the time to the first result."""

    id: str
    medians_ns: Many[Annotated[float, Field(ge=0, le=1e18)]]
    why_not: str | None  # it was not valid


class Stored(Frozen):
    """The earlier measurement of `--against`, kept so that the verdicts can be made again without its file."""

    file: str
    sha256: str
    started_utc: str
    arms: Many[StoredArm]


class LoadGenRow(Frozen):
    """What MLPerf LoadGen's SingleStream says of one arm, in a process of its own."""

    arm: str
    version: str
    queries: Count
    seconds: Seconds
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    valid: bool | None
    error: str | None


class Skipped(Frozen):
    artifact: str | None
    runtime: str
    reason: str


class BenchResult(Frozen):
    """`checkpoint_sha256` None: a file from elsewhere, with nothing to verify its outputs against. `noise`: the control's half-width."""

    schema_version: Literal[2, 3] = 3  # 2: without `against`, `started`, `images` and `calls_per_s`
    model: str
    checkpoint_sha256: str | None
    file_sha256: str | None  # of a file from elsewhere
    scenario: Scenario
    preset: PresetName
    hz: Rate | None
    sustained_s: Seconds | None
    seed: Count
    order: Many[str]  # "<round>:<arm>", a turn each, as they were run
    started: Many[str] = Field(default_factory=list)  # "<round>:<arm>", a process each, as they were started
    against: Stored | None = None
    started_utc: str
    estimated_s: Seconds | None  # stated before the first round
    seconds: Seconds  # that it took, the pilot rounds not counted
    interrupted: bool
    arms: Many[Arm]
    skipped: Many[Skipped]
    loadgen: Many[LoadGenRow] = Field(default_factory=list)
    verdicts: Many[Verdict] = Field(default_factory=list)
    noise: float | None = None
    environment: dict[str, str]
    load_average_before: Many[float]
    load_average_after: Many[float]

    @property
    def slower(self) -> bool:
        """Of the control nothing can be slower than itself."""
        controls = {arm.id for arm in self.arms if arm.control}
        return any(each.verdict == "slower" and each.arm not in controls for each in self.verdicts)

    @property
    def wrong(self) -> bool:
        """Whether outputs were compared with the golden ones, and were not those."""
        return any(each.name == GOLDEN_OUTPUTS and each.ok is False for arm in self.arms for each in arm.findings)
