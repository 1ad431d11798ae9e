"""The verb: arms and reasons, processes that end badly, and a report that holds every sample."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gmean

from tests.bench.conftest import round_of
from toolkit import bench as room
from toolkit.bench import BenchResult, Options
from toolkit.bench.arms import of_file
from toolkit.bench.plan import PRESETS
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, RuntimeUnavailable, ToolkitError
from toolkit.runtimes import Runtime
from toolkit.workspace import Workspace

verb = import_module("toolkit.bench.bench")  # the module; toolkit.bench.bench, the attribute, is the function
QUICK = Options(preset="quick")


def test_the_rounds_run_interleaved_in_the_order_that_is_recorded(exported_copy, in_process):
    jobs = in_process(lambda job: round_of([1000] * 20, max(0, job.number)))
    runtimes = ["torch-cpu", "torch-cpu-bf16", "onnxruntime-cpu"]
    found = verb.bench(exported_copy, runtimes=runtimes, options=Options(batch=(4,), threads=(2,), seed=7))
    rounds, arms = PRESETS["default"].rounds, 4  # the first arm twice: the control
    pilots, timed = [each for each in jobs if each.number < 0], [each for each in jobs if each.number >= 0]
    assert sorted(each.runtime for each in pilots) == sorted(runtimes)  # a control needs no pilot of its own
    assert [each.number for each in timed] == [number for number in range(rounds) for _ in range(arms)]
    turns = PRESETS["default"].turns
    assert [each.partition(":")[0] for each in found.order] == [str(number) for number in range(rounds) for _ in range(arms * turns)]
    for start in range(0, len(found.order), arms):  # in every turn every arm once
        assert {each.partition(":")[2] for each in found.order[start : start + arms]} == {arm.id for arm in found.arms}
    assert len({tuple(found.order[start : start + arms]) for start in range(0, arms * turns, arms)}) > 1  # in changing order
    assert {(each.batch, each.threads, each.calls) for each in timed} == {(4, 2, PRESETS["default"].calls)}
    assert {1e-5 < each.allowed_abs_logit < 1e-2 for each in timed if each.runtime != "torch-cpu-bf16"} == {True}  # derived
    assert len(set(found.started)) == len(found.started) == rounds * arms  # the order of the starts is kept as well
    assert len({tuple(each.partition(":")[2] for each in found.started[at : at + arms]) for at in range(0, rounds * arms, arms)}) > 1
    assert {each.golden for each in jobs if each.runtime == "onnxruntime-cpu"} == {str(exported_copy.exports / "onnx-fp32/golden.npz")}


def test_arms_are_every_artifact_runtime_number_of_threads_and_batch(exported, in_process):
    in_process(lambda job: round_of([1000] * 20))
    options = Options(preset="quick", batch=(1, 8), threads=(1, 2))
    found = verb.bench(exported, runtimes=["onnxruntime-cpu"], options=options)
    assert [arm.id for arm in found.arms] == [
        "onnx-fp32:onnxruntime-cpu 1 thread", "onnx-fp32:onnxruntime-cpu 1 thread batch 8", "onnx-fp32:onnxruntime-cpu 2 threads",
        "onnx-fp32:onnxruntime-cpu 2 threads batch 8",
    ]  # fmt: skip


def test_the_figures_can_be_computed_again_from_the_samples_in_the_report(exported_copy, in_process):
    random = np.random.default_rng(0)
    in_process(lambda job: round_of(random.integers(10**6, 10**7, 100).tolist(), max(0, job.number)))
    found = verb.bench(exported_copy, runtimes=["null"], options=Options())
    path = exported_copy.reports / room.REPORT
    arm = json.loads(path.read_text(encoding="utf-8"))["arms"][0]
    samples = np.array([each["samples_ns"] for each in arm["rounds"]])  # (rounds, 100 calls)
    assert samples.shape == (PRESETS["default"].rounds, 100)
    assert arm["figures"]["p50_ms"]["value"] == pytest.approx(gmean(np.median(samples, axis=1)) / 1e6)
    assert arm["figures"]["p90_ms"] == pytest.approx(np.quantile(samples, 0.9) / 1e6)
    assert room.read(path) == found


@pytest.mark.parametrize(("text", "words"), [("{}", "model: is missing"), ("[", "EOF while parsing"), (None, "No such file")])
def test_a_stored_measurement_that_cannot_be_read_is_one_message(tmp_path: Path, text, words):
    if text is not None:
        (tmp_path / "bench.json").write_text(text)
    with pytest.raises(ToolkitError, match=words):
        room.read(tmp_path / "bench.json")


def test_real_rounds_are_kept_with_every_sample_and_the_environment(exported_copy):
    found = verb.bench(exported_copy, runtimes=["null", "onnxruntime-cpu"], options=Options(preset="quick", seed=1))
    assert [(arm.artifact, arm.runtime, arm.error) for arm in found.arms] == [
        ("torch", "null", None),
        ("onnx-fp32", "onnxruntime-cpu", None),
    ]
    assert all(len(each.samples_ns) >= 20 for arm in found.arms for each in arm.rounds)
    assert sorted(found.order) == sorted(f"{n}:{arm.id}" for n in range(2) for arm in found.arms for _ in range(PRESETS["quick"].turns))
    assert found.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.checkpoint_sha256 == Checkpoint.open(exported_copy.checkpoint).card.weights_sha256
    assert found.estimated_s > 0
    assert BenchResult.model_validate_json((exported_copy.reports / room.REPORT).read_bytes()) == found


def test_a_failed_arm_stays_in_the_table_without_figures_and_is_not_tried_again(exported, in_process):
    def answer(job):
        return (
            "was killed by SIGKILL" if job.runtime == "onnxruntime-cpu" and job.number == 1 else round_of([1000] * 50, max(0, job.number))
        )

    jobs = in_process(answer)
    found = verb.bench(exported, runtimes=["torch-cpu", "onnxruntime-cpu"], options=Options())
    by_runtime = {arm.runtime: arm for arm in found.arms if not arm.control}
    assert by_runtime["onnxruntime-cpu"].error == "was killed by SIGKILL"
    assert by_runtime["onnxruntime-cpu"].figures is None
    assert len(by_runtime["onnxruntime-cpu"].rounds) == 1  # what was measured is kept
    assert by_runtime["torch-cpu"].figures.p50_ms.low is not None
    assert sum(each.runtime == "onnxruntime-cpu" for each in jobs) == 1 + 2


def test_an_arm_that_does_not_run_at_all_is_found_out_before_the_first_round(exported, in_process):
    jobs = in_process(lambda job: "no" if job.runtime == "torch-cpu" else round_of([1000] * 50, max(0, job.number)))
    found = verb.bench(exported, runtimes=["torch-cpu", "onnxruntime-cpu"], options=Options())
    assert [arm.error for arm in found.arms] == ["no", "no", None]
    assert sum(each.runtime == "torch-cpu" for each in jobs) == 1


def test_ctrl_c_keeps_what_was_measured_and_says_so(exported_copy, in_process):
    def answer(job):
        if job.number == 3:
            raise KeyboardInterrupt
        return round_of([1000] * 50, max(0, job.number))

    in_process(answer)
    found = verb.bench(exported_copy, runtimes=["null"], options=Options())
    assert found.interrupted
    assert [len(arm.rounds) for arm in found.arms] == [3, 3]
    assert room.read(exported_copy.reports / room.REPORT) == found


def test_after_every_round_the_result_so_far_is_shown_with_the_time_left(exported_copy, in_process):
    in_process(lambda job: round_of([1000] * 50, max(0, job.number)))
    seen = []
    verb.bench(exported_copy, runtimes=["null"], options=QUICK, show=lambda result, words: seen.append((len(result.arms[0].rounds), words)))
    assert [count for count, _ in seen] == [0, 1]  # before a round: while an arm is timed nothing is drawn
    assert re.fullmatch(r"1 of 2 rounds, about \d+ s left", seen[1][1])


def test_with_a_table_on_the_screen_nothing_else_draws_and_without_one_every_round_is_a_line(exported_copy, in_process, capsys):
    """On a terminal a bar that draws itself ten times a second would disturb what is timed, and overwrite the table."""
    in_process(lambda job: round_of([1000] * 50, max(0, job.number)))
    verb.bench(exported_copy, runtimes=["null"], options=QUICK, show=lambda result, words: None)
    assert "rounds, about" not in capsys.readouterr().err
    verb.bench(exported_copy, runtimes=["null"], options=QUICK)
    assert re.findall(r"bench: (\d of 2) rounds, about", capsys.readouterr().err) == ["0 of 2", "1 of 2"]


def test_a_sustained_round_that_cannot_be_kept_is_found_out_before_it_begins(exported_copy, in_process):
    jobs = in_process(lambda job: round_of([100] * 50, max(0, job.number)))
    found = verb.bench(exported_copy, runtimes=["null"], options=Options(scenario="sustained", seconds=3600.0))
    assert "it cannot be measured sustained" in found.arms[0].error
    assert [each.number for each in jobs] == [verb.PILOT]


def test_an_earlier_measurement_is_compared_with_and_a_strange_one_refused_before_anything_runs(exported_copy, in_process, tmp_path: Path):
    in_process(lambda job: round_of([1000 + job.number] * 250, max(0, job.number), wall_ns=3 * 10**9))
    verb.bench(exported_copy, runtimes=["null"], options=Options())
    before = tmp_path / "before.json"
    before.write_bytes((exported_copy.reports / room.REPORT).read_bytes())
    jobs = in_process(lambda job: round_of([2000 + job.number] * 250, max(0, job.number), wall_ns=3 * 10**9))
    found = verb.bench(exported_copy, runtimes=["null"], options=Options(), against=before)
    assert [(each.against, each.verdict) for each in found.verdicts[1:]] == [("torch:null, stored", "slower")]
    text = json.loads(before.read_text())
    text["environment"]["processor"] = "another"
    before.write_text(json.dumps(text))
    jobs.clear()
    with pytest.raises(ToolkitError, match="not comparable: processor"):
        verb.bench(exported_copy, runtimes=["null"], options=Options(), against=before)
    assert jobs == []


def test_what_gives_no_latency_is_skipped_with_its_reason(exported, monkeypatch, in_process):
    in_process(lambda job: round_of([1000]))
    asked, why_not = [], Runtime.why_not
    monkeypatch.setattr(Runtime, "why_not", lambda self: asked.append(self.is_device) or why_not(self))
    found = verb.bench(exported, options=QUICK)
    assert all(asked)  # what is not measured is not imported
    reasons = {(each.runtime, each.artifact): each.reason for each in found.skipped}
    assert "not a device's latencies" in reasons["coreml-reference", "coreml-fp16"]
    assert "not a device's latencies" in reasons["onnx-reference", "onnx-fp32"]
    assert "null" not in {arm.runtime for arm in found.arms}
    if sys.platform != "darwin":
        assert "macOS" in reasons["coreml-ane", "coreml-fp16"]


def test_nothing_measurable_is_an_error_that_lists_the_reasons(exported):
    with pytest.raises(RuntimeUnavailable, match=r"nothing can be measured here:\n  coreml-reference: .*latencies"):
        verb.bench(exported, runtimes=["coreml-reference"])


def test_without_artifacts_the_checkpoint_is_verified_on_noise(trained, tmp_path: Path):
    import shutil

    shutil.copytree(trained.checkpoint, tmp_path / "checkpoint")
    bare = Workspace(tmp_path, trained.recipe)
    with pytest.raises(RuntimeUnavailable, match=r"onnxruntime-cpu: there is no onnx artifact"):
        verb.bench(bare, runtimes=["onnxruntime-cpu"])
    found = verb.bench(bare, runtimes=["torch-cpu"], options=QUICK)
    assert found.arms[0].rounds[0].verified["before"] == 8
    assert found.arms[0].rounds[0].max_abs_logit < 1e-4


def test_an_artifact_that_is_not_there_is_named(exported):
    with pytest.raises(ArtifactError, match=r"'onnx-fp8'.*onnx-fp32"):
        verb.bench(exported, artifacts=["onnx-fp8"])


def test_a_model_file_from_elsewhere_is_timed_and_called_unverified(exported, tmp_path: Path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copy(exported.exports / "onnx-fp32/model.onnx", tmp_path / "theirs.onnx")
    found = room.bench_file(tmp_path / "theirs.onnx", options=Options(preset="quick", batch=(2,)))
    (arm,) = found.arms
    assert (arm.error, arm.artifact, arm.runtime) == (None, "theirs.onnx", "onnxruntime-cpu")
    assert (arm.rounds[0].verified, arm.rounds[0].max_abs_logit, found.checkpoint_sha256) == ({}, None, None)
    assert next(each for each in arm.findings if each.name == "outputs are the golden ones").ok is None
    assert room.read(tmp_path / "theirs.onnx-bench.json") == found


@pytest.mark.parametrize(("name", "runtimes", "words"), [
    ("x.tflite", None, r"is no model file that can be timed; there are \.onnx, \.mlpackage"), ("gone.onnx", None, "there is no file"),
    ("x.mlpackage", None, r"coreml-reference: it computes results on this machine's CPU, not a device's latencies"),
    ("x.onnx", ["torch-cpu"], r"torch-cpu: it does not read \.onnx files"),
])  # fmt: skip
def test_a_file_that_cannot_be_timed_is_one_message(tmp_path: Path, name, runtimes, words):
    if "gone" not in name:
        (tmp_path / name).touch()
    with pytest.raises(ToolkitError, match=words):
        of_file(tmp_path / name, runtimes, QUICK, {})
