"""A release folder proves itself, wherever it is copied to; whatever was touched since is found."""

import json
import shutil
from functools import partial

import pytest

from tests.validation.conftest import cli, sign
from toolkit.errors import ToolkitError
from toolkit.validation import verify

here = partial(verify, isolate=False)  # a process for each file is what tests/validation/test_run.py is about


@pytest.fixture(scope="module")
def validated(exported, tmp_path_factory):
    from toolkit.validation import validate
    from toolkit.workspace import Workspace

    folder = tmp_path_factory.mktemp("release") / "tiny"
    shutil.copytree(exported.folder, folder)
    assert validate(Workspace(folder, folder / "recipe.toml"), isolate=False).passed
    return folder


@pytest.fixture
def release(validated, tmp_path):
    shutil.copytree(validated, tmp_path / "copied", ignore=shutil.ignore_patterns(".cache"))
    return tmp_path / "copied"


def wrong(result) -> list[tuple[str, str]]:
    return [(check.artifact, check.name) for check in result.checks if not check.passed]


def test_an_untouched_copy_passes(release, in_process, capsys):
    result = here(release)
    assert wrong(result) == []
    assert result.passed
    assert {check.artifact for check in result.checks} >= {"report", "checkpoint", "data", "coreml-fp16", "coreml-fp32", "onnx-fp32"}
    assert any(check.name == "golden logits on onnxruntime-cpu" for check in result.checks)
    assert cli("verify", str(release)) == 0
    assert "PASSED" in capsys.readouterr().out


def test_a_changed_file_is_found(release, in_process):
    (path,) = (release / "exports" / "coreml-fp16").rglob("weight.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert wrong(here(release)) == [("coreml-fp16", "files are whole")]
    assert cli("verify", str(release)) == 1


def test_a_changed_file_that_was_signed_again_is_found(release):
    """Whoever edits the manifest as well has still not validated it."""
    (path,) = (release / "exports" / "onnx-fp32").glob("model.onnx")
    path.write_bytes(path.read_bytes() + b"")
    model = bytearray(path.read_bytes())
    model[-1] ^= 1
    path.write_bytes(bytes(model))
    sign(release / "exports" / "onnx-fp32")
    assert ("onnx-fp32", "files are those that were validated") in wrong(here(release))


def test_an_artifact_that_nobody_validated_is_found(release):
    shutil.copytree(release / "exports" / "onnx-fp32", release / "exports" / "onnx-new")
    assert wrong(here(release)) == [("onnx-new", "was validated")]


def test_a_missing_artifact_is_found(release):
    shutil.rmtree(release / "exports" / "onnx-fp32")
    assert wrong(here(release)) == [("onnx-fp32", "is there")]


def test_a_name_in_the_evidence_leads_nowhere_else(release, tmp_path):
    shutil.move(release / "exports" / "onnx-fp32", tmp_path / "outside")
    path = release / "reports" / "evidence.json"
    text = path.read_text(encoding="utf-8").replace('"onnx-fp32"', '"../../outside"')
    path.write_text(text, encoding="utf-8")
    assert ("../../outside", "is there") in wrong(here(release))


def test_a_report_of_another_kind_is_one_failed_check(release):
    from toolkit.checkpoint import sha256_of

    report, path = release / "reports" / "validation.json", release / "reports" / "evidence.json"
    report.write_text('{"schema_version": 1}', encoding="utf-8")
    evidence = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(evidence | {"report_sha256": sha256_of(report)}), encoding="utf-8")
    assert wrong(here(release)) == [("report", "can be read")]


def test_another_report_is_found(release):
    path = release / "reports" / "validation.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(report | {"seed": 7}), encoding="utf-8")
    assert wrong(here(release)) == [("report", "sha256 of the report")]


def test_another_checkpoint_is_found(release):
    path = release / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    result = here(release)
    assert ("checkpoint", "can be read") in wrong(result)


def test_a_validation_that_had_failed_is_no_evidence(release):
    path = release / "reports" / "evidence.json"
    evidence = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(evidence | {"passed": False}), encoding="utf-8")
    assert wrong(here(release)) == [("report", "validation had passed")]


def test_other_data_is_found_and_missing_data_is_said_to_be_missing(release, tmp_path):
    path = release / "reports" / "evidence.json"
    evidence = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(evidence | {"data_sha256": "0" * 64}), encoding="utf-8")
    assert ("data", "sha256 of the test set") in wrong(here(release))
    path.write_text(json.dumps(evidence | {"dataset": "mnist"}), encoding="utf-8")
    result = here(release, data_dir=tmp_path / "empty")
    assert any("MNIST is not in" in line for line in result.not_checked)


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"schema_version": 99}'])
def test_without_usable_evidence_there_is_one_message(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "evidence.json").write_text(content, encoding="utf-8")
    with pytest.raises(ToolkitError, match=r"toolkit validate|Validate again"):
        verify(tmp_path)
    assert cli("verify", str(tmp_path)) == 2
    assert "Traceback" not in capsys.readouterr().err


def forge(release, name, change):
    """Someone edits a JSON file of the release, and signs what can be signed."""
    from toolkit.checkpoint import sha256_of

    path, evidence = release / name, release / "reports" / "evidence.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    if path != evidence:
        signed = json.loads(evidence.read_text(encoding="utf-8"))
        evidence.write_text(json.dumps(signed | {"report_sha256": sha256_of(release / "reports" / "validation.json")}), encoding="utf-8")


def test_another_manifest_is_found(release):
    """Labels swapped, compression claimed: no file of the model changes."""
    path = release / "exports" / "onnx-fp32" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["class_labels"][:2] = manifest["class_labels"][1::-1]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert ("onnx-fp32", "files are those that were validated") in wrong(here(release))


def test_what_the_evidence_repeats_is_taken_from_the_report(release):
    def fail(report):
        report["checks"][0]["passed"] = False

    forge(release, "reports/validation.json", fail)
    assert wrong(here(release)) == [("report", "validation had passed")]


def test_an_artifact_that_was_taken_out_of_the_evidence_is_missed(release):
    shutil.rmtree(release / "exports" / "onnx-fp32")
    forge(release, "reports/evidence.json", lambda evidence: evidence["artifacts"].pop("onnx-fp32"))
    assert wrong(here(release)) == [("report", "artifacts")]


def test_a_part_of_the_test_set_is_found_in_the_report(release):
    forge(release, "reports/validation.json", lambda report: [row.update(images=20) for row in report["rows"]])
    forge(release, "reports/evidence.json", lambda evidence: evidence.update(images=dict.fromkeys(evidence["images"], 20)))
    assert ("report", "validated on") in wrong(here(release))


def test_a_model_is_verified_by_its_name(release, in_process, monkeypatch, capsys):
    monkeypatch.setenv("TOOLKIT_MODELS", str(release.parent))
    assert cli("verify", "copied") == 0
    assert "PASSED" in capsys.readouterr().out
    assert cli("verify", "nobody") == 2
