"""What is measured and how much of it: scenarios, presets, and how long it all will take."""

from dataclasses import dataclass
from typing import Literal, get_args

from toolkit.errors import ToolkitError
from toolkit.limits import thread_count

Scenario = Literal["stream", "offline", "paced", "cold", "sustained"]
SCENARIOS: dict[Scenario, str] = {
    "stream": "one call after the other",
    "offline": "many images a call: images/s is what counts",
    "paced": "a call at fixed times, latency from the time it was due",
    "cold": "fresh processes, the files still in memory: compile, load and first call",
    "sustained": "one long round: how the latency changes with time",
}
PresetName = Literal["quick", "default", "publish"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    rounds: int  # processes an arm
    calls: int  # at least, timed, a round
    seconds: float  # at least, timed, a round
    turns: int  # in which a round's calls are timed, all arms in turn
    warmup_calls: int  # at least; and half a second
    loadgen_seconds: float  # of LoadGen's own run, where it is asked for


PRESETS: dict[PresetName, Preset] = {
    "quick": Preset(rounds=2, calls=20, seconds=0.5, turns=2, warmup_calls=5, loadgen_seconds=5),
    "default": Preset(rounds=8, calls=200, seconds=3.0, turns=10, warmup_calls=10, loadgen_seconds=60),
    "publish": Preset(rounds=12, calls=500, seconds=6.0, turns=20, warmup_calls=20, loadgen_seconds=600),  # 600: MLPerf's own rule
}
WARMUP_SECONDS = 0.5
AWAKE_CALLS = 2  # untimed, at the start of a turn: caches and clocks have been another arm's
PILOT_SECONDS = 0.5  # of the short first round that tells how long the others will take
ROUND_LIMIT_S = 600.0  # beyond the time that is measured: a hung runtime becomes a row, not a hung session
OFFLINE_BATCH = 64
LEAST_SUSTAINED_S = 30.0  # three windows
LEAST_PACED_CALLS = 20  # a round: the median of one call is no round
LEAST_HZ, MOST_HZ = 0.01, 10_000.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """`batch`, `threads`: one arm each; None: the runtime's own number. `hz` of `paced`, `seconds` of `sustained`.

    `trust`: a model file from elsewhere may run code.

    `gate`: whoever asks wants to be told when an arm is slower, so what decides nothing is an error.
    """

    preset: PresetName = "default"
    scenario: Scenario = "stream"
    batch: tuple[int, ...] = ()
    threads: tuple[int | None, ...] = (None,)
    hz: float | None = None
    seconds: float | None = None
    seed: int = 0
    loadgen: bool = False
    gate: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ToolkitError(f"there is no preset {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.scenario not in get_args(Scenario):
            raise ToolkitError(f"there is no scenario {self.scenario!r}; there are {', '.join(SCENARIOS)}")
        for each in self.threads:
            thread_count(each)
        if (self.hz is not None) != (self.scenario == "paced"):
            raise ToolkitError("--scenario paced and --hz N belong together: give both, or neither")
        if (self.seconds is not None) != (self.scenario == "sustained"):
            raise ToolkitError("--scenario sustained and --seconds N belong together: give both, or neither")
        if self.hz is not None and not LEAST_HZ <= self.hz <= MOST_HZ:
            raise ToolkitError(f"--hz {self.hz:g}: between {LEAST_HZ:g} and {MOST_HZ:,.0f} calls a second can be paced")
        if self.seconds is not None and not LEAST_SUSTAINED_S <= self.seconds <= 24 * 3600:
            raise ToolkitError(f"--seconds {self.seconds:g}: from {LEAST_SUSTAINED_S:g} (three windows of ten seconds) to a day")
        if self.loadgen and (self.scenario != "stream" or self.batches != (1,)):
            raise ToolkitError("--loadgen is MLPerf's SingleStream: it goes with --scenario stream and batch 1")
        if self.gate and not self.decides:
            raise ToolkitError("--fail-if-slower needs verdicts: leave out --quick, and --scenario sustained")
        for flag, values in (("--batch", self.batch), ("--threads", self.threads)):
            if twice := next((each for each in values if values.count(each) > 1), None):
                raise ToolkitError(f"{flag} {twice} is given twice, which would be two arms of one name; give it once")

    @property
    def batches(self) -> tuple[int, ...]:
        return self.batch or ((OFFLINE_BATCH,) if self.scenario == "offline" else (1,))

    @property
    def rounds(self) -> int:
        return 1 if self.scenario == "sustained" else PRESETS[self.preset].rounds

    @property
    def turns(self) -> int:
        """1: each arm's round is one stretch, alone; more: the processes of a round live side by side and take turns."""
        return PRESETS[self.preset].turns if self.scenario in ("stream", "offline") else 1

    @property
    def timed_seconds(self) -> float:
        """At least so long is timed, a round; `paced`: long enough for its calls."""
        if self.scenario == "cold":
            return 0.0
        least = 0.0 if self.hz is None else LEAST_PACED_CALLS / self.hz
        return max(least, self.seconds or PRESETS[self.preset].seconds)

    @property
    def timed_calls(self) -> int:
        """At least so many are timed, a round; `paced`: exactly so many are due."""
        if self.hz is not None:
            return round(self.hz * self.timed_seconds)
        return {"cold": 0, "sustained": 1}.get(self.scenario, PRESETS[self.preset].calls)

    @property
    def decides(self) -> bool:
        """Whether rounds are enough for a verdict."""
        return self.preset != "quick" and self.rounds >= 3


def round_seconds(options: Options, process_s: float, call_s: float) -> float:
    """How long a round will take. `process_s`: what a process needs beside warm-up and timing; both from the pilot round."""
    preset = PRESETS[options.preset]
    if options.scenario == "cold":
        return process_s
    warm = max(WARMUP_SECONDS, preset.warmup_calls * call_s) + options.turns * AWAKE_CALLS * call_s
    calls = options.timed_calls * call_s
    return process_s + warm + max(options.timed_seconds, calls)
