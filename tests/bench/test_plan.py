"""What is measured: options that fit together, and a time that is stated."""

import pytest

from toolkit.bench.plan import AWAKE_CALLS, PRESETS, Options, round_seconds
from toolkit.errors import ToolkitError


@pytest.mark.parametrize(("fields", "words"), [
    ({"preset": "fast"}, r"'fast'.*quick, default, publish"), ({"scenario": "burst"}, r"'burst'.*stream, offline, paced, cold, sustained"),
    ({"scenario": "paced"}, "--hz N belong together"), ({"hz": 3.0}, "--hz N belong together"),
    ({"scenario": "sustained"}, "--seconds N belong together"), ({"seconds": 60.0}, "--seconds N belong together"),
    ({"scenario": "paced", "hz": 0.0}, "--hz 0: between"), ({"scenario": "paced", "hz": float("nan")}, "--hz nan: between"),
    ({"scenario": "sustained", "seconds": 5.0}, "--seconds 5: from 30"), ({"loadgen": True, "batch": (2,)}, "SingleStream"),
    ({"loadgen": True, "scenario": "cold"}, "SingleStream"), ({"batch": (8, 1, 8)}, "--batch 8 is given twice"),
    ({"gate": True, "preset": "quick"}, "needs verdicts"),
])  # fmt: skip
def test_options_that_do_not_fit_are_one_message(fields, words):
    with pytest.raises(ToolkitError, match=words):
        Options(**fields)


def test_what_a_round_holds_follows_from_the_scenario():
    default = PRESETS["default"]
    assert (Options().timed_calls, Options().timed_seconds, Options().batches) == (default.calls, default.seconds, (1,))
    assert Options(scenario="offline").batches == (64,)
    assert Options(scenario="offline", batch=(8, 16)).batches == (8, 16)
    paced = Options(scenario="paced", hz=30.0)
    assert paced.timed_calls == 30 * default.seconds
    assert (Options(scenario="cold").timed_calls, Options(scenario="cold").timed_seconds) == (0, 0.0)
    slow = Options(scenario="paced", hz=0.1)  # one call would be due in three seconds
    assert (slow.timed_calls, slow.timed_seconds) == (20, 200.0)
    sustained = Options(scenario="sustained", seconds=300.0)
    assert (sustained.rounds, sustained.timed_seconds, sustained.decides) == (1, 300.0, False)
    assert (Options().turns, Options(scenario="offline").turns) == (10, 10)
    assert {Options(scenario="cold").turns, paced.turns, sustained.turns} == {1}
    assert (Options().decides, Options(preset="quick").decides) == (True, False)


def test_the_time_of_a_round_is_its_start_its_warm_up_and_what_is_timed():
    default = PRESETS["default"]
    awake = AWAKE_CALLS * default.turns
    assert round_seconds(Options(), 2.0, 0.001) == pytest.approx(2.0 + 0.5 + default.seconds + 0.001 * awake)
    assert round_seconds(Options(), 2.0, 0.1) == pytest.approx(2.0 + 0.1 * (default.warmup_calls + default.calls + awake))
    assert round_seconds(Options(scenario="cold"), 2.0, 0.1) == 2.0
