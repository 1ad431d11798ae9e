"""The verb: arms and reasons, processes that end badly, and a report that holds every sample."""

import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from bench.test_stats import round_of
from scipy.stats import gmean

from toolkit import bench as room
from toolkit.bench import BenchResult, Options
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, RuntimeUnavailable
from toolkit.runtimes import find
from toolkit.workspace import Workspace

verb = import_module("toolkit.bench.bench")  # the module; toolkit.bench.bench, the attribute, is the function


def worker_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Puts a program of one line in the worker's place."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(verb.sys, "executable", str(script))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL; last words: none"),
        ("import os, sys; print('compiling', file=sys.stderr, flush=True); os.abort()", r"SIGABRT; last words: compiling"),
        ("import time; time.sleep(60)", r"did not end within 0.5 s and was stopped"),
        ("import os, signal; os.kill(os.getpid(), 35)", r"was killed by signal 35; last words: none"),
        ("print('hello')", r"printed no result but 'hello'; last words: none"),
        ("import sys; print('{}'); print('half a model', file=sys.stderr)", r"printed no result but '{}'; last words: half a model"),
        ("import sys; sys.stdout.buffer.write(bytes([255, 254, 0]))", r"printed no result but .*xff"),
        ("import sys; sys.stderr.buffer.write(bytes([255])); sys.exit(1)", r"xff"),
        ("pass", r"printed no result but ''"),
        ("raise SystemExit(3)", r"exit code 3 and no message"),
        ("raise ValueError('boom')", r"ValueError: boom"),
    ],
)
def test_a_worker_that_ends_badly_is_words_and_not_an_exception(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, words: str
) -> None:
    worker_that(monkeypatch, tmp_path, body)
    outcome = verb.run_round("{}", limit_s=0.5 if "sleep" in body else 30)
    assert isinstance(outcome, str)
    assert re.search(words, outcome)


def test_every_round_of_every_arm_is_a_process_of_its_own(
    exported_copy: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Workers that give their process id as the time of the first call."""
    text = repr(round_of([1000] * 20).model_dump())
    worker_that(monkeypatch, tmp_path, f"import json, os; print(json.dumps({{**{text}, 'first_call_ns': os.getpid()}}))")
    found = verb.bench(exported_copy, runtimes=["torch-cpu", "onnxruntime-cpu", "null"], options=Options(preset="quick"))
    assert [arm.error for arm in found.arms] == [None] * 3
    processes = [each.first_call_ns for arm in found.arms for each in arm.rounds]
    assert len({*processes, os.getpid()}) == 2 * 3 + 1


def test_a_file_in_the_users_folder_is_not_imported_in_place_of_the_library(
    exported: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("random", "numpy", "toolkit"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file of the user')\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(verb.run_round(null_job(exported)), verb.Round)


@pytest.mark.skipif(sys.platform != "linux", reason="where the size of the parent survives exec")
def test_peak_memory_of_a_round_is_not_that_of_the_process_that_started_it(exported: Workspace) -> None:
    held = np.ones(400 << 20, np.uint8)
    found = verb.run_round(null_job(exported))
    assert isinstance(found, verb.Round)
    assert 1 << 20 < found.peak_memory_bytes < held.nbytes / 2


def null_job(workspace: Workspace) -> str:
    checkpoint = Checkpoint.open(workspace.checkpoint)
    return verb.Plan(verb.Artifact.of_checkpoint(checkpoint), find("null"), 1.0).job(Options(preset="quick"))


def test_the_rounds_run_interleaved_in_the_order_that_is_recorded(exported_copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[dict[str, object]] = []

    def fake(job: str) -> object:
        jobs.append(json.loads(job))
        return round_of([1000] * 20)

    monkeypatch.setattr(verb, "run_round", fake)
    runtimes = ["torch-cpu", "onnxruntime-cpu", "null"]
    options = Options(preset="default", batch=4, threads=2, seed=7)
    found = verb.bench(exported_copy, runtimes=runtimes, options=options)
    assert [each.rpartition(":")[2] for each in found.order] == [job["runtime"] for job in jobs]
    assert [each.partition(":")[0] for each in found.order] == [str(number) for number in range(5) for _ in runtimes]
    for number in range(5):
        assert sorted(str(job["runtime"]) for job in jobs[3 * number : 3 * number + 3]) == sorted(runtimes)
    assert {(job["batch"], job["threads"], job["preset"]) for job in jobs} == {(4, 2, "default")}
    (gate,) = {job["allowed_abs_logit"] for job in jobs if job["format"] != "torch"}
    assert 1e-5 < gate < 1e-3  # derived: see tests/test_gates.py
    assert {job["allowed_abs_logit"] for job in jobs if job["format"] == "torch"} == {None}
    assert (found.batch, found.threads, found.preset, found.seed) == (4, 2, "default", 7)


def test_the_figures_can_be_computed_again_from_the_samples_in_the_report(
    exported_copy: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    monkeypatch.setattr(verb, "run_round", lambda job: round_of(random.integers(10**6, 10**7, 100).tolist()))
    verb.bench(exported_copy, runtimes=["null"], options=Options())
    (arm,) = json.loads((exported_copy.reports / room.REPORT).read_text(encoding="utf-8"))["arms"]
    samples = np.array([each["samples_ns"] for each in arm["rounds"]])  # (5 rounds, 100 calls)
    assert samples.shape == (5, 100)
    assert arm["p50_ms"] == pytest.approx(gmean(np.median(samples, axis=1)) / 1e6)
    assert arm["p90_ms"] == pytest.approx(np.quantile(samples, 0.9) / 1e6)
    assert arm["p99_ms"] == pytest.approx(np.quantile(samples, 0.99) / 1e6)


def test_real_rounds_are_kept_with_every_sample_and_the_environment(exported: Workspace) -> None:
    found = verb.bench(exported, runtimes=["null", "onnxruntime-cpu"], options=Options(preset="quick", seed=1))
    assert [(arm.artifact, arm.runtime, arm.error) for arm in found.arms] == [
        ("torch", "null", None),
        ("onnx-fp32", "onnxruntime-cpu", None),
    ]
    assert all(len(each.samples_ns) >= 20 for arm in found.arms for each in arm.rounds)
    assert sorted(found.order) == sorted(f"{n}:{arm.artifact}:{arm.runtime}" for n in range(2) for arm in found.arms)
    assert found.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.checkpoint_sha256 == Checkpoint.open(exported.checkpoint).card.weights_sha256
    assert BenchResult.model_validate_json((exported.reports / room.REPORT).read_bytes()) == found


def test_a_failed_arm_stays_in_the_table_without_figures_and_is_not_tried_again(
    exported: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fake(job: str) -> object:
        tried.append(job)
        return "was killed by SIGKILL" if "onnxruntime" in job else round_of([1000] * 50)

    monkeypatch.setattr(verb, "run_round", fake)
    found = verb.bench(exported, runtimes=["torch-cpu", "onnxruntime-cpu"], options=Options(preset="default"))
    by_runtime = {arm.runtime: arm for arm in found.arms}
    assert by_runtime["onnxruntime-cpu"].error == "was killed by SIGKILL"
    assert by_runtime["onnxruntime-cpu"].p50_ms is None
    assert by_runtime["torch-cpu"].p50_ms == pytest.approx(0.001)
    assert by_runtime["torch-cpu"].p50_low_ms is not None
    assert sum("onnxruntime" in job for job in tried) == 1


def test_what_gives_no_latency_is_skipped_with_its_reason(exported: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "run_round", lambda job: round_of([1000]))
    asked = []
    why_not = verb.Runtime.why_not
    monkeypatch.setattr(verb.Runtime, "why_not", lambda self: asked.append(self.is_device) or why_not(self))
    found = verb.bench(exported, options=Options(preset="quick"))
    assert all(asked)  # what is not measured is not imported
    reasons = {(each.runtime, each.artifact): each.reason for each in found.skipped}
    assert "not a device's latencies" in reasons["coreml-reference", "coreml-fp16"]
    assert "not a device's latencies" in reasons["onnx-reference", "onnx-fp32"]
    assert "null" not in {arm.runtime for arm in found.arms}
    if sys.platform != "darwin":
        assert "macOS" in reasons["coreml-ane", "coreml-fp16"]


def test_nothing_measurable_is_an_error_that_lists_the_reasons(exported: Workspace) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"nothing can be measured here:\n  coreml-reference: .*latencies"):
        verb.bench(exported, runtimes=["coreml-reference"])


def test_without_artifacts_only_what_reads_the_checkpoint_can_be_measured(trained: Workspace, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    bare = Workspace(tmp_path, trained.recipe)
    with pytest.raises(RuntimeUnavailable, match=r"onnxruntime-cpu: there is no onnx artifact"):
        verb.bench(bare, runtimes=["onnxruntime-cpu"])


def test_an_artifact_that_is_not_there_is_named(exported: Workspace) -> None:
    with pytest.raises(ArtifactError, match=r"'onnx-fp8'.*onnx-fp32"):
        verb.bench(exported, artifacts=["onnx-fp8"])
