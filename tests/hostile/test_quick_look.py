"""Kind 10: a quick look destroys no evidence, and no page is green over what nobody validated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.forged import onnx_bias, sha256
from toolkit.errors import ArtifactError
from toolkit.report import report
from toolkit.validation import ValidationResult, digest_of_last, validate, verify
from toolkit.workspace import Workspace

BOTH = ["torch-cpu", "onnxruntime-cpu", "coreml-reference"]


@pytest.fixture(scope="module")
def whole(exported: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validated model with two artifacts, on the runtimes of BOTH. Shared: copy it."""
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    shutil.copytree(exported.folder, folder, ignore=shutil.ignore_patterns("reports", "coreai-*", "coreml-fp32"))
    assert validate(Workspace(folder, folder / "recipe.toml"), runtimes=BOTH, isolate=False).passed
    return folder


@pytest.fixture
def kept(whole: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(whole, tmp_path / "tiny")
    return Workspace(tmp_path / "tiny", tmp_path / "tiny/recipe.toml")


def reports(workspace: Workspace) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(workspace.reports.iterdir())}


def look(workspace: Workspace, **options: Any) -> ValidationResult:
    return validate(workspace, isolate=False, **{"runtimes": BOTH, **options})


LESSER: dict[str, dict[str, Any]] = {
    "fewer images": {"limit": 20}, "fewer artifacts": {"artifacts": ["onnx-fp32"]}, "fewer runtimes": {"runtimes": BOTH[:2]},
    "all of these": {"limit": 20, "artifacts": ["onnx-fp32"], "runtimes": BOTH[1:2]},
}  # fmt: skip


@pytest.mark.parametrize("options", LESSER.values(), ids=LESSER)
def test_a_lesser_validation_goes_beside_a_better_one(options: dict[str, Any], kept: Workspace, capsys: pytest.CaptureFixture[str]):
    before = reports(kept)
    look(kept, **options)
    after = reports(kept)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"validation-partial.json", "evidence-partial.json"}
    said = capsys.readouterr().err
    assert "validation.json stays as it is: it compared" in said
    assert "This validation goes to" in said
    assert verify(kept.folder, isolate=False).passed
    look(kept, **options)  # the same look again takes the same place
    assert reports(kept).keys() == after.keys()


def test_a_lesser_one_does_not_replace_a_better_lesser_one_either(kept: Workspace):
    look(kept, artifacts=["onnx-fp32"])
    better = reports(kept)
    look(kept, artifacts=["onnx-fp32"], limit=20)
    after = reports(kept)
    assert {name: after[name] for name in better} == better
    assert "validation-partial-2.json" in after


@pytest.mark.parametrize("name", ["validation-partial.json", "evidence-partial.json"])
def test_a_place_that_is_a_link_is_passed_over_and_found_before_half_is_written(kept: Workspace, tmp_path: Path, name: str):
    letter = tmp_path / "letter.txt"
    letter.write_text("the user's own", encoding="utf-8")
    (kept.reports / name).symlink_to(letter)
    before = reports(kept)
    look(kept, limit=20)
    assert reports(kept).keys() - before.keys() == {"validation-partial-2.json", "evidence-partial-2.json"}
    assert letter.read_text(encoding="utf-8") == "the user's own"


def test_exports_on_a_disk_that_is_not_there_do_not_cost_the_evidence(kept: Workspace):
    kept.exports.rename(kept.folder / "moved")
    kept.exports.symlink_to("nowhere")
    before = reports(kept)
    with pytest.raises(ArtifactError, match="exports cannot be read"):
        look(kept)
    assert reports(kept) == before


def test_an_artifact_that_links_to_nowhere_is_no_pass(kept: Workspace):
    (kept.exports / "onnx-fp32").rename(kept.folder / "moved")
    (kept.exports / "onnx-fp32").symlink_to("nowhere")
    assert not look(kept).passed


def test_one_that_compares_as_much_replaces_it(kept: Workspace):
    before = reports(kept)
    look(kept)
    after = reports(kept)
    assert after.keys() == before.keys()
    assert after["validation.json"] != before["validation.json"]  # its seconds are others


def test_a_runtime_that_was_asked_and_gave_no_answer_counts_as_asked(kept: Workspace, monkeypatch: pytest.MonkeyPatch):
    """Or a validation that fails would go beside the one that passed, which the page shows."""
    from toolkit.runtimes.onnxruntime import OnnxSession

    monkeypatch.setattr(OnnxSession, "__call__", lambda *_: {})
    assert not look(kept, cache=False).passed
    assert not json.loads((kept.reports / "evidence.json").read_text())["passed"]
    assert "validation-partial.json" not in reports(kept)


def _another_file(workspace: Workspace) -> None:
    from tests.validation.conftest import sign

    onnx_bias(workspace.folder, 1e-7)
    sign(workspace.exports / "onnx-fp32")


def _gates(workspace: Workspace) -> None:
    workspace.recipe.write_text(workspace.recipe.read_text() + "[gates.fp32]\nmax_changed = 1\n")


CHANGES: dict[str, tuple[Callable[[Workspace], object], dict[str, Any], str]] = {
    "a file": (_another_file, {"artifacts": ["onnx-fp32"]}, "onnx-fp32: not validated: its files were changed since the validation"),
    "the gates": (_gates, {"limit": 20}, "recipe.toml, which holds the gates, was changed since the validation"),
    "an artifact that was not there": (
        lambda each: shutil.copytree(each.exports / "onnx-fp32", each.exports / "onnx-new"), {}, "onnx-new: not validated"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "options", "says"), CHANGES.values(), ids=CHANGES)
def test_a_page_is_not_green_over_what_was_not_validated(
    change: Callable[[Workspace], object], options: dict[str, Any], says: str, kept: Workspace
):
    def verdict() -> str:
        text: str = report(kept).markdown.read_text(encoding="utf-8")
        return text

    assert "NOT VALIDATED AS IT IS" not in verdict()
    change(kept)
    page = verdict()
    assert "NOT VALIDATED AS IT IS" in page
    assert says.split(": ", 1)[-1] in page


def test_what_was_validated_before_its_files_changed_is_replaced_where_the_rest_is_covered(kept: Workspace):
    _another_file(kept)
    look(kept)
    assert "validation-partial.json" not in reports(kept)
    assert verify(kept.folder, isolate=False).passed


def test_other_gates_make_an_earlier_validation_one_of_another_recipe(kept: Workspace):
    _gates(kept)
    look(kept, limit=20)
    assert "validation-partial.json" not in reports(kept)


@pytest.mark.parametrize("name", ["validation.json", "evidence.json"])
def test_what_cannot_be_read_is_replaced_by_a_whole_validation_only(name: str, kept: Workspace):
    """It may be of a newer toolkit; and a user who was told to validate again must be able to."""
    (kept.reports / name).write_text('{"schema_version": 99}', encoding="utf-8")
    before = reports(kept)
    assert digest_of_last(kept, look(kept, limit=20)) is None
    assert {key: value for key, value in reports(kept).items() if key in before} == before
    validate(kept, isolate=False)
    assert reports(kept)[name] != before[name]
    assert verify(kept.folder, isolate=False).passed


def test_a_failed_look_at_the_same_files_is_seen_on_the_page(kept: Workspace, monkeypatch: pytest.MonkeyPatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    monkeypatch.setattr(OnnxSession, "__call__", lambda *_: {})
    look(kept, cache=False, artifacts=["onnx-fp32"], limit=20)
    monkeypatch.undo()
    assert "validation-partial.json: another validation of the same files failed" in report(kept).markdown.read_text(encoding="utf-8")


def test_the_digest_is_said_of_what_is_evidence_only(kept: Workspace, capsys: pytest.CaptureFixture[str]):
    assert digest_of_last(kept, look(kept)) == sha256(kept.reports / "evidence.json")
    assert digest_of_last(kept, look(kept, limit=20)) is None


def test_debug_goes_on_with_the_better_one_and_says_where_files_have_changed(kept: Workspace):
    from toolkit.debug import debug

    look(kept, limit=20)
    said: list[str] = []
    assert debug(kept, "onnx-fp32", images=2, tell=said.append).compared > 64
    assert said == []
    _another_file(kept)
    debug(kept, "onnx-fp32", images=2, tell=said.append)
    assert any("files were changed since" in line for line in said)
