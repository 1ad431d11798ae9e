"""The verb: arms and reasons, processes that end badly, and a report that holds every sample."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from bench.test_stats import round_of

from toolkit import bench as room
from toolkit.bench import BenchResult, Options
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, RuntimeUnavailable
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
        ("print('hello')", r"printed no result"),
        ("pass", r"printed no result"),
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
    found = verb.bench(exported, options=Options(preset="quick"))
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
