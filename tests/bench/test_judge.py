"""From rounds to verdicts: known differences are called by their names, and what is not sound does not count."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.bench.conftest import arm_of, result_of, round_of, sensors, turn_of
from toolkit.bench.judge import SAME, compare, findings, judged, undecided
from toolkit.bench.plan import Options
from toolkit.bench.result import BenchResult, Placement, Sensors, Stored, StoredArm
from toolkit.bench.stored import comparable
from toolkit.errors import ToolkitError
from toolkit.report.latency import latency_notes

MS = 1_000_000
NOISE = np.array([1.0, 1.002, 0.998, 1.001, 0.999, 1.0, 1.0015, 0.9985])


@pytest.mark.parametrize(("factor", "verdict"), [
    (1.05, "slower"), (0.95, "faster"), (1.0, "same"), (1.004, "same"), (2.0, "slower"), (1.011, "inconclusive"),
])  # fmt: skip
def test_a_difference_is_called_by_its_name(factor, verdict):
    drift = np.linspace(1, 1.3, 8)  # of the machine: it hits both alike, and pairs cancel it
    first, second = arm_of(10 * MS * drift * NOISE), arm_of(10 * MS * drift * NOISE[::-1] * factor, "onnxruntime-cpu")
    found = compare(second, first, 1, "stream")
    assert (found.verdict, found.arm, found.against) == (verdict, "m:onnxruntime-cpu", "m:torch-cpu")
    assert found.low < factor < found.high


def test_the_interval_is_students_over_the_pairs_and_bonferronis_for_several():
    random = np.random.default_rng(0)
    mine, theirs = random.lognormal(16, 0.02, 8), random.lognormal(16, 0.02, 8)
    logs = np.log(np.round(mine)) - np.log(np.round(theirs))
    for number, confidence in ((1, 0.95), (5, 0.99)):
        expected = scipy_stats.ttest_1samp(logs, 0).confidence_interval(confidence)
        found = compare(arm_of(mine), arm_of(theirs), number, "stream")
        assert (math.log(found.low), math.log(found.high)) == pytest.approx((expected.low, expected.high))


def test_a_wide_interval_is_inconclusive_and_too_few_rounds_are_none():
    wild = [10 * MS * factor for factor in (1, 1.4, 0.8, 1.2, 0.7)]
    assert compare(arm_of(wild), arm_of([10 * MS] * 5), 1, "stream").verdict == "inconclusive"
    assert compare(arm_of(wild[:2]), arm_of(wild), 1, "stream") is None
    assert compare(arm_of(wild, error="was killed"), arm_of(wild), 1, "stream") is None


def test_only_rounds_that_both_have_are_paired():
    mine = arm_of([1 * MS, 2 * MS, 4 * MS, 8 * MS])
    late = mine.model_copy(update={"rounds": [each for each in mine.rounds if each.number != 2]})
    assert compare(late, mine, 1, "stream").ratio == 1.0


def test_everything_follows_from_the_rounds_and_is_made_again_from_the_file():
    first, slow = arm_of(10 * MS * NOISE), arm_of(11 * MS * NOISE[::-1], "onnxruntime-cpu")
    control = arm_of(10 * MS * NOISE[::-1], id="m:torch-cpu (A/A)", control=True)
    found = judged(result_of([first, control, slow]))
    assert [(each.arm, each.verdict) for each in found.verdicts] == [("m:torch-cpu (A/A)", "same"), ("m:onnxruntime-cpu", "slower")]
    assert 0 < found.noise < 0.01
    assert found.slower
    assert all(arm.valid for arm in found.arms)
    bare = found.model_copy(update={
        "arms": [arm.model_copy(update={"figures": None, "findings": []}) for arm in found.arms], "verdicts": [], "noise": None,
    })  # fmt: skip
    assert judged(BenchResult.model_validate_json(bare.model_dump_json())) == found


def test_what_is_invalid_is_never_ranked():
    good, bad = arm_of(10 * MS * NOISE), arm_of(20 * MS * NOISE, "b")
    wrong = bad.model_copy(update={"rounds": [each.model_copy(update={"max_abs_logit": 1.0}) for each in bad.rounds]})
    assert [each.verdict for each in judged(result_of([good, bad])).verdicts] == ["slower"]
    assert judged(result_of([good, wrong])).verdicts == []
    assert judged(result_of([wrong, good])).verdicts == []


def test_each_batch_size_is_compared_with_the_first_arm_of_its_own():
    arms = [arm_of([MS] * 5, name, batch=batch, id=f"{name} {batch}") for name in ("a", "b") for batch in (1, 8)]
    assert [(each.arm, each.against) for each in judged(result_of(arms)).verdicts] == [("b 1", "a 1"), ("b 8", "a 8")]


def test_a_quick_look_decides_nothing():
    found = judged(result_of([arm_of([MS] * 3), arm_of([2 * MS] * 3, "b")], preset="quick"))
    assert (found.verdicts, found.noise) == ([], None)


def test_a_stored_measurement_is_compared_arm_by_arm_with_welchs_interval():
    before, now = 10 * MS * NOISE[:5], 11 * MS * NOISE
    kept = StoredArm(id="m:torch-cpu", medians_ns=np.round(before).tolist(), why_not=None)
    against = Stored(file="b.json", sha256="0" * 64, started_utc="then", arms=[kept])
    (found,) = judged(result_of([arm_of(now), arm_of(now, "new")], against=against)).verdicts
    expected = scipy_stats.ttest_ind(np.log(np.round(now)), np.log(np.round(before)), equal_var=False).confidence_interval(0.95)
    assert (found.arm, found.against, found.verdict) == ("m:torch-cpu", "m:torch-cpu, stored", "slower")
    assert (math.log(found.low), math.log(found.high)) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("fields", "words"), [
    ({"environment": {"cores": "2", "processor": "Q", "memory": "M", "system": "S"}}, "processor is 'P' here and 'Q' there"),
    ({"scenario": "cold"}, "scenario stream here, cold there"), ({"model": "large"}, "the model is tiny here and large there"),
    ({"scenario": "paced", "hz": 50.0}, "scenario stream here, paced at 50 Hz there"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(fields, words):
    with pytest.raises(ToolkitError, match=f"not comparable: {words}"):
        comparable(result_of([]), result_of([], **fields))
    sound = judged(result_of([arm_of([MS] * 5)]))
    comparable(sound, sound)


def test_cold_starts_are_compared_by_the_time_to_the_first_result():
    def cold(start_ns: int) -> list:
        return [round_of([], number, compile_ns=MS, load_ns=start_ns - 2 * MS, first_call_ns=MS) for number in range(4)]

    fast, slow = arm_of([], rounds=cold(10 * MS)), arm_of([], "b", rounds=cold(20 * MS))
    (found,) = judged(result_of([fast, slow], scenario="cold")).verdicts
    assert (found.ratio, found.verdict) == (pytest.approx(2.0), "slower")


def states(rounds, options=None, error=None) -> dict[str, bool | None]:
    return {each.name: each.ok for each in findings(arm_of([], rounds=rounds, error=error), options or Options(), 2)}


SOUND = [3 * MS] * 1000


def test_a_sound_arm_meets_every_condition_that_can_be_known():
    found = states([round_of(SOUND, number) for number in range(5)])
    assert {name for name, ok in found.items() if ok} == {
        "every round ended well", "outputs are the golden ones", "clocks agree", "calls and time", "does not drift",
        "other processes are idle",
    }  # fmt: skip
    assert False not in found.values()


SPAN = 3 * 10**9


def spent(before: Sensors | None = None, **after: Any) -> dict[str, Any]:
    """One turn of three seconds."""
    return {"turns": [turn_of(1000, SPAN, before, **after)]}


@pytest.mark.parametrize(("name", "fields"), [
    ("outputs are the golden ones", {"max_abs_logit": 2e-3}), ("outputs are the golden ones", {"max_abs_logit": math.inf}),
    ("runs where it was asked to", {"placement": Placement(requested="CoreMLExecutionProvider",
                                    planned={"CoreMLExecutionProvider": 44, "CPUExecutionProvider": 6})}),
    ("clocks agree", spent(wall_ns=2 * SPAN)),
    ("calls and time", {"samples_ns": [3 * MS] * 100, "wall_ns": SPAN}), ("calls and time", {"wall_ns": 10**9}),
    ("does not drift", {"samples_ns": [3 * MS] * 500 + [4 * MS] * 500}),
    ("other processes are idle", spent(busy_s=4.0)),
    ("the hypervisor takes nothing", spent(sensors(steal_s=0.0), steal_s=0.5)),
    ("no quota holds it back", spent(sensors(throttled_s=0.0), throttled_s=0.1)),
    ("no thermal pressure", spent(sensors(thermal=1))), ("no thermal pressure", spent(sensors(thermal=0), thermal=2)),
    ("on mains, not saving power", spent(sensors(on_mains=False))),
    ("on mains, not saving power", spent(sensors(low_power=True))),
])  # fmt: skip
def test_each_condition_can_fail(name, fields):
    values = {"samples_ns": SOUND, **fields}
    samples = values.pop("samples_ns")
    found = states([round_of(samples, number, **values) for number in range(5)])
    assert [each for each, ok in found.items() if ok is False] == [name]


def test_what_other_arms_do_between_the_turns_is_not_counted_as_other_processes():
    """Two turns of a second with two idle seconds' distance, in which the other arms keep every core busy."""
    second = 10**9
    first = turn_of(500, second)
    later = turn_of(500, 4 * second, sensors(perf_ns=3 * second, wall_ns=3 * second, busy_s=5.0, own_s=1.0), busy_s=6.0, own_s=2.0)
    found = states([round_of(SOUND, number, turns=[first, later]) for number in range(3)])
    assert found["other processes are idle"] is True
    busier = later.model_copy(update={"after": later.after.model_copy(update={"busy_s": 6.5})})
    assert states([round_of(SOUND, number, turns=[first, busier]) for number in range(3)])["other processes are idle"] is False


def test_an_arm_that_fails_a_condition_is_not_valid_and_one_that_died_has_no_figures():
    rounds = [round_of(SOUND, number, max_abs_logit=1.0) for number in range(5)]
    wrong, dead = judged(result_of([arm_of([], rounds=rounds), arm_of([], "b", rounds=rounds, error="was killed")])).arms
    assert (wrong.valid, wrong.figures is None) == (False, False)
    assert (dead.valid, dead.figures) == (False, None)


def test_what_is_not_judged_by_its_logits_or_has_no_reference_is_unknown_and_not_wrong():
    for fields in ({"verified": {}, "max_abs_logit": None}, {"allowed_abs_logit": None, "max_abs_logit": 5.0}):
        assert states([round_of(SOUND, number, **fields) for number in range(3)])["outputs are the golden ones"] is None


def test_a_provider_that_has_all_of_the_graph_is_where_it_was_asked_to_be():
    whole = Placement(requested="CPUExecutionProvider", planned={"CPUExecutionProvider": 54})
    for ok, requested, planned in (
        (True, "requested CPU_AND_NE", {"Neural Engine": 20, "CPU": 1}), (False, "requested CPU_AND_NE", {"CPU": 21}),
        (False, "requested CPU_AND_NE", {"CPU": 21, "Neural Engine": 0}), (False, "requested CPU_AND_NE", {"Neural Engine": 1, "GPU": 1}),
        (False, "requested CPU_AND_GPU", {"CPU": 21}), (True, "requested CPU_AND_GPU", {"GPU": 21}),
        (True, "requested CPU_ONLY", {"CPU": 21}), (False, "requested CPU_ONLY", {"CPU": 20, "GPU": 1}),
        (True, "requested ALL", {"CPU": 21}), (None, "requested CPU_AND_NE", {}), (None, "mps", {}),
        (True, "CoreMLExecutionProvider", {"CoreMLExecutionProvider": 44}), (False, "CPUExecutionProvider", {"CoreMLExecutionProvider": 4}),
    ):  # fmt: skip
        assert placed([Placement(requested=requested, planned=planned)] * 3) is ok, (requested, planned)
    other = Placement(requested="CPUExecutionProvider", planned={"CoreMLExecutionProvider": 54})
    assert placed([whole, whole, other]) is False  # in the last round only
    assert placed([Placement(requested="mps", planned={}, fallback="PYTORCH_ENABLE_MPS_FALLBACK=1")] * 3) is False


def placed(placements: list[Placement]) -> bool | None:
    rounds = [round_of(SOUND, number, placement=placement) for number, placement in enumerate(placements)]
    return states(rounds)["runs where it was asked to"]


def test_a_large_drift_that_is_not_proven_is_not_called_none():
    """+15 %, but from -8 to +43."""
    ends = [(30, 30), (30, 50), (30, 30), (30, 26), (30, 40)]
    rounds = [round_of([first * 100_000] * 500 + [last * 100_000] * 500, number) for number, (first, last) in enumerate(ends)]
    assert states(rounds)["does not drift"] is None


@pytest.mark.parametrize("name", ["other processes are idle", "the hypervisor takes nothing", "no quota holds it back",
                                  "no thermal pressure", "on mains, not saving power"])  # fmt: skip
def test_a_cold_start_is_judged_by_the_machine_around_it_as_well(name):
    start = sensors(steal_s=0.0, throttled_s=0.0, thermal=1, on_mains=False)
    turn = turn_of(0, SPAN, start, busy_s=5.0, steal_s=1.0, throttled_s=0.5)
    assert states([round_of([], number, turns=[turn]) for number in range(5)], Options(scenario="cold"))[name] is False


def test_a_control_that_differs_from_itself_widens_what_counts_as_a_difference_and_is_no_slower_arm():
    first, control = arm_of(10 * MS * NOISE), arm_of(10.5 * MS * NOISE[::-1], id="m:torch-cpu (A/A)", control=True)
    near, far = arm_of(10.4 * MS * NOISE[::-1], "near"), arm_of(12 * MS * NOISE, "far")
    found = judged(result_of([first, control, near, far]))
    assert [each.verdict for each in found.verdicts] == ["slower", "inconclusive", "slower"]
    assert found.slower
    assert not judged(result_of([first, control, near])).slower
    assert judged(result_of([first, control, arm_of(10 * MS * NOISE, "same")])).verdicts[1].verdict == "inconclusive"
    assert compare(near, first, 1, "stream", SAME).verdict == "slower"


@pytest.mark.parametrize("broken", [0, 1])
def test_without_a_valid_control_nothing_is_decided(broken):
    """Of two batch sizes: those of 8 are sound, but what no difference looks like is not known."""
    arms = [arm_of(10 * MS * NOISE), arm_of(10 * MS * NOISE, id="m:torch-cpu (A/A)", control=True)]
    eights = [arm_of(ms * MS * NOISE, name, id=name, batch=8) for name, ms in (("a", 10), ("b", 20))]
    assert [each.verdict for each in judged(result_of([*arms, *eights])).verdicts] == ["same", "slower"]
    bad = arms[broken]
    arms[broken] = bad.model_copy(update={"rounds": [each.model_copy(update={"max_abs_logit": 1.0}) for each in bad.rounds]})
    found = judged(result_of([*arms, *eights]))
    assert (found.verdicts, found.noise) == ([], None)
    words = "the control is INVALID (outputs" if broken else "m:torch-cpu, which the control repeats, is INVALID (outputs"
    assert [(arm, why.startswith(words)) for arm, why in undecided(found)] == [("b", True)]
    assert any(note.startswith(f"no verdicts: {words}") for note in latency_notes(found))


def test_an_inconclusive_comparison_is_said_to_pass_the_gate():
    found = judged(result_of([arm_of(10 * MS * NOISE), arm_of(10.11 * MS * NOISE[::-1], "b")]))
    assert [each.verdict for each in found.verdicts] == ["inconclusive"]
    assert any("inconclusive: m:b: " in note and "--fail-if-slower lets it pass" in note for note in latency_notes(found))


def test_a_drift_that_two_rounds_show_is_not_proven():
    assert states([round_of([3 * MS] * 500 + [4 * MS] * 500, number) for number in range(2)])["does not drift"] is None


def test_no_difference_is_seldom_taken_for_one():
    """A/A: of 300 measurements of one thing at most 5 % may be called faster or slower; with the margin of 1 % far fewer are."""
    random, called = np.random.default_rng(2), 0
    for _ in range(300):
        first, second = (arm_of(10 * MS * np.exp(random.normal(0, 0.02, 8)), calls=1) for _ in range(2))
        called += compare(first, second, 1, "stream").verdict in ("faster", "slower")
    assert called <= 15
