"""One round in its own process: verified, warmed up, timed by an exact clock, and nothing imported that it does not need."""

import gc
import json
import subprocess
import sys
from array import array
from typing import Any

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.bench import worker
from toolkit.bench.plan import Preset
from toolkit.bench.result import Round
from toolkit.errors import ToolkitError
from toolkit.tensors import IMAGE
from toolkit.workspace import Workspace


class Scripted:
    """A session whose calls take known times on a clock of its own; reading the clock takes no time."""

    def __init__(self, durations_ns: list[int], own_ns: int | None = None) -> None:
        self.durations, self.own_ns, self.now, self.calls = durations_ns, own_ns, 0, 0

    def clock(self) -> int:
        return self.now

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.now += self.durations[self.calls % len(self.durations)]
        self.calls += 1
        return {}

    def framework_ns(self) -> int | None:
        return self.own_ns


def run_scripted(monkeypatch: pytest.MonkeyPatch, session: Scripted, calls: int, seconds: float) -> tuple[list[int], list[int], int]:
    monkeypatch.setattr(worker.time, "perf_counter_ns", session.clock)
    preset = Preset(rounds=1, calls=calls, seconds=seconds, warmup_calls=0)
    return worker.timed(session, [{IMAGE: np.zeros(1)}] * 3, preset)  # type: ignore[arg-type]


def test_every_call_is_a_sample_of_exactly_its_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, framework, wall = run_scripted(monkeypatch, Scripted([5, 7, 11], own_ns=3), calls=6, seconds=0)
    assert samples == [5, 7, 11, 5, 7, 11]
    assert framework == [3] * 6
    assert wall == 46


def test_it_goes_on_to_the_deadline_when_calls_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, framework, _ = run_scripted(monkeypatch, Scripted([100_000]), calls=2, seconds=0.01)
    assert len(samples) == 100
    assert framework == []


def test_it_makes_its_calls_when_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, _, _ = run_scripted(monkeypatch, Scripted([10**9]), calls=4, seconds=0.5)
    assert len(samples) == 4


def test_collection_is_on_again_even_after_a_failing_session(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Scripted):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            raise ToolkitError("no")

    with pytest.raises(ToolkitError):
        run_scripted(monkeypatch, Failing([1]), calls=1, seconds=0)
    assert gc.isenabled()


def job_of(artifact: Artifact, runtime: str, **fields: object) -> dict[str, Any]:
    return {
        "folder": str(artifact.folder), "format": artifact.format, "runtime": runtime, "batch": 2, "threads": 1, "preset": "quick",
        "allowed_abs_logit": 1e-3, **fields,
    }  # fmt: skip


def spawn(job: dict[str, Any], code: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys; from toolkit.bench import worker; status = worker.main(); {code}\nsys.exit(status)"
    return subprocess.run([sys.executable, "-c", program, json.dumps(job)], capture_output=True, text=True, check=False)


def test_a_round_on_onnxruntime_is_verified_and_loads_no_other_runtime(exported: Workspace) -> None:
    artifact = Artifact.open(exported.exports / "onnx-fp32")
    loaded = "print([n for n in ('torch', 'coremltools', 'matplotlib') if n in sys.modules], file=sys.stderr)"
    done = spawn(job_of(artifact, "onnxruntime-cpu"), loaded)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"  # its peak memory is reported: another library's would count as its own
    found = Round.model_validate_json(done.stdout)
    assert len(found.samples_ns) >= 20
    assert min(found.samples_ns) > 0
    assert found.wall_ns >= sum(found.samples_ns)
    assert found.warmup_calls >= 5
    assert found.max_abs_logit is not None
    assert found.max_abs_logit <= 1e-3
    assert found.load_ns > 0
    assert found.peak_memory_bytes > 1 << 20


def test_wrong_outputs_are_not_timed(exported: Workspace) -> None:
    artifact = Artifact.open(exported.exports / "onnx-fp32")
    with pytest.raises(ToolkitError, match=r"wrong outputs here: max \|Δ logit\| .* allowed 1e-12; not timed"):
        worker.run(job_of(artifact, "onnxruntime-cpu", allowed_abs_logit=1e-12))


def test_the_worker_ends_with_one_message_on_a_user_error(exported: Workspace) -> None:
    done = spawn(job_of(Artifact.open(exported.exports / "onnx-fp32"), "torch-cpu"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "torch-cpu reads torch artifacts" in done.stderr
    assert "Traceback" not in done.stderr


def test_batches_take_turns_and_have_the_size_asked_for(exported: Workspace) -> None:
    artifact = Artifact.open(exported.exports / "onnx-fp32")
    inputs = worker._inputs(artifact, batch=3, is_checkpoint=False)
    assert [batch[IMAGE].shape for batch in inputs] == [(3, 1, 28, 28)] * 8
    assert not np.array_equal(inputs[0][IMAGE], inputs[1][IMAGE])


def test_samples_are_64_bit() -> None:
    assert array("q").itemsize == 8  # a call of more than 2.1 s does not overflow
