"""One round in its own process: verified, warmed up, timed, verified again, and nothing imported that it does not need."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.conftest import round_of
from tests.bench.test_clock import Scripted
from toolkit import devices
from toolkit.artifact import GOLDEN, MANIFEST
from toolkit.bench import worker
from toolkit.bench.plan import WARMUP_SECONDS
from toolkit.bench.result import Round
from toolkit.bench.worker import END, READY, TURN, Job, Verified
from toolkit.errors import ToolkitError
from toolkit.tensors import IMAGE, LOGITS
from toolkit.workers import Message, started

QUICK: dict[str, Any] = {
    "number": 0, "batch": 2, "threads": 1, "scenario": "stream", "calls": 20, "seconds": 0.3, "turns": 2, "hz": None, "warmup_calls": 5,
    "allowed_abs_logit": 1e-3, "shapes": {}, "seed": 0,
}  # fmt: skip


def job_of(exported, runtime: str, **fields: Any) -> Job:
    of_checkpoint = runtime.startswith(("torch", "null"))
    path = exported.checkpoint if of_checkpoint else exported.exports / "onnx-fp32"
    golden = exported.exports / "onnx-fp32" / GOLDEN
    return Job(**{**QUICK, "path": str(path), "runtime": runtime, "golden": str(golden), **fields})


def one_round(job: Job) -> tuple[Round, set[str]]:
    """The round that a worker gives, and which of the heavy libraries it had loaded by then."""
    with started("tests.bench.counted:task", Message(job.model_dump(mode="json"))) as talking:
        talking.hear(READY, 60)
        for _ in range(job.turns):
            talking.tell(TURN)
            talking.hear(TURN, 60)
        talking.tell(END)
        loaded = talking.hear("loaded", 60).fields["names"]
        return worker.round_of(talking.hear("result", 60)), set(loaded)


@pytest.mark.parametrize(("call_s", "calls", "made"), [(0.125, 2, 4), (1.0, 3, 3), (0.0625, 8, 8), (0.0625, 5, 8)])
def test_warm_up_makes_its_calls_and_fills_half_a_second(monkeypatch, call_s, calls, made):
    """On a clock that only the session moves; every duration is a binary fraction, so that their sums are exact."""
    session = Scripted([int(call_s * 10**9)])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: session.now / 1e9)
    assert WARMUP_SECONDS == 0.5
    assert worker._warm_up(session, [{IMAGE: np.zeros(1)}] * 3, calls) == made == session.calls


@pytest.mark.parametrize(("runtime", "libraries"), [("null", set()), ("torch-cpu", {"torch"}), ("onnxruntime-cpu", {"onnxruntime"})])
def test_a_round_has_every_figure_and_loads_only_its_runtime(exported, runtime, libraries):
    allowed = None if runtime == "null" else 1e-3
    found, loaded = one_round(job_of(exported, runtime, allowed_abs_logit=allowed))
    assert loaded == libraries  # its peak memory is reported: another library's would count as its own
    assert len(found.samples_ns) >= 20
    assert min(found.samples_ns) > 0
    assert found.wall_ns >= sum(found.samples_ns)
    assert found.warmup_calls >= 5
    assert found.load_ns > 0
    assert found.first_call_ns > 0
    assert found.compile_ns is None
    assert found.peak_memory_bytes > 1 << 20
    assert (found.framework_ns, found.service_ns) == ([], [])
    assert [each.calls >= 10 for each in found.turns] == [True, True]
    assert sum(each.calls for each in found.turns) == len(found.samples_ns)
    assert sum(each.after.perf_ns - each.before.perf_ns for each in found.turns) >= found.wall_ns
    assert all(each.after.own_s > each.before.own_s for each in found.turns)
    assert found.turns[0].after.perf_ns <= found.turns[1].before.perf_ns
    assert found.verified["before"] == 8
    assert found.verified["during"] >= 1
    assert found.verified["after"] == 1
    if runtime == "onnxruntime-cpu":
        assert found.placement.requested == "CPUExecutionProvider"
        assert set(found.placement.planned) == {"CPUExecutionProvider"}
        assert found.placement.planned["CPUExecutionProvider"] > 5
    if runtime != "null":
        assert found.max_abs_logit <= 1e-3


def test_a_cold_round_is_a_start_and_no_more(exported):
    found = worker.run(job_of(exported, "onnxruntime-cpu", scenario="cold", calls=0, seconds=0.0, turns=1))
    assert (found.samples_ns, found.warmup_calls, found.wall_ns) == ([], 0, 0)
    assert found.verified == {"before": 8, "after": 1}


def test_a_paced_round_has_its_calls_and_their_time_once_begun(exported):
    found = worker.run(job_of(exported, "null", scenario="paced", hz=200.0, calls=10, seconds=0.05, turns=1, allowed_abs_logit=None))
    assert len(found.samples_ns) == len(found.service_ns) == 10
    assert all(late >= took for late, took in zip(found.samples_ns, found.service_ns, strict=True))
    assert found.wall_ns >= 9 * 5_000_000


def test_a_file_whose_weights_were_changed_and_signed_again_is_not_timed(exported_copy, monkeypatch):
    """All checksums hold, so only the golden outputs can tell."""
    import onnx

    folder = exported_copy.exports / "onnx-fp32"
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    model = onnx.load(folder / manifest["entry"])
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weight.raw_data = (-np.frombuffer(weight.raw_data, np.float32)).tobytes()
    onnx.save(model, folder / manifest["entry"])
    manifest["files"][manifest["entry"]] = hashlib.sha256((folder / manifest["entry"]).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setattr(worker, "_timed", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(ToolkitError, match=r"onnx-fp32 computes wrong outputs here: max \|Δ logit\| .* allowed 0.001; not timed"):
        worker.run(job_of(exported_copy, "onnxruntime-cpu"))


def test_outputs_that_become_wrong_while_it_is_timed_are_seen(exported, monkeypatch):
    """Right for the first thirty calls, then another image's."""
    from toolkit.runtimes.onnxruntime import OnnxSession

    calls, real = [], OnnxSession.__call__

    def tiring(self, batch):
        calls.append(1)
        found = real(self, batch)
        return found if len(calls) <= 30 else {**found, LOGITS: found[LOGITS][::-1]}

    monkeypatch.setattr(OnnxSession, "__call__", tiring)
    found = worker.run(job_of(exported, "onnxruntime-cpu"))
    assert found.verified["before"] == 8
    assert found.max_abs_logit > 0.1


@pytest.mark.parametrize(("value", "right"), [(0.0, True), (1e-3, True), (2e-3, False), (float("nan"), False), (float("inf"), False)])
def test_an_output_is_right_within_its_gate_and_never_without_a_number(value, right):
    check = Verified(1e-3)
    check("before", np.full((1, 3), value, np.float64), np.zeros((1, 3)))
    assert check.right is right
    check("before", np.zeros((1, 4)), np.zeros((1, 3)))
    assert not check.right
    assert check.counts == {"before": 2}


def test_what_is_looked_at_is_drawn_by_the_seed_and_is_a_copy():
    found = []
    for seed in (1, 1, 2):
        kept, outputs = worker._Kept(seed), {LOGITS: np.zeros(1)}
        for place in range(400):
            outputs[LOGITS][0] = place
            kept(place, outputs)
        assert [int(value[0]) for _, value in kept.outputs] == [place for place, _ in kept.outputs]
        assert 5 < len(kept.outputs) < 50
        found.append([place for place, _ in kept.outputs])
    assert found[0] == found[1] != found[2]
    assert {each[0] for each in found} == {0}


def test_the_last_turn_is_looked_at_as_much_as_the_first_however_many_calls_there_are():
    kept, outputs = worker._Kept(0), {LOGITS: np.zeros(1)}
    for place in range(200_000):
        kept(place, outputs)
    places = np.array([place for place, _ in kept.outputs])
    assert len(places) == worker.MOST_KEPT
    assert places[0] == 0
    assert (np.histogram(places, 10, (0, 200_000))[0] > 60).all()


def test_a_cold_round_has_the_machine_before_and_after_its_start(exported):
    found = worker.run(job_of(exported, "onnxruntime-cpu", scenario="cold", calls=0, seconds=0.0, turns=1))
    (turn,) = found.turns
    assert turn.after.perf_ns - turn.before.perf_ns > found.load_ns + found.first_call_ns


def test_ops_that_may_fall_back_from_metal_are_recorded(monkeypatch):
    class Mps:
        def placement(self) -> tuple[str, ...]:
            return ("mps",)

        def planned(self) -> dict[str, int]:
            return {}

    for setting, recorded in (("1", "PYTORCH_ENABLE_MPS_FALLBACK=1"), ("0", None), ("", None)):
        monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", setting)
        assert worker._placement(None, Mps()).fallback == recorded


@pytest.mark.skipif(sys.platform == "darwin", reason="it has that provider there")
def test_a_user_error_in_the_worker_is_one_message(exported):
    request = Message(job_of(exported, "onnxruntime-coreml").model_dump(mode="json"))
    with started("round", request) as talking, pytest.raises(ToolkitError, match="CoreMLExecutionProvider") as error:
        talking.hear(READY, 60)
    assert "Traceback" not in str(error.value)


def test_batches_take_turns_and_have_the_size_asked_for_and_their_own_logits(exported):
    inputs, expected = worker._inputs(job_of(exported, "onnxruntime-cpu", batch=3), None)
    assert [batch[IMAGE].shape for batch in inputs] == [(3, 1, 28, 28)] * 8
    assert not np.array_equal(inputs[0][IMAGE], inputs[1][IMAGE])
    with np.load(exported.exports / "onnx-fp32" / GOLDEN) as golden:
        np.testing.assert_array_equal(inputs[1][IMAGE], golden["images"][3:6])
        np.testing.assert_array_equal(expected[1], golden["logits"][3:6])
    assert [image[IMAGE].shape for image in worker._singly(inputs)] == [(1, 1, 28, 28)] * 8
    np.testing.assert_array_equal(np.concatenate(worker._singly(expected)), np.concatenate(expected)[:8])


def test_peak_memory_on_linux_is_the_process_own(monkeypatch, tmp_path: Path):
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  99999 kB\nVmHWM:\t    8700 kB\nSeccomp:\t0\n")
    monkeypatch.setattr(worker, "STATUS", tmp_path / "status")
    assert worker._peak_bytes() == 8700 * 1024


@pytest.mark.parametrize("text", [None, "Name:\tpython\n"])
def test_peak_memory_without_that_line_is_what_the_system_says(monkeypatch, tmp_path: Path, text):
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(worker, "STATUS", tmp_path / "status")
    before = devices.peak_memory_bytes()
    assert before <= worker._peak_bytes() <= devices.peak_memory_bytes()


def test_a_turn_that_is_told_wrongly_ends_the_worker(exported):
    request = Message(job_of(exported, "null", allowed_abs_logit=None).model_dump(mode="json"))
    with started("round", request) as talking:
        talking.hear(READY, 60)
        talking.tell(END)
        with pytest.raises(ToolkitError, match="the worker was told 'end' where 'turn' had to come"):
            talking.hear(TURN, 60)


def test_a_round_survives_the_way_between_processes():
    sent = round_of([3, 1, 2], service_ns=[5], framework_ns=[])
    assert worker.round_of(worker.message(sent)) == sent


def test_the_calls_of_all_turns_are_one_series(exported, monkeypatch):
    """Inputs and drawn outputs go on where the turn before ended; each turn has its share of calls and time."""
    asked = []
    real = worker.back_to_back
    monkeypatch.setattr(worker, "back_to_back", lambda *given: asked.append(given[2:4] + given[5:]) or real(*given))
    found = worker.run(job_of(exported, "onnxruntime-cpu", calls=21, seconds=0.0, turns=4))
    assert asked == [(6, 0.0, 0), (6, 0.0, 6), (6, 0.0, 12), (6, 0.0, 18)]
    assert [each.calls for each in found.turns] == [6, 6, 6, 6]
    assert found.max_abs_logit <= 1e-3  # each of them is compared with the logits of its own input
