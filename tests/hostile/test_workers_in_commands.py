"""Kinds 5 and 6: in every command a model file that takes down whoever opens it is one message, and ends with the command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from PIL import Image

from toolkit.faults.fault import sign


def graph_of(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto] = []) -> onnx.ModelProto:  # noqa: B006  # it is only read
    """An ONNX file with the input and the outputs that an artifact has."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 10]) for name in ("logits", "probabilities")]
    graph = helper.make_graph(nodes, "g", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def put(model: Path, program: onnx.ModelProto) -> None:
    """In the place of onnx-fp32's file, with a manifest that lists it."""
    folder = model / "exports/onnx-fp32"
    onnx.save(program, folder / "model.onnx")
    sign(folder)


def endless() -> onnx.ModelProto:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["x", "one"], ["y"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("going", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["mean", "a", "b", "axis"], ["ten"]),
        helper.make_node("Loop", ["rounds", "true", "ten"], ["logits"], body=body),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]  # fmt: skip
    constants = [
        helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]), helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        *(helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("a", 0), ("b", 10), ("axis", 1))),
    ]  # fmt: skip
    return graph_of(nodes, constants)


def greedy() -> onnx.ModelProto:
    """It asks for 64 GiB, in less than a kilobyte."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Slice", ["mean", "a", "b", "axis"], ["ten"]),
        helper.make_node("Add", ["ten", "sum"], ["logits"]), helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]  # fmt: skip
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("shape", TensorProto.INT64, [2], [2**17, 2**17]),
        *(helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("a", 0), ("b", 10), ("axis", 1))),
    ]  # fmt: skip
    return graph_of(nodes, constants)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(path)
    return path


def toolkit(*words: str, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *words], capture_output=True, text=True, check=False, timeout=seconds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


COMMANDS = {
    "predict": (2, "predict {model} {picture} --runtime onnxruntime-cpu"),
    "bench": (1, "bench {model} --runtime onnxruntime-cpu --quick"),
    "bench a file": (1, "bench {model}/exports/onnx-fp32/model.onnx --quick --shape image=1x1x28x28 --out {model}/bench.json"),
    "validate": (1, "validate {model} --runtime onnxruntime-cpu --limit 20 --no-cache"),
    "debug": (2, "debug onnx-fp32 --model {model}"),
}


@pytest.mark.parametrize(
    ("program", "name"), [(greedy, name) for name in COMMANDS] + [(endless, name) for name in ("predict", "bench a file")]
)
def test_a_file_without_end_or_bound_is_stopped_in_every_command(model, picture, program, name):
    """The time limit is for the endless one alone: on a busy machine PyTorch takes seconds to be imported."""
    put(model, program())
    code, words = COMMANDS[name]
    given = [word.format(model=model, picture=picture) for word in words.split()]
    done = toolkit(*given, TOOLKIT_TIME_LIMIT="8" if program is endless else "100", TOOLKIT_MEMORY_LIMIT="1.5")
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert ("was stopped" if program is endless else r"") in said


def test_a_worker_ends_with_a_command_that_is_killed(model, picture):
    put(model, endless())
    command = [sys.executable, "-m", "toolkit", "predict", str(model), str(picture), "--runtime", "onnxruntime-cpu"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.DEVNULL)
    deadline, workers = time.monotonic() + 60, list[psutil.Process]()
    while not workers and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = [each for each in psutil.Process(process.pid).children(recursive=True) if "toolkit.workers" in each.cmdline()]
    time.sleep(3)  # it is in the loop by now
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert workers
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_the_manifest_is_what_was_signed(model):
    """Else the tests above would show that a wrong checksum is found."""
    put(model, endless())
    manifest = json.loads((model / "exports/onnx-fp32/manifest.json").read_text(encoding="utf-8"))
    import hashlib

    assert manifest["files"]["model.onnx"] == hashlib.sha256((model / "exports/onnx-fp32/model.onnx").read_bytes()).hexdigest()
