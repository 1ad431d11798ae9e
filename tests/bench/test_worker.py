"""One round in its own process: verified, warmed up, timed by an exact clock, and nothing imported that it does not need."""

import gc
import hashlib
import json
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import devices
from toolkit.artifact import MANIFEST, Artifact
from toolkit.bench import worker
from toolkit.bench.plan import WARMUP_SECONDS, Preset
from toolkit.bench.result import Round
from toolkit.checkpoint import Checkpoint
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


def test_it_stops_where_its_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MOST_CALLS", 7)
    samples, _, _ = run_scripted(monkeypatch, Scripted([1]), calls=2, seconds=1)
    assert samples == [1] * 7


def test_nothing_is_collected_while_it_times_and_all_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []

    class Watching(Scripted):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            states.append((gc.isenabled(), gc.get_freeze_count() > 0))
            return super().__call__(batch)

    run_scripted(monkeypatch, Watching([1]), calls=3, seconds=0)
    assert states == [(False, True)] * 3
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)


@pytest.mark.parametrize(("call_s", "calls", "made"), [(0.125, 2, 4), (1.0, 3, 3), (0.0625, 8, 8), (0.0625, 5, 8)])
def test_warm_up_makes_its_calls_and_fills_half_a_second(monkeypatch: pytest.MonkeyPatch, call_s: float, calls: int, made: int) -> None:
    """On a clock that only the session moves; every duration is a binary fraction, so that their sums are exact."""
    session = Scripted([int(call_s * 10**9)])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: session.now / 1e9)
    assert WARMUP_SECONDS == 0.5
    assert worker._warm_up(session, [{IMAGE: np.zeros(1)}] * 3, calls) == made == session.calls  # type: ignore[arg-type]


def test_collection_is_on_again_even_after_a_failing_session(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Scripted):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            raise ToolkitError("no")

    with pytest.raises(ToolkitError):
        run_scripted(monkeypatch, Failing([1]), calls=1, seconds=0)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def job_of(artifact: Artifact, runtime: str, **fields: object) -> dict[str, Any]:
    return {
        "folder": str(artifact.folder), "format": artifact.format, "runtime": runtime, "batch": 2, "threads": 1, "preset": "quick",
        "allowed_abs_logit": 1e-3, **fields,
    }  # fmt: skip


def spawn(job: dict[str, Any], code: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys; from toolkit.bench import worker; status = worker.main(); {code}\nsys.exit(status)"
    return subprocess.run([sys.executable, "-c", program, json.dumps(job)], capture_output=True, text=True, check=False)


HEAVY = ("torch", "onnxruntime", "onnx", "coremltools", "matplotlib", "sklearn", "jinja2")


def one_round(job: dict[str, Any]) -> tuple[Round, set[str]]:
    """What the worker printed, and which of the heavy libraries it had loaded by then."""
    done = spawn(job, f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    return Round.model_validate_json(done.stdout), set(done.stderr.split())


@pytest.mark.parametrize(("runtime", "libraries"), [("null", set()), ("torch-cpu", {"torch"})])
def test_a_round_of_a_checkpoint_has_every_figure_and_loads_only_its_runtime(
    exported: Workspace, runtime: str, libraries: set[str]
) -> None:
    found, loaded = one_round(job_of(Artifact.of_checkpoint(Checkpoint.open(exported.checkpoint)), runtime))
    assert loaded == libraries  # its peak memory is reported: another library's would count as its own
    assert len(found.samples_ns) >= 20
    assert min(found.samples_ns) > 0
    assert found.wall_ns >= sum(found.samples_ns)
    assert found.warmup_calls >= 5
    assert found.load_ns > 0
    assert found.first_call_ns > 0
    assert found.peak_memory_bytes > 1 << 20
    assert found.framework_ns == []
    assert found.max_abs_logit is None  # the checkpoint is what the others are compared with
    assert found.placement == ([] if runtime == "null" else ["cpu"])


def test_a_round_on_onnxruntime_is_verified_and_loads_no_other_runtime(exported: Workspace) -> None:
    found, loaded = one_round(job_of(Artifact.open(exported.exports / "onnx-fp32"), "onnxruntime-cpu"))
    assert loaded == {"onnxruntime"}
    assert len(found.samples_ns) >= 20
    assert found.max_abs_logit is not None
    assert found.max_abs_logit <= 1e-3
    assert found.placement == ["CPUExecutionProvider"]


def test_a_file_whose_weights_were_changed_and_signed_again_is_not_timed(exported_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(worker, "timed", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(ToolkitError, match=r"onnx-fp32 computes wrong outputs here: max \|Δ logit\| .* allowed 0.001; not timed"):
        worker.run(job_of(Artifact.open(folder), "onnxruntime-cpu"))


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


def test_peak_memory_on_linux_is_the_process_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  99999 kB\nVmHWM:\t    8700 kB\nSeccomp:\t0\n")
    monkeypatch.setattr(worker, "STATUS", tmp_path / "status")
    assert worker._peak_bytes() == 8700 * 1024


@pytest.mark.parametrize("text", [None, "Name:\tpython\n"])
def test_peak_memory_without_that_line_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(worker, "STATUS", tmp_path / "status")
    before = devices.peak_memory_bytes()
    assert before <= worker._peak_bytes() <= devices.peak_memory_bytes()
