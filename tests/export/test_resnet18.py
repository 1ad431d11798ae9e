"""The network that ships, through every format: untrained, but with statistics and logits that are not degenerate."""

import copy
from importlib.util import find_spec

import pytest
import torch

from toolkit.artifact import Artifact
from toolkit.checkpoint import write_checkpoint
from toolkit.data import load
from toolkit.export import Options, export
from toolkit.networks import build
from toolkit.recipe import Recipe
from toolkit.runtimes import RUNTIMES
from toolkit.workspace import Workspace

FORMATS = ["coreml", "onnx", *(["coreai"] if find_spec("coreai_torch") else [])]

pytestmark = pytest.mark.xdist_group("resnet18")  # one checkpoint, made once


@pytest.fixture(scope="module")
def resnet(trained, tmp_path_factory):
    """A checkpoint of ResNet18: batch-norm statistics of a batch of images, logits that differ from image to image."""
    folder = tmp_path_factory.mktemp("resnet") / "tiny"
    folder.mkdir()
    workspace = Workspace(folder, trained.recipe)
    recipe = Recipe.read(trained.recipe, ['network.builder="resnet18"'])
    data = load("digits")
    torch.manual_seed(0)
    model = build(recipe, 10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the last batch
    with torch.no_grad():
        model.train()(data.train_images[:32].float())
        model.network.fc.weight *= 2 / model.eval()(data.train_images[32:64].float()).std(0).mean()
    workspace.checkpoint.mkdir()
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": 0, "class_labels": list(data.classes),
        "input_shape": (1, 28, 28), "device": "cpu", "finished": True, "epochs_done": 1.0, "metrics": {}, "versions": {},
    }  # fmt: skip
    write_checkpoint(workspace.checkpoint, model.state_dict(), card, None)
    return workspace, copy.deepcopy(model).double()


def test_every_format_computes_what_float64_pytorch_computes(resnet):
    workspace, model = resnet
    images = load("digits").test_images[:3]
    with torch.inference_mode():
        expected = model(images.double()).numpy()
    assert expected.std(0).min() > 0.5  # not one answer for everything
    for result in export(workspace, FORMATS, Options()):
        artifact = Artifact.open(result.folder)
        assert artifact.manifest.notes[1:] == []  # the first route, proved here
        reader = {"coreml": "coreml-reference", "onnx": "onnxruntime-cpu", "coreai": "coreai"}[result.format]
        session = RUNTIMES[reader].open(artifact)
        found = session({"image": images.numpy().astype("float32")})["logits"]
        session.close()
        assert abs(found - expected).max() < {"fp16": 0.1, "fp32": 1e-3}[result.precision]


def test_the_torchscript_route_computes_it_too(resnet, monkeypatch):
    from toolkit.export import onnx as onnx_room

    def fail(_source):
        raise RuntimeError("not today")

    monkeypatch.setitem(onnx_room.ROUTES, "dynamo", fail)
    (result,) = export(resnet[0], ["onnx"], Options())
    assert result.golden_max_abs_logit < 1e-3
    assert Artifact.open(result.folder).manifest.notes[0] == "made by route torchscript"
