"""Hazards of programs made by hand, whose values are known; and of the tiny model, which has none."""

import json
import math

import numpy as np
import pytest

from toolkit.cli import main
from toolkit.debug import hazards
from toolkit.debug.hazards import ranges
from toolkit.debug.program import Op
from toolkit.errors import ToolkitError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil.program import load_program


@pytest.fixture
def judged(build):
    """(an op made by coremltools' builder, its inputs) → its hazard."""

    def run(make, *arrays):
        from coremltools.converters.mil import Builder as mb

        path = build(lambda x: make(mb, x), arrays[0].shape)
        ops = []
        for operation in load_program(path).block.operations:
            wires = tuple(each for arguments in operation.arguments.values() for each in arguments if isinstance(each, str))
            ops.append(Op(operation.position, operation.type, operation.outputs[0].name, wires))
        found = ranges(ReferenceEvaluator(path, mode="fp32"), ops, [{"x": array.astype(np.float32)} for array in arrays])
        return {each.op: each for each in found}

    return run


CASES = [
    ("softplus", lambda mb, x: mb.softplus(x=x), 10.0, "ok"), ("softplus", lambda mb, x: mb.softplus(x=x), 12.0, "cliff"),
    ("reduce_log_sum_exp", lambda mb, x: mb.reduce_log_sum_exp(x=x, axes=[0]), 7.0, "ok"),
    ("reduce_log_sum_exp", lambda mb, x: mb.reduce_log_sum_exp(x=x, axes=[0]), 8.0, "cliff"),
    ("exp", lambda mb, x: mb.exp(x=x), 5.0, "ok"), ("exp", lambda mb, x: mb.exp(x=x), 11.2, "overflow"),
    ("square", lambda mb, x: mb.square(x=x), 300.0, "overflow"), ("square", lambda mb, x: mb.square(x=x), 200.0, "tight"),
    ("square", lambda mb, x: mb.square(x=x), 0.005, "subnormal"), ("log", lambda mb, x: mb.log(x=x), 1e-8, "cliff"),
    ("inverse", lambda mb, x: mb.inverse(x=x, epsilon=0.0), 1e-6, "overflow"),
    ("exp", lambda mb, x: mb.exp(x=x), 100.0, "overflow"), ("sqrt", lambda mb, x: mb.sqrt(x=x), -1.0, "overflow"),  # inf and NaN in fp32
]  # fmt: skip


@pytest.mark.parametrize(("op", "make", "value", "verdict"), CASES)
def test_known_values_have_known_verdicts(judged, op, make, value, verdict):
    found = judged(make, np.full(4, value))[op]
    assert found.verdict == verdict
    assert (found.why == "") is (verdict == "ok")


def test_figures_are_those_of_all_images_together(judged):
    found = judged(lambda mb, x: mb.square(x=x), np.array([2.0, 0.0]), np.array([-16.0, 2.0**-8]))["square"]
    assert (found.largest, found.smallest) == (256.0, 2.0**-16)
    assert found.headroom_bits == pytest.approx(math.log2(65504 / 256))
    assert (found.subnormal, found.lost) == (pytest.approx(1 / 3), 0)  # three values are not zero, one of them below 2^-14


def test_the_tiny_model_has_none_and_the_worst_comes_first(exported, capsys):
    result = hazards(exported, images=20)
    assert result.passed
    assert {each.verdict for each in result.hazards} <= {"ok", "tight", "subnormal"}
    assert {"conv", "relu", "linear", "softmax"} <= {each.op for each in result.hazards}
    pixels = next(each for each in result.hazards if each.op == "upsample_bilinear")
    assert pixels.largest == 255
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(exported.folder), "--hazards", "--limit", "5", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["images"] == 5


def test_without_a_core_ml_file_the_way_on_is_said(trained, tmp_path):
    import shutil

    from toolkit.workspace import Workspace

    shutil.copytree(trained.folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("exports"))
    with pytest.raises(ToolkitError, match="toolkit export --format coreml"):
        hazards(Workspace(tmp_path / "tiny", tmp_path / "tiny" / "recipe.toml"))
