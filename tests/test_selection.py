"""Which artifacts a command is about: the checkpoint first, then exports by name, all of one training."""

import json

import pytest

from toolkit.artifact import MANIFEST
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError
from toolkit.selection import artifacts_of


def ids(workspace, names=None):
    return [each.id for each in artifacts_of(workspace, Checkpoint.open(workspace.checkpoint), names)]


def test_all_artifacts_come_in_order_of_name_after_the_checkpoint(exported):
    there = sorted(path.name for path in exported.exports.iterdir())
    assert {"coreml-fp16", "coreml-fp32", "onnx-fp32"} <= set(there)
    assert ids(exported) == ["torch", *there]


def test_a_model_without_exports_has_its_checkpoint(trained, tmp_path):
    from toolkit.workspace import Workspace

    (tmp_path / "checkpoint").symlink_to(trained.checkpoint)
    assert ids(Workspace(tmp_path, trained.recipe)) == ["torch"]


def test_named_artifacts_only(exported):
    assert ids(exported, ["onnx-fp32", "coreml-fp16", "onnx-fp32"]) == ["torch", "coreml-fp16", "onnx-fp32"]


def test_half_written_and_foreign_folders_are_passed_over(exported_copy):
    (exported_copy.exports / "notes").mkdir()
    (exported_copy.exports / "onnx-fp32").rename(exported_copy.exports / ".onnx-fp32.half")
    assert not {"notes", ".onnx-fp32.half", "onnx-fp32"} & set(ids(exported_copy))


@pytest.mark.parametrize("target", ["exports", "nowhere", "checkpoint/checkpoint.json"])
def test_exports_that_cannot_be_listed_are_not_taken_for_none(exported_copy, target):
    """A validation would else replace a better one, as if its artifacts were gone."""
    exported_copy.exports.rename(exported_copy.folder / "moved")
    exported_copy.exports.symlink_to(exported_copy.folder / target)
    with pytest.raises(ArtifactError, match=r"exports cannot be read: (Too many levels|No such file|Not a directory)"):
        ids(exported_copy)


def test_an_artifact_that_links_to_nowhere_is_not_passed_over_in_silence(exported_copy):
    (exported_copy.exports / "onnx-fp32").rename(exported_copy.folder / "moved")
    (exported_copy.exports / "onnx-fp32").symlink_to("nowhere")
    with pytest.raises(ArtifactError, match="onnx-fp32 is no artifact of ours"):
        ids(exported_copy, ["onnx-fp32"])


@pytest.mark.parametrize("name", ["onnx-fp8", "../exports/onnx-fp32", "torch"])
def test_an_unknown_name_lists_the_artifacts_there_are(exported, name):
    with pytest.raises(ArtifactError, match=f"there is no artifact '{name}' in .*; there are: .*coreml-fp32.*onnx-fp32"):
        ids(exported, [name])


def test_an_unknown_name_where_there_is_none_says_so(trained, tmp_path):
    from toolkit.workspace import Workspace

    (tmp_path / "checkpoint").symlink_to(trained.checkpoint)
    with pytest.raises(ArtifactError, match="there are: none"):
        ids(Workspace(tmp_path, trained.recipe), ["onnx-fp32"])


def test_an_artifact_of_another_checkpoint_is_an_error_with_the_command_that_mends_it(exported_copy):
    path = exported_copy.exports / "onnx-fp32" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"checkpoint_sha256": 64 * "0"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"onnx-fp32 was made from another checkpoint \(000000000000\) .*toolkit export --format onnx"):
        ids(exported_copy)
    assert ids(exported_copy, ["coreml-fp16"]) == ["torch", "coreml-fp16"]


def test_every_artifact_is_verified(exported_copy):
    (exported_copy.exports / "onnx-fp32" / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        ids(exported_copy)
