"""The smallest set: against sets found by trying all, and on a network that really overflows, up to the exported file."""

import itertools
import json

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint, write_checkpoint
from toolkit.cli import main
from toolkit.debug import debug, export_repaired, hazards
from toolkit.debug.repair import minimised
from toolkit.errors import ExportError
from toolkit.export import Options, export
from toolkit.writing import replacing_folder


@pytest.mark.parametrize("needed", [{"c"}, {"a", "h"}, {"b", "c", "d"}, set("abcdefgh")])
def test_what_is_needed_is_found_and_nothing_else(needed):
    assert set(minimised("abcdefgh", lambda names: needed <= set(names))) == needed


def test_with_two_ways_out_it_finds_one_that_cannot_be_made_smaller():
    def works(names) -> bool:
        return {"a", "b"} <= set(names) or {"c", "d", "e"} <= set(names)

    found = minimised("abcdef", works)
    assert works(found)
    assert not any(works(part) for part in itertools.combinations(found, len(found) - 1))


@pytest.fixture
def hot(exported_copy):
    """The same function but for a first convolution whose results are beyond fp16: 2^13 up there, 2^13 down after it."""
    checkpoint = Checkpoint.open(exported_copy.checkpoint)
    weights = {name: tensor.clone() for name, tensor in checkpoint.weights().items()}
    for name in ("weight", "bias"):
        weights[f"network.1.{name}"] *= 2.0**13  # the batch-norm that is folded into the first convolution
    weights["network.3.weight"] *= 2.0**-13
    card = checkpoint.card.model_dump(exclude={"weights_sha256", "schema_version"})
    with replacing_folder(exported_copy.checkpoint, exported_copy.folder) as folder:
        write_checkpoint(folder, weights, card, None)
    return exported_copy


def test_an_overflow_is_named_repaired_and_the_repair_is_what_the_converter_then_writes(hot, capsys):
    with pytest.raises(ExportError, match=r"does not compute what PyTorch computes: max .Δ logit. nan.*--keep-fp32 auto"):
        export(hot, ["coreml"], Options())
    result = export_repaired(hot, Options())
    kept = next(note for note in result.notes if note.startswith("kept in fp32: ")).removeprefix("kept in fp32: ").split(", ")
    assert 2 <= len(kept) <= 4  # the convolution, its ReLU, and who reads them: casts in between would overflow as well
    assert result.golden_max_abs_logit < 0.2
    artifact = Artifact.open(result.folder)
    assert artifact.manifest.precision == "fp16"
    assert debug(hot, "coreml-fp16", images=4).agrees
    found = hazards(hot, images=20)
    assert found.passed  # what stays in fp32 does not end at 65504
    assert "kept in fp32" in {each.why for each in found.hazards}
    for name in kept:  # not one of them can be left out
        with pytest.raises(ExportError, match="does not compute what PyTorch computes"):
            export(hot, ["coreml"], Options(keep_fp32=tuple(each for each in kept if each != name)))


def test_the_debugger_names_the_overflow_and_says_what_to_keep(exported_copy):
    """The same in the file alone: the weights of its first convolution are scaled up."""
    from toolkit.faults import FAULTS

    where = FAULTS["fp16-overflow"].plant(exported_copy.exports / "coreml-fp16", Checkpoint.open(exported_copy.checkpoint))
    result = debug(exported_copy, "coreml-fp16", images=6)
    assert (result.kind, result.culprit.name) == ("overflow", where.where)
    assert "values are Inf or NaN in fp16" in result.explanation
    assert result.keep_fp32_works
    assert result.keep_fp32[0] == "_native_batch_norm_legit_no_training"


def test_auto_on_the_command_line_keeps_nothing_where_nothing_is_needed(exported_copy, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(exported_copy.folder), "--format", "coreml", "--keep-fp32", "auto", "--json"])
    assert ended.value.code == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)
    assert "nothing, the fp16 program is within its gate as it is" in captured.err
    assert not any(note.startswith("kept in fp32") for note in result["notes"])


@pytest.mark.parametrize(("words", "message"), [
    (["--format", "onnx", "--keep-fp32", "relu"], "--keep-fp32 is for Core ML in fp16; onnx in fp32 has nothing to keep"),
    (["--format", "coreml", "--precision", "fp32", "--keep-fp32", "relu"], "coreml in fp32 has nothing to keep"),
    (["--format", "coreml", "--keep-fp32", "relu_7"], "--keep-fp32 relu_7: the program has no op of that name; near it are relu"),
    (["--format", "onnx", "--keep-fp32", "auto"], "give --format coreml alone"),
])  # fmt: skip
def test_ops_that_cannot_be_kept_are_refused_in_one_message(exported_copy, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(exported_copy.folder), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_kept_op_really_is_float32_in_the_program(exported_copy):
    from toolkit.mil.program import load_program

    (result,) = export(exported_copy, ["coreml"], Options(keep_fp32=("relu",)))
    program = load_program(result.folder / "model.mlpackage")
    types = {value.name: value.type.dtype for operation in program.block.operations for value in operation.outputs}
    assert types["relu"] == "fp32"
    assert types["relu_1_cast_fp16"] == "fp16"
    assert np.isfinite(result.golden_max_abs_logit)
