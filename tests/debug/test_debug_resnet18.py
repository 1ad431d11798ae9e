"""The network that ships: residual branches, fifty layers. Complete and silent where it is good; faults in branches are named."""

import shutil
from importlib.util import find_spec

import pytest
import torch

from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.data import load
from toolkit.debug import debug
from toolkit.export import Options, export
from toolkit.faults import FAULTS
from toolkit.networks import build
from toolkit.recipe import Recipe
from toolkit.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("debug-resnet18")]
LAYERS = {"coreml-fp16": 51, "coreml-fp32": 51, "onnx-fp32": 51} | ({"coreai-fp32": 51} if find_spec("coreai_torch") else {})


@pytest.fixture(scope="module")
def resnet(trained, tmp_path_factory) -> Workspace:
    """Untrained, with batch-norm statistics of real images."""
    folder = tmp_path_factory.mktemp("resnet") / "tiny"
    folder.mkdir()
    shutil.copy(trained.recipe, folder / "recipe.toml")
    workspace = Workspace(folder, folder / "recipe.toml")
    recipe, data = Recipe.read(trained.recipe, ['network.builder="resnet18"']), load("digits")
    torch.manual_seed(0)
    model = build(recipe, 10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(data.train_images[:32].float())
    workspace.checkpoint.mkdir()
    card = {
        "recipe": recipe.model_dump(mode="json"), "recipe_hash": recipe.hash, "seed": 0, "class_labels": list(data.classes),
        "input_shape": (1, 28, 28), "device": "cpu", "finished": True, "epochs_done": 1.0, "metrics": {}, "versions": {},
    }  # fmt: skip
    write_checkpoint(workspace.checkpoint, model.state_dict(), card, None)
    export(workspace, ["coreml", "onnx", *(["coreai"] if find_spec("coreai_torch") else [])], Options())
    export(workspace, ["coreml"], Options(precision="fp32"))
    return workspace


@pytest.mark.parametrize("name", LAYERS)
def test_a_good_file_agrees_layer_by_layer(resnet, name):
    result = debug(resnet, name, images=4)
    assert (result.agrees, result.kind, result.culprit) == (True, "agreement", None)
    judged = [layer for layer in result.layers if layer.reference is not None]
    assert len(judged) >= LAYERS[name]
    assert max(layer.own / layer.band for layer in judged) < 0.5
    branches = {f"network.layer{stage}.{block}.bn{norm}" for stage in (1, 2, 3, 4) for block in (0, 1) for norm in (1, 2)}
    assert {layer.module for layer in judged} >= branches | {f"network.layer{stage}.0.downsample.1" for stage in (2, 3, 4)}


@pytest.mark.parametrize("artifact", ["coreml-fp16", "onnx-fp32"])
@pytest.mark.parametrize("fault", ["weights-1-percent", "residual-dropped", "residual-of-itself", "strides-swapped", "layers-exchanged"])
def test_a_fault_in_a_residual_network_is_named(resnet, tmp_path, fault, artifact):
    folder = tmp_path / "tiny"
    shutil.copytree(resnet.folder, folder, ignore=shutil.ignore_patterns(".cache", "reports"))
    workspace = Workspace(folder, folder / "recipe.toml")
    where = FAULTS[fault].plant(workspace.exports / artifact, Checkpoint.open(workspace.checkpoint))
    result = debug(workspace, artifact, images=3)
    assert not result.agrees
    assert result.culprit.name == where.where
