"""The self-test: its arithmetic with a judge made for it, and a handful of faults before the real gate."""

from pathlib import Path

import pytest

from toolkit.checkpoint import sha256_of
from toolkit.errors import ArtifactError, ToolkitError
from toolkit.faults import Planted, SelfTestResult, self_test
from toolkit.faults.selftest import Complaint
from toolkit.workspace import Workspace

FEW = ["stale-checkpoint", "scale-twice", "constant-output", "golden-rolled"]


def unharmed(workspace: Workspace, name: str, exported: Workspace) -> bool:
    def sums(folder: Path) -> dict[str, str]:
        return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}

    return sums(workspace.exports / name) == sums(exported.exports / name)


def test_what_is_caught_is_counted(exported):
    def judge(workspace: Workspace, name: str, limit: int | None, data_dir: Path | None) -> list[Complaint]:
        assert (limit, data_dir, workspace.folder.name) == (7, Path("data"), "tiny")
        if unharmed(workspace, name, exported):
            return []
        if (workspace.exports / name / "golden.npz").read_bytes() != (exported.exports / name / "golden.npz").read_bytes():
            raise ArtifactError("golden.npz is of another model")
        if "5eed" in (workspace.exports / name / "manifest.json").read_text(encoding="utf-8"):
            raise ZeroDivisionError("the gate fell over")
        weights = sha256_of(workspace.exports / name / "model.onnx")
        return [Complaint("logits", f"the scale is applied twice in {weights}"), Complaint("logits", "again")]

    result = self_test(exported, artifacts=["onnx-fp32"], limit=7, data_dir=Path("data"), faults=FEW, judge=judge)
    rows = {row.fault: row for row in result.rows}
    assert list(rows) == FEW
    assert {name: (row.caught, row.named, row.by) for name, row in rows.items()} == {
        "stale-checkpoint": (False, False, "crash"),  # falling over is no diagnosis
        "scale-twice": (True, True, "logits"),
        "constant-output": (True, False, "logits"),
        "golden-rolled": (True, True, "ArtifactError"),
    }
    assert result.kill_rate == 3 / 4
    assert (result.model, result.not_applicable) == ("tiny", [])
    assert rows["scale-twice"].said.endswith(" | again")
    assert SelfTestResult.model_validate_json(result.model_dump_json()) == result


def test_a_gate_that_passes_everything_kills_nothing(exported):
    result = self_test(exported, artifacts=["coreml-fp16"], faults=[*FEW, "residual-dropped"], judge=lambda *_: [])
    assert result.kill_rate == 0
    assert [(each.fault, each.reason) for each in result.not_applicable] == [("residual-dropped", "the network has no add")]


def test_a_gate_that_fails_everything_is_no_gate(exported):
    with pytest.raises(ToolkitError, match="the gate fails on an unharmed copy of onnx-fp32, so what it catches means nothing: any: no"):
        self_test(exported, artifacts=["onnx-fp32"], faults=FEW, judge=lambda *_: [Complaint("any", "no")])


def test_a_debugger_may_name_what_the_gate_does_not(exported):
    seen = []

    def diagnose(workspace: Workspace, name: str, planted: Planted) -> str | None:
        seen.append((workspace.folder.name, name, planted.where))
        return f"the first wrong op is {planted.where}" if planted.where != "model" else None

    def judge(workspace: Workspace, name: str, limit: int | None, data_dir: Path | None) -> list[Complaint]:
        return [] if unharmed(workspace, name, exported) else [Complaint("gate", "something is wrong")]

    faults = ["scale-twice", "another-model-name"]
    result = self_test(exported, artifacts=["onnx-fp32"], faults=faults, judge=judge, diagnose=diagnose)
    assert [(row.named, row.said) for row in result.rows] == [
        (True, "the first wrong op is sub_1 | something is wrong"),
        (False, "something is wrong"),
    ]
    assert seen == [("tiny", "onnx-fp32", "sub_1"), ("tiny", "onnx-fp32", "model")]


def test_the_workspace_itself_is_left_alone(exported):
    before = {path: sha256_of(path) for path in exported.folder.rglob("*") if path.is_file()}
    self_test(exported, artifacts=["coreml-fp32"], faults=FEW, judge=lambda *_: [])
    assert before == {path: sha256_of(path) for path in exported.folder.rglob("*") if path.is_file()}


def test_unknown_names_are_refused(exported, fresh):
    with pytest.raises(ToolkitError, match="there is no fault 'gremlin'; there are truncated-file, "):
        self_test(exported, faults=["gremlin"], judge=lambda *_: [])
    with pytest.raises(ArtifactError, match=r"no artifact coreml-int4 in .*; there are: .*onnx-fp32"):
        self_test(exported, artifacts=["coreml-int4"], judge=lambda *_: [])


def test_the_real_gate_catches_a_handful(exported):
    """One fault of each stage. Few images: what is asked is whether anything is caught at all."""
    faults = ["truncated-file", "labels-swapped-in-manifest", "mean-wrong", "channel-sign", "softmax-twice", "golden-rolled"]
    result = self_test(exported, artifacts=["onnx-fp32"], limit=20, faults=faults)
    assert {row.fault: row.caught for row in result.rows} == dict.fromkeys(faults, True)
    assert result.kill_rate == 1
