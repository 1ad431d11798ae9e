"""The timed loops. Between two readings of the clock there is the call and nothing else."""

import gc
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from toolkit.bench.plan import LEAST_SUSTAINED_S
from toolkit.errors import ToolkitError
from toolkit.runtimes import Session
from toolkit.tensors import Batch

MOST_CALLS = 20_000_000  # a turn: 160 MB of samples while it is timed; more is an error, for one that ended early would not say so
FEWEST_ROOM = 200_000  # calls that there is room for at first, and that room is made for when it is used up
SPIN_NS = 2_000_000  # sleeping is not exact: the last two milliseconds before a call is due are spent awake
Kept = Callable[[int, Batch], None]


@dataclass
class Timed:
    """Nanoseconds. `service`: of paced calls, from when they were begun. `samples`: eight bytes each, where a list takes forty."""

    samples: "array[int]" = field(default_factory=lambda: array("q"))
    service: list[int] = field(default_factory=list)
    framework: list[int] = field(default_factory=list)
    wall: int = 0

    def add(self, turn: "Timed") -> None:
        self.samples += turn.samples
        self.service += turn.service
        self.framework += turn.framework
        self.wall += turn.wall


def too_many(call_s: float, seconds: float) -> str:
    most = int(0.8 * call_s * MOST_CALLS)
    return (f"a call takes {1e6 * call_s:.3g} µs, so that {seconds:g} s hold more than the {MOST_CALLS:,} calls that are kept; ") + (
        f"give --seconds {most} at most" if most >= LEAST_SUSTAINED_S else "it cannot be measured sustained; use --scenario stream"
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing is collected inside, and all is as before afterwards. Inside another one it costs nothing."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def back_to_back(session: Session, inputs: list[Batch], calls: int, seconds: float, keep: Kept, first: int = 0) -> Timed:
    """At least so many calls and so many seconds. `keep(place, outputs)` is called after each, outside what is timed.

    Places are counted from `first`, that of the first call. Raises ToolkitError where more calls fit than can be kept.
    """
    now, samples, framework = time.perf_counter_ns, array("q", bytes(8 * FEWEST_ROOM)), array("q")
    with undisturbed():
        done, began = 0, now()
        deadline = began + int(seconds * 1e9)
        while True:
            batch = inputs[(first + done) % len(inputs)]
            start = now()
            outputs = session(batch)
            stop = now()
            if done == len(samples):
                samples.frombytes(bytes(8 * FEWEST_ROOM))
            samples[done] = stop - start
            keep(first + done, outputs)
            done += 1
            if (own := session.framework_ns()) is not None:
                framework.append(own)
            if stop >= deadline and done >= calls:
                break
            if done == MOST_CALLS:
                raise ToolkitError(too_many((stop - began) / 1e9 / done, seconds))
        wall = now() - began
    del samples[done:]
    return Timed(samples, [], framework.tolist(), wall)


def paced(session: Session, inputs: list[Batch], hz: float, calls: int, keep: Kept, sleep: Callable[[float], None]) -> Timed:
    """A call every 1/hz seconds, counted from the start: one that begins late because the last was slow counts as late."""
    now, timed = time.perf_counter_ns, Timed()
    with undisturbed():
        began = now()
        for number in range(calls):
            due, batch = began + int(number * 1e9 / hz), inputs[number % len(inputs)]
            if (left := due - now()) > SPIN_NS:
                sleep((left - SPIN_NS) / 1e9)
            while now() < due:
                pass
            start = now()
            outputs = session(batch)
            stop = now()
            timed.samples.append(stop - due)
            timed.service.append(stop - start)
            keep(number, outputs)
            if (own := session.framework_ns()) is not None:
                timed.framework.append(own)
        timed.wall = now() - began
    return timed
