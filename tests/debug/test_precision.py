"""fp16 that is itself the reason: constants it cannot hold are told from a converter's mistake, and mended by real exports."""

from importlib import import_module

import numpy as np
import pytest

from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.debug import debug, export_repaired
from toolkit.debug.precision import unfit
from toolkit.debug.program import Op
from toolkit.export import Options, export
from toolkit.faults import FAULTS
from toolkit.writing import replacing_folder

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(("scale", "lost"), [(1.0, False), (2.0**-8, False), (2.0**-20, True), (1e6, True)])
def test_constants_that_only_round_fit_and_those_that_lose_digits_or_overflow_do_not(scale, lost):
    exact = WEIGHT * np.float32(scale)
    with np.errstate(over="ignore"):
        stored = [Op(0, "conv", "a_cast_fp16", (), {}, {"weight": exact.astype(np.float16)})]
    found = unfit(stored, [Op(0, "conv", "a", (), {}, {"weight": exact})])
    assert list(found) == (["a_cast_fp16"] if lost else [])


def test_constants_of_zeros_and_those_the_converter_left_in_fp32_fit():
    zeros, small = np.zeros(3, np.float32), np.full(3, 1e-9, np.float32)
    assert unfit([Op(0, "conv", "a", (), {}, {"bias": zeros.astype(np.float16)})], [Op(0, "conv", "a", (), {}, {"bias": zeros})]) == {}
    assert unfit([Op(0, "conv", "a", (), {}, {"bias": small})], [Op(0, "conv", "a", (), {}, {"bias": small})]) == {}


@pytest.mark.parametrize(("bits", "kind", "words"), [(-20, "rounding", "fp16 cannot hold its constants"), (24, "overflow", "Inf or NaN")])
def test_a_network_that_fp16_cannot_hold_is_named_so_and_the_repair_passes_a_real_export(exported_copy, monkeypatch, bits, kind, words):
    """The same function, but its first convolution is 2^bits as large; the second takes it back. No file as it is can be mended."""
    checkpoint = Checkpoint.open(exported_copy.checkpoint)
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights().items()}
    for name in ("network.1.weight", "network.1.bias"):
        weights[name] *= 2.0**bits
    weights["network.3.weight"] *= 2.0**-bits
    with replacing_folder(exported_copy.checkpoint, exported_copy.folder) as folder:
        write_checkpoint(folder, weights, checkpoint.card.model_dump(exclude={"weights_sha256", "schema_version"}), None)
    with monkeypatch.context() as unproved:
        unproved.setattr(import_module("toolkit.export.export"), "_prove", lambda *given: 0.0)
        export(exported_copy, ["coreml"], Options())
    result = debug(exported_copy, "coreml-fp16", images=6)
    assert (result.agrees, result.kind, result.keep_fp32_works) == (False, kind, True)
    assert words in result.explanation
    assert "converter" not in result.explanation
    repaired = export_repaired(exported_copy, Options())
    assert repaired.golden_max_abs_logit < 0.2
    assert debug(exported_copy, "coreml-fp16", images=4).agrees


def test_a_fault_in_a_mixed_precision_file_is_not_hidden_by_its_casts(exported_copy):
    export(exported_copy, ["coreml"], Options(keep_fp32=("relu", "relu_1")))
    assert debug(exported_copy, "coreml-fp16", images=3).agrees
    where = FAULTS["weights-1-percent"].plant(exported_copy.exports / "coreml-fp16", Checkpoint.open(exported_copy.checkpoint))
    result = debug(exported_copy, "coreml-fp16", images=3)
    assert (result.culprit.name, result.kind) == (where.where, "constant")
    assert result.explanation.endswith("weight is multiplied by 1.01")
