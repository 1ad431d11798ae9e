"""What a measurement found. Durations are wall-clock nanoseconds from perf_counter_ns unless the name says otherwise."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Round(Frozen):
    """One process: load, first call, warm-up, timed calls. Printed to standard output by the worker."""

    load_ns: int  # from the artifact on disk to a session, imports not counted
    first_call_ns: int
    warmup_calls: int
    samples_ns: list[int]  # one a call, host arrays in to host arrays out, in order of time
    wall_ns: int  # of the timed phase
    framework_ns: list[int]  # the runtime's own timing, where it has one
    peak_memory_bytes: int  # resident, of the whole process
    max_abs_logit: float | None  # against golden outputs, before timing; None for `null`, and for a checkpoint
    placement: list[str]


class Arm(Frozen):
    """One artifact on one runtime. Figures are None where a round failed, `error` then says how."""

    artifact: str
    runtime: str
    precision: str
    version: str
    rounds: list[Round]
    error: str | None
    p50_ms: float | None
    p50_low_ms: float | None  # 95 % interval over rounds, not over calls; None below three rounds
    p50_high_ms: float | None
    p90_ms: float | None
    p99_ms: float | None  # None where there are too few calls for it
    images_per_s: float | None
    load_ms: float | None
    first_call_ms: float | None
    peak_memory_bytes: int | None


class Skipped(Frozen):
    artifact: str | None
    runtime: str
    reason: str


class BenchResult(Frozen):
    schema_version: Literal[1] = 1
    model: str
    checkpoint_sha256: str
    preset: str
    batch: int
    threads: int | None
    seed: int
    order: list[str]  # "<round>:<artifact>:<runtime>", as they were run
    started_utc: str
    arms: list[Arm]
    skipped: list[Skipped]
    environment: dict[str, str]
    load_average_before: list[float]
    load_average_after: list[float]
