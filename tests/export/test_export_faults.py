"""What export does when something is wrong: it says so, takes the other route if there is one, and leaves what was there."""

import importlib.util
import json
import os
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from toolkit.artifact import MANIFEST, Artifact
from toolkit.checkpoint import CARD
from toolkit.errors import CheckpointError, ExportError
from toolkit.export import EXPORTERS, Options, export
from toolkit.export import onnx as onnx_room
from toolkit.networks import NETWORKS
from toolkit.runtimes import RUNTIMES
from toolkit.workspace import Workspace


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """small-cnn with its adaptive pooling written as a fixed one (the same on 8×8), which the TorchScript route can export."""
    real = NETWORKS["small-cnn"]

    def build(classes: int, channels: int) -> nn.Module:
        layers = list(real(classes, channels))  # type: ignore[call-overload]
        return nn.Sequential(*(nn.AvgPool2d(4) if isinstance(layer, nn.AdaptiveAvgPool2d) else layer for layer in layers))

    monkeypatch.setitem(NETWORKS, "small-cnn", build)


def off_by_one_percent(route: Any) -> Any:
    """A converter that makes one weight of the first convolution 1 % larger."""

    def convert(source: Any) -> Any:
        model = route(source)
        kernel = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [16, 1, 3, 3])
        values = onnx.numpy_helper.to_array(kernel).copy()
        values[np.unravel_index(np.abs(values).argmax(), values.shape)] *= 1.01
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
        return model

    return convert


def baked_batch(route: Any) -> Any:
    """A converter that writes its example's batch size, 2, into the file."""

    def convert(source: Any) -> Any:
        model = route(source)
        for value in [*model.graph.input, *model.graph.output]:
            value.type.tensor_type.shape.dim[0].dim_value = 2
        del model.graph.value_info[:]
        return model

    return convert


def hidden(workspace: Workspace) -> list[str]:
    return [path.name for path in workspace.exports.iterdir() if path.name.startswith(".")] if workspace.exports.exists() else []


@pytest.mark.parametrize("fault", [off_by_one_percent, baked_batch])
def test_a_wrong_conversion_is_said_and_the_other_route_taken(trained_copy, pooled, monkeypatch, capsys, truth, fault):
    monkeypatch.setitem(onnx_room.ROUTES, "dynamo", fault(onnx_room.ROUTES["dynamo"]))
    (result,) = export(trained_copy, ["onnx"], Options())
    assert result.golden_max_abs_logit < 1e-3
    notes = Artifact.open(result.folder).manifest.notes
    assert notes[0] == "made by route torchscript"
    assert notes[1].startswith("route dynamo: ")
    if fault is off_by_one_percent:
        assert "does not compute what PyTorch computes: max |Δ logit|" in notes[1]
    else:
        assert "onnxruntime does not run" in notes[1]
    assert result.notes == notes[1:]
    assert notes[1].splitlines()[0] in capsys.readouterr().err
    images, logits = Artifact.open(result.folder).golden()
    session = RUNTIMES["onnxruntime-cpu"].open(Artifact.open(result.folder))
    assert np.abs(session({"image": images[:7]})["logits"] - truth(images[:7])).max() < 1e-3
    np.testing.assert_allclose(logits, truth(images), atol=1e-12)


def test_when_every_route_is_wrong_the_old_artifact_stays(exported_copy, pooled, monkeypatch):
    folder = exported_copy.exports / "onnx-fp32"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for route, convert in dict(onnx_room.ROUTES).items():
        monkeypatch.setitem(onnx_room.ROUTES, route, off_by_one_percent(convert))
    with pytest.raises(ExportError, match=r"onnx-fp32 was not written: route dynamo: .*; route torchscript: .*max .Δ logit") as caught:
        export(exported_copy, ["onnx"], Options())
    assert "layers in fp32 round off about" in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert hidden(exported_copy) == []


def test_a_failed_first_export_leaves_nothing(trained_copy, monkeypatch):
    def fail(_source: Any) -> Any:
        raise RuntimeError("no such operator")

    for route in onnx_room.ROUTES:
        monkeypatch.setitem(onnx_room.ROUTES, route, fail)
    with pytest.raises(ExportError, match=r"torch\.onnx\.export \(dynamo, torch .*\) failed: no such operator"):
        export(trained_copy, ["onnx"], Options())
    assert list(trained_copy.exports.iterdir()) == []


def test_a_wrong_core_ml_file_is_not_accepted(trained_copy, monkeypatch):
    """The converter is given another model than the one that was trained."""
    from toolkit.export import coreml

    real = coreml.exported

    def other(source: Any, decompositions: Any) -> Any:
        with torch.no_grad():
            source.model.classifier.network[0].weight[0, 0, 1, 1] += 0.5
        return real(source, decompositions)

    monkeypatch.setattr(coreml, "exported", other)
    with pytest.raises(
        ExportError, match=r"coreml-fp16 was not written: .*max \|Δ logit\| .*coreml-reference; allowed .*layers in fp16 round off"
    ):
        export(trained_copy, ["coreml"], Options())
    assert list(trained_copy.exports.iterdir()) == []


def test_logits_that_are_nan_are_not_accepted(trained_copy, monkeypatch):
    from toolkit.runtimes.onnxruntime import OnnxSession

    real = OnnxSession.__call__
    monkeypatch.setattr(OnnxSession, "__call__", lambda self, batch: {**real(self, batch), "logits": np.full((64, 10), np.nan, np.float32)})
    with pytest.raises(ExportError, match=r"max \|Δ logit\| nan"):
        export(trained_copy, ["onnx"], Options())


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        ([], Options(), "give at least one --format: coreml, onnx, coreai"),
        (["tflite"], Options(), "there is no format 'tflite'; there are coreml, onnx, coreai"),
        (["onnx"], Options(precision="fp16"), "onnx is exported in fp32, not in 'fp16'"),
        (["coreml"], Options(precision="int4"), "coreml is exported in fp16 or fp32, not in 'int4'"),
        (["coreml"], Options(input_kind="video"), "--input 'video' is neither image nor tensor"),
        (["coreml"], Options(minimum_target="iOS9"), "--target 'iOS9' is not one of iOS15, iOS16, iOS17, iOS18"),
        (["onnx"], Options(minimum_target="iOS17"), "--target iOS17 is for Core ML files only"),
        (["coreml", "tflite"], Options(), "there is no format 'tflite'"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_done(trained_copy, formats, options, message):
    with pytest.raises(ExportError, match=message):
        export(trained_copy, formats, options)
    assert not trained_copy.exports.exists()


def test_without_a_checkpoint(fresh):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .* Train one first: toolkit train"):
        export(fresh, ["onnx"], Options())
    assert not fresh.exports.exists()


def test_without_coreai_it_says_how_to_get_it(trained_copy, monkeypatch):
    real = importlib.util.find_spec
    for module in ("toolkit.export.coreai", "toolkit.runtimes.coreai"):
        importlib.import_module(module)
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None if name.startswith("coreai") else real(name))
    with pytest.raises(ExportError, match=r"not installed\. Install it with: pip install 'apple-deployment-toolkit\[coreai\]'"):
        export(trained_copy, ["coreai"], Options())
    assert list(trained_copy.exports.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("coreai_torch") is None, reason="the coreai extra is not installed")
def test_core_ai_is_proved_by_apples_own_runtime(trained_copy, capsys):
    (result,) = export(trained_copy, ["coreai"], Options())
    assert result.golden_max_abs_logit < 1e-3
    assert result.notes == []
    assert capsys.readouterr().out == ""  # the converter's own lines are no result


def test_what_could_not_be_proved_here_says_so_in_its_manifest(trained_copy, monkeypatch):
    monkeypatch.setattr("toolkit.runtimes.onnxruntime.why_not", lambda provider: "no CPU is here")
    (result,) = export(trained_copy, ["onnx"], Options())
    assert result.golden_max_abs_logit is None
    assert result.notes == ["not run here before it was accepted: onnxruntime-cpu cannot run here: no CPU is here"]
    assert Artifact.open(result.folder).manifest.notes[1:] == result.notes


def test_an_unfinished_checkpoint_is_exported_with_a_note(trained_copy, capsys):
    path = trained_copy.checkpoint / CARD
    card = json.loads(path.read_text(encoding="utf-8"))
    card |= {"finished": False, "epochs_done": 1.5, "metrics": {"train_loss": 1.0}}
    path.write_text(json.dumps(card), encoding="utf-8")
    (result,) = export(trained_copy, ["onnx"], Options())
    manifest = Artifact.open(result.folder).manifest
    assert "training had not finished (1.50 of 3 epochs)" in manifest.notes
    assert "training had not finished" in capsys.readouterr().err
    assert manifest.test_accuracy is None
    props = {entry.key: entry.value for entry in onnx.load(result.folder / "model.onnx").metadata_props}
    assert props["test_accuracy"] == "not measured"


def test_what_a_converter_puts_into_the_environment_leads_nowhere_afterwards(trained_copy, monkeypatch):
    """torch names its cache there, and a worker of the next format would make that folder again, after it was removed."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    export(trained_copy, ["onnx", "coreml"], Options())
    assert [name for name, value in os.environ.items() if str(trained_copy.exports) in value] == []
    assert [path for path in trained_copy.exports.iterdir() if path.name.startswith(".")] == []


def test_the_size_is_that_of_what_ships(exported_copy):
    (result,) = export(exported_copy, ["coreml"], Options())
    files = [path for path in (result.folder / "model.mlpackage").rglob("*") if path.is_file()]
    assert result.size_bytes == sum(len(path.read_bytes()) for path in files)


def test_exporting_again_replaces_the_artifact_whole(exported_copy):
    stray = exported_copy.exports / "onnx-fp32" / "stray.txt"
    stray.write_text("left behind", encoding="utf-8")
    export(exported_copy, ["onnx"], Options())
    assert not stray.exists()
    assert hidden(exported_copy) == []
    assert json.loads((exported_copy.exports / "onnx-fp32" / MANIFEST).read_text(encoding="utf-8"))["format"] == "onnx"


def test_every_prover_reads_what_its_format_writes():
    assert {name: RUNTIMES[exporter.prover].reads for name, exporter in EXPORTERS.items()} == {name: name for name in EXPORTERS}
