"""The timed loops, on a clock that only the session moves: every sample is exact."""

import gc
import sys
from array import array
from typing import Any

import numpy as np
import pytest

from toolkit.bench import clock
from toolkit.bench.clock import Timed, back_to_back, paced
from toolkit.errors import ToolkitError
from toolkit.tensors import IMAGE

INPUTS = [{IMAGE: np.zeros(1)}] * 3


class Scripted:
    """A session whose calls take known times on a clock of its own; reading the clock takes no time."""

    def __init__(self, durations_ns: list[int], own_ns: int | None = None) -> None:
        self.durations, self.own_ns, self.now, self.calls = durations_ns, own_ns, 0, 0

    def clock(self) -> int:
        return self.now

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.now += self.durations[self.calls % len(self.durations)]
        self.calls += 1
        return {"logits": np.full(1, self.calls)}

    def framework_ns(self) -> int | None:
        return self.own_ns


def ignored(place: int, outputs: dict[str, Any]) -> None:
    pass


def timed(monkeypatch, session: Scripted, calls: int, seconds: float, keep=ignored) -> Timed:
    monkeypatch.setattr(clock.time, "perf_counter_ns", session.clock)
    return back_to_back(session, INPUTS, calls, seconds, keep)


def test_every_call_is_a_sample_of_exactly_its_duration(monkeypatch):
    found = timed(monkeypatch, Scripted([5, 7, 11], own_ns=3), calls=6, seconds=0)
    assert (found.samples.tolist(), found.framework, found.service, found.wall) == ([5, 7, 11, 5, 7, 11], [3] * 6, [], 46)


def test_what_is_kept_of_a_call_is_its_own_output_and_its_time_is_nobodys(monkeypatch):
    session, kept = Scripted([5, 7]), []

    def keep(place: int, outputs: dict[str, Any]) -> None:
        session.now += 1000
        kept.append((place, int(outputs["logits"][0])))

    found = timed(monkeypatch, session, calls=4, seconds=0, keep=keep)
    assert found.samples.tolist() == [5, 7, 5, 7]
    assert kept == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_it_goes_on_to_the_deadline_when_calls_are_short(monkeypatch):
    found = timed(monkeypatch, Scripted([100_000]), calls=2, seconds=0.01)
    assert len(found.samples) == 100
    assert found.framework == []


def test_it_makes_its_calls_when_they_are_long(monkeypatch):
    assert len(timed(monkeypatch, Scripted([10**9]), calls=4, seconds=0.5).samples) == 4


def test_room_is_made_for_more_calls_and_too_many_are_an_error(monkeypatch):
    monkeypatch.setattr(clock, "FEWEST_ROOM", 3)
    assert timed(monkeypatch, Scripted([1, 2]), calls=8, seconds=0).samples.tolist() == [1, 2] * 4
    monkeypatch.setattr(clock, "MOST_CALLS", 7)
    with pytest.raises(ToolkitError, match=r"a call takes 0.001 µs, so that 1 s hold more than the 7 calls that are kept"):
        timed(monkeypatch, Scripted([1]), calls=2, seconds=1)


def test_what_is_advised_is_what_is_taken():
    assert clock.too_many(1e-5, 3600).endswith("give --seconds 160 at most")
    assert "cannot be measured sustained" in clock.too_many(1e-7, 3600)  # 30 s would be too many as well


@pytest.mark.parametrize("loop", [
    lambda session: back_to_back(session, INPUTS, 3, 0, ignored), lambda session: paced(session, INPUTS, 1e9, 3, ignored, lambda s: None),
])  # fmt: skip
def test_nothing_is_collected_while_it_times_and_all_is_as_before_afterwards(monkeypatch, loop):
    states = []

    class Watching(Scripted):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            states.append((gc.isenabled(), gc.get_freeze_count() > 0))
            return super().__call__(batch)

    session = Watching([1])
    monkeypatch.setattr(clock.time, "perf_counter_ns", session.clock)
    loop(session)
    assert states == [(False, True)] * 3
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)


def test_collection_is_on_again_even_after_a_failing_session(monkeypatch):
    class Failing(Scripted):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            raise ToolkitError("no")

    with pytest.raises(ToolkitError):
        timed(monkeypatch, Failing([1]), calls=1, seconds=0)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_paced_call_counts_from_when_it_was_due(monkeypatch):
    """100 a second. The second takes 25 ms: the third begins 15 ms late, the fourth 5 ms late though itself quick."""
    session = Scripted([1_000_000, 25_000_000, 1_000_000, 1_000_000, 1_000_000])
    monkeypatch.setattr(clock.time, "perf_counter_ns", session.clock)
    monkeypatch.setattr(clock, "SPIN_NS", 0)  # so that the clock moves by sleeping alone
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds * 1000, 6))
        session.now += round(seconds * 1e9)

    found = paced(session, INPUTS, 100, 5, ignored, sleep)
    assert found.service == [1_000_000, 25_000_000, 1_000_000, 1_000_000, 1_000_000]
    assert found.samples.tolist() == [1_000_000, 25_000_000, 16_000_000, 7_000_000, 1_000_000]
    assert slept == [9, 3]
    assert found.wall == 41_000_000


def test_samples_are_64_bit():
    assert array("q").itemsize == 8  # a call of more than 2.1 s does not overflow


def test_the_clock_is_the_monotonic_one():
    assert sys.modules["time"].get_clock_info("perf_counter").monotonic
