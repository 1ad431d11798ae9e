"""How much is measured: presets, and the order of the rounds."""

import random
from dataclasses import dataclass
from typing import Literal

from toolkit.errors import ToolkitError


@dataclass(frozen=True, kw_only=True)
class Preset:
    rounds: int  # processes an arm
    calls: int  # at least, timed, a round
    seconds: float  # at least, timed, a round
    warmup_calls: int  # at least; and half a second


PRESETS = {
    "quick": Preset(rounds=2, calls=20, seconds=0.5, warmup_calls=5),
    "default": Preset(rounds=5, calls=100, seconds=3.0, warmup_calls=10),
    "publish": Preset(rounds=10, calls=500, seconds=6.0, warmup_calls=20),
}
WARMUP_SECONDS = 0.5
ROUND_LIMIT_S = 600.0  # a hung runtime becomes a row, not a hung session


@dataclass(frozen=True, kw_only=True)
class Options:
    preset: Literal["quick", "default", "publish"] = "default"
    batch: int = 1
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ToolkitError(f"there is no preset {self.preset!r}; there are {', '.join(PRESETS)}")


def order(arms: int, rounds: int, seed: int) -> list[tuple[int, int]]:
    """(round, arm) in the order of running: each round has every arm once, shuffled, so that drift hits all alike."""
    shuffle = random.Random(seed)
    found = []
    for number in range(rounds):
        turn = list(range(arms))
        shuffle.shuffle(turn)
        found += [(number, arm) for arm in turn]
    return found
