"""Core AI files op by op: good ones are silent, and a layer that was converted from other weights is named."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.debug import debug
from toolkit.debug.program import read
from toolkit.errors import ToolkitError
from toolkit.export import Options, export
from toolkit.faults.fault import sign
from toolkit.writing import replacing_folder

pytestmark = pytest.mark.skipif(find_spec("coreai_torch") is None, reason="coreai-torch is not installed")


def test_a_good_file_agrees_and_every_layer_has_a_value(exported):
    result = debug(exported, "coreai-fp32", images=3)
    assert (result.agrees, result.culprit) == (True, None)
    assert [layer.name for layer in result.layers if layer.reference is None] == []
    assert {layer.module for layer in result.layers} >= {f"network.{number}" for number in (1, 2, 4, 5, 6, 8)}
    assert max(layer.own / layer.band for layer in result.layers) < 0.5
    assert {layer.name for layer in result.layers} >= {"convolution", "convolution_1", "logits", "probabilities"}


def test_all_that_is_written_for_one_op_of_pytorch_is_one_op(exported):
    """Padding, products and bias of a convolution; the weight of the last layer is transposed before it is read."""
    ops = {op.name: op for op in read(Artifact.open(exported.exports / "coreai-fp32"))}
    assert (ops["convolution"].type, ops["convolution"].inputs) == ("conv2d", ("mul",))
    assert (ops["addmm"].type, ops["addmm"].inputs) == ("broadcasting_batch_matmul", ("view",))
    assert (ops["logits"].inputs, ops["probabilities"].inputs) == (("addmm",), ("_softmax",))
    assert next(iter(ops.values())).inputs == ("image",)


@pytest.mark.parametrize(("weight", "culprit", "module"), [
    ("network.3.weight", "convolution_1", "network.4"), ("network.8.bias", "addmm", "network.8"),
])  # fmt: skip
def test_a_layer_of_other_weights_is_named(exported_copy, weight, culprit, module):
    """The file is made from a checkpoint that is spoilt; then the checkpoint and the golden outputs are put back."""
    folder = exported_copy.exports / "coreai-fp32"
    golden = (folder / "golden.npz").read_bytes()
    shutil.copytree(exported_copy.checkpoint, exported_copy.folder / "good")
    checkpoint = Checkpoint.open(exported_copy.checkpoint)
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights().items()}
    weights[weight] *= 1.01
    with replacing_folder(exported_copy.checkpoint, exported_copy.folder) as spoilt:
        write_checkpoint(spoilt, weights, checkpoint.card.model_dump(exclude={"weights_sha256", "schema_version"}), None)
    export(exported_copy, ["coreai"], Options())
    shutil.rmtree(exported_copy.checkpoint)
    (exported_copy.folder / "good").rename(exported_copy.checkpoint)
    (folder / "golden.npz").write_bytes(golden)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["checkpoint_sha256"] = checkpoint.card.weights_sha256  # a converter's fault, and not a stale export
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sign(folder)
    result = debug(exported_copy, "coreai-fp32", images=3)
    assert (result.culprit.name, result.culprit.module, result.kind) == (culprit, module, "constant")
    assert [layer.name for layer in result.layers if not layer.inside] in ([culprit], [culprit, "logits"])


def test_a_beta_that_lacks_what_is_needed_is_said(exported, monkeypatch):
    from coreai.authoring import AIModelAsset

    monkeypatch.delattr(AIModelAsset, "_write_odix")
    with pytest.raises(ToolkitError, match="_write_odix"):
        debug(exported, "coreai-fp32", images=1)


def test_without_coreai_torch_it_is_said_what_to_install(exported, monkeypatch):
    monkeypatch.setattr("toolkit.debug.coreai.find_spec", lambda name: None)
    with pytest.raises(ToolkitError, match=r"coreai-torch is not installed: pip install"):
        debug(exported, "coreai-fp32", images=1)


def test_values_that_change_when_they_are_logged_are_refused(exported, monkeypatch):
    from toolkit.runtimes.coreai import CoreAISession

    real = CoreAISession.__call__
    monkeypatch.setattr(CoreAISession, "__call__", lambda self, batch: {"logits": np.flip(real(self, batch)["logits"], 1)})
    with pytest.raises(ToolkitError, match="computes other logits when its values are logged"):
        debug(exported, "coreai-fp32", images=1)
