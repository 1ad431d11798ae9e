"""Which images are looked at: those that are furthest off, of all golden ones and of the worst that validation found."""

import inspect
import shutil

import numpy as np
import onnx
import pytest

from tests.workers.scripted import SCRIPT, TASK
from toolkit.artifact import Artifact
from toolkit.cli import judging, main
from toolkit.data import load
from toolkit.debug import FOLLOWED, alone, debug, debug_alone
from toolkit.debug.result import Layer
from toolkit.debug.trace import trace
from toolkit.errors import ToolkitError
from toolkit.faults.fault import sign
from toolkit.validation import validate
from toolkit.workers import call
from toolkit.workspace import Workspace

NAME = "onnx-fp32"


@pytest.fixture
def copy(exported, tmp_path):
    shutil.copytree(exported.folder, tmp_path / "tiny", ignore=shutil.ignore_patterns(".cache", "reports"))
    return Workspace(tmp_path / "tiny", tmp_path / "tiny" / "recipe.toml")


def cap(workspace, calm, wild):
    """A ReLU that ends at what the `calm` images reach: only some of the `wild` ones are computed otherwise. Its name."""
    from toolkit.debug.program import read

    artifact = Artifact.open(workspace.exports / NAME)
    ops = [op for op in read(artifact) if op.type == "Relu"]
    values = {op.name: [trace(artifact, read(artifact), part)[op.name].max() for part in (calm, wild)] for op in ops}
    name, (limit, _) = max(values.items(), key=lambda item: item[1][1] / item[1][0])
    model = onnx.load(artifact.entry)
    node = next(each for each in model.graph.node if each.output[0] == name)
    node.op_type = "Clip"
    model.graph.initializer.extend([onnx.numpy_helper.from_array(np.float32(value), text) for value, text in ((0, "lo"), (limit, "hi"))])
    node.input.extend(["lo", "hi"])
    onnx.save(model, artifact.entry)
    sign(artifact.folder)
    return name


def test_a_fault_that_only_a_late_golden_image_shows_is_found(copy):
    images, _ = Artifact.open(copy.exports / NAME).golden()
    name = cap(copy, images[:16], images[16:])
    result = debug(copy, NAME)
    assert (result.agrees, result.culprit.name) == (False, name)
    assert (result.images, result.compared) == (16, 64)


def test_the_worst_test_images_of_the_last_validation_are_looked_at_as_well(copy):
    images, _ = Artifact.open(copy.exports / NAME).golden()
    name = cap(copy, images, load("digits").test_images.numpy().astype(np.float32))
    assert debug(copy, NAME).agrees  # on golden images alone nothing is wrong
    validate(copy, runtimes=["onnxruntime-cpu"], artifacts=[NAME], isolate=False)
    result = debug(copy, NAME)
    assert (result.agrees, result.culprit.name) == (False, name)
    assert result.compared > 64


def test_a_file_that_takes_the_runtime_down_is_one_message(copy, capsys):
    path = copy.exports / "coreai-fp32"
    if not path.is_dir():
        pytest.skip("Core AI is not installed")
    (program,) = path.rglob("*.mlirb")
    program.write_bytes(program.read_bytes()[: program.stat().st_size * 2 // 3])
    sign(path)
    with pytest.raises(ToolkitError, match="coreai-fp32"):
        debug_alone(copy, "coreai-fp32")
    with pytest.raises(SystemExit) as ended:
        main(["debug", "coreai-fp32", "--model", str(copy.folder)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "RuntimeWarning" not in said


@pytest.mark.parametrize(("script", "text"), [
    ("import os, sys; print('std::bad_cast', file=sys.stderr, flush=True); os.abort()",
     "onnx-fp32 could not be looked into: its process was killed by SIGABRT; last words: std::bad_cast"),
    ("raise ValueError('of ours')", "could not be looked into: its process failed: .*ValueError: of ours"),
    ("result = Message({'agrees': 1})", "gave no result that can be read"),
])  # fmt: skip
def test_whatever_takes_the_worker_down_is_one_message(copy, monkeypatch, script, text):
    monkeypatch.setenv(SCRIPT, script)
    monkeypatch.setattr(alone, "call", lambda task, *given, **named: call(TASK, *given, **named))
    with pytest.raises(ToolkitError, match=text):
        debug_alone(copy, NAME)


def test_what_the_other_process_has_to_tell_reaches_the_user(copy, capsys):
    copy.reports.mkdir()
    (copy.reports / "validation.json").write_text("{}")
    assert debug_alone(copy, NAME, images=2).compared == 64
    said = capsys.readouterr()
    assert said.err.startswith("only golden images: the worst test images of ")
    assert said.out == ""


def test_help_states_the_number_of_images_that_is_used():
    option = inspect.signature(judging.debug).parameters["images"].annotation.__metadata__[0]
    assert option.help.endswith(f"[default: {FOLLOWED}]")


def test_what_nothing_was_compared_with_has_no_verdict():
    fields = {"position": 0, "op": "cast", "name": "x", "module": "", "source": "", "largest": 1.0, "non_finite": 0}
    nothing = dict.fromkeys(("own", "band", "total", "snr_db"), float("nan"))
    assert Layer(**fields, **nothing, reference=None, inside=True).verdict == "–"
    assert Layer(**fields, **nothing, reference=None, inside=False).verdict == "FAIL"
    assert Layer(**fields, own=0, band=1, total=0, snr_db=99, reference="y", inside=True).verdict == "pass"
