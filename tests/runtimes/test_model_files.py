"""Model files from elsewhere: inputs as they declare them, outputs on the host, and what is no model is one message."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from toolkit.errors import ToolkitError
from toolkit.runtimes import RUNTIMES
from toolkit.runtimes.files import PICTURE, format_of, images_in, made_up, sha256_of_model
from toolkit.tensors import TensorSpec


def spec(name: str, shape: tuple[int, ...], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def test_inputs_honour_declared_types_and_shapes():
    specs = [
        spec("x", (-1, 3, -1)), spec("ids", (2, 5), "int64"), spec("mask", (4,), "bool"), spec("half", (1, 2), "float16"),
        spec("picture", (6, 7, 3), PICTURE), spec("scalar", ()),
    ]  # fmt: skip
    found = made_up(specs, 1, {}, 0)
    assert {name: (value.shape, str(value.dtype)) for name, value in found.items()} == {
        "x": ((1, 3, 1), "float32"), "ids": ((2, 5), "int64"), "mask": ((4,), "bool"), "half": ((1, 2), "float16"),
        "picture": ((6, 7, 3), "uint8"), "scalar": ((), "float32"),
    }  # fmt: skip
    assert set(np.unique(found["ids"])) <= {0, 1}
    assert not np.array_equal(made_up(specs, 1, {}, 1)["x"], found["x"])
    assert made_up(specs[:1], 8, {"x": ((8, 3, 224), None)}, 0)["x"].shape == (8, 3, 224)
    assert made_up(specs[:1], 8, {}, 0)["x"].shape == (8, 3, 1)


@pytest.mark.parametrize(("specs", "batch", "shapes", "words"), [
    ([spec("x", (-1, 3))], 1, {"y": ((1,), None)}, r"there is no input 'y'; there are x"),
    ([spec("x", (-1, 3))], 1, {"x": ((1, 4), None)}, r"input x is declared as \?×3; 1×4 does not fit"),
    ([spec("x", (-1, 3))], 1, {"x": ((1, 3, 3), None)}, "does not fit"),
    ([spec("x", (1, 3))], 8, {}, r"is baked in \(x 1×3\): give --batch 1"),
    ([spec("x", (1 << 20, 1 << 20))], 1, {}, "too large"), (None, 1, {}, "--shape image=1x3x224x224"),
    ([spec("x", (1, -1))], 8, {}, r"is baked in \(x 1×1\)"), ([spec("x", (1,), "bfloat16")], 1, {}, "x is bfloat16, which NumPy lacks"),
    ([spec("x", (-1, 3))], 1, {"x": ((1, 3), "int64")}, "declared as float32; int64 does not fit"),
])  # fmt: skip
def test_what_does_not_fit_is_one_message(specs, batch, shapes, words):
    with pytest.raises(ToolkitError, match=words):
        made_up(specs, batch, shapes, 0)


@pytest.mark.parametrize(("specs", "sizes", "images"), [
    ([spec("x", (-1, 3))], {"x": (5, 3)}, 5), ([spec("x", (16, 3))], {"x": (16, 3)}, 0), ([spec("x", (1, 3))], {"x": (1, 3)}, 1),
    ([spec("x", (3,))], {"x": (3,)}, 0), ([], {}, 0),
    ([spec("a", (2, 3)), spec("b", (3, 4))], {"a": (2, 3), "b": (3, 4)}, 0), (None, {"x": (7, 3)}, 0),
    ([spec("x", (-1, 3)), spec("mean", (3, 1))], {"x": (4, 3), "mean": (3, 1)}, 4), ([spec("p", (6, 7, 3), PICTURE)], {"p": (6, 7, 3)}, 1),
])  # fmt: skip
def test_images_a_call_are_those_of_the_arrays(specs, sizes, images):
    assert images_in(specs, {name: np.zeros(shape) for name, shape in sizes.items()}) == images


def test_a_fixed_axis_0_is_the_batch_where_that_was_asked_for():
    made = {"x": np.zeros((16, 3))}
    assert [images_in([spec("x", (16, 3))], made, asked) for asked in (1, 16, 3)] == [0, 16, 0]
    assert [images_in(specs, made, 1, {"x": ((16, 3), None)}) for specs in ([spec("x", (16, 3))], None)] == [16, 16]


@pytest.fixture
def add_onnx(tmp_path: Path) -> Path:
    """y = x + float(i), with an open batch."""
    nodes = [helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    graph = helper.make_graph(
        nodes, "add",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]), helper.make_tensor_value_info("i", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )  # fmt: skip
    path = tmp_path / "add.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_an_onnx_file_says_what_it_takes_and_computes(add_onnx):
    session = RUNTIMES["onnxruntime-cpu"].open_file(add_onnx, 1)
    assert [(each.name, each.shape, each.dtype) for each in session.inputs()] == [("x", (-1, 3), "float32"), ("i", (3,), "int64")]
    batch = made_up(session.inputs(), 4, {}, 0)
    np.testing.assert_array_equal(session(batch)["y"], batch["x"] + batch["i"].astype(np.float32))
    assert session.placement() == ("CPUExecutionProvider",)
    assert sum(session.planned().values()) >= 1
    assert session.framework_ns() is None
    session.close()


def test_a_provider_is_where_it_was_asked_to_be_although_the_cpu_stands_behind_it(exported, monkeypatch):
    """As on a Mac: get_providers() lists the CPU after any other one."""
    import onnxruntime

    from toolkit.artifact import Artifact

    session = RUNTIMES["onnxruntime-cpu"].open(Artifact.open(exported.exports / "onnx-fp32"))
    session.provider = "CoreMLExecutionProvider"
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CoreMLExecutionProvider", "CPUExecutionProvider"])
    assert session.placement() == ("CoreMLExecutionProvider",)


class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".ts"])
def test_a_torch_program_computes_on_host_arrays(tmp_path: Path, suffix):
    path = tmp_path / f"twice{suffix}"
    if suffix == ".pt2":
        torch.export.save(torch.export.export(Twice(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), path)
    else:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(Twice(), torch.zeros(2, 3)), str(path))
    session = RUNTIMES["torch-cpu"].open_file(path, 1, trust=suffix != ".pt2")
    if suffix == ".pt2":
        assert [(each.name, each.shape, each.dtype) for each in session.inputs()] == [("x", (-1, 3), "float32")]
    else:
        assert session.inputs() is None
    batch = made_up(session.inputs(), 5, {"x": ((5, 3), None)}, 0)
    (found,) = session(batch).values()
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, 2 * batch["x"])


@pytest.mark.parametrize(("name", "runtime", "words"), [
    ("broken.onnx", "onnxruntime-cpu", "onnxruntime does not load"), ("broken.pt", "torch-cpu", "cannot be loaded as TorchScript"),
    ("broken.pt2", "torch-cpu", "is no exported program"), ("gone.onnx", "onnxruntime-cpu", "there is no file"),
])  # fmt: skip
def test_what_is_no_model_is_one_message(tmp_path: Path, name, runtime, words):
    if "gone" not in name:
        (tmp_path / name).write_bytes(b"no model at all")
    with pytest.raises(ToolkitError, match=words):
        RUNTIMES[runtime].open_file(tmp_path / name)


def test_a_pickle_with_a_models_suffix_is_not_unpickled(tmp_path: Path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    for name in ("evil.pt", "evil.pt2"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ToolkitError):
            RUNTIMES["torch-cpu"].open_file(tmp_path / name)
    assert not (tmp_path / "touched").exists()


def test_formats_go_by_the_suffix_and_a_package_has_one_sum(tmp_path: Path):
    assert [format_of(Path(name)) for name in ("a.ONNX", "b.mlpackage", "c.pt2", "d.tflite", "resnet18-mnist")] == [
        "onnx", "coreml", "torch", None, None,
    ]  # fmt: skip
    (tmp_path / "p.mlpackage/Data").mkdir(parents=True)
    (tmp_path / "p.mlpackage/Data/x").write_text("1")
    before = sha256_of_model(tmp_path / "p.mlpackage")
    (tmp_path / "p.mlpackage/Data/x").rename(tmp_path / "p.mlpackage/Data/y")
    assert sha256_of_model(tmp_path / "p.mlpackage") != before


def test_a_core_ml_package_is_driven_through_coremltools(exported, fake_macos):
    """Through the drop-in: the same calls as on a Mac."""
    session = RUNTIMES["coreml-cpu"].open_file(exported.exports / "coreml-fp32/model.mlpackage")
    (image,) = session.inputs()
    assert (image.name, image.shape, image.dtype) == ("image", (28, 28), PICTURE)
    found = session(made_up(session.inputs(), 1, {}, 0))
    assert found["logits"].size == 10
    assert session.placement() == ("requested CPU_ONLY",)
    assert session.framework_ns() == 1000


def test_the_plan_counts_operations_by_their_preferred_device(monkeypatch):
    """MLComputePlan as coremltools 9 has it: constants have no usage."""
    from types import SimpleNamespace as Any

    from coremltools.models import compute_plan

    from toolkit.mil._coremltools import import_coremltools
    from toolkit.runtimes.coreml import planned

    ane, cpu = (type(name, (), {})() for name in ("MLNeuralEngineComputeDevice", "MLCPUComputeDevice"))
    operations = ["const", "conv", "relu", "softmax"]
    usage = {"conv": ane, "relu": ane, "softmax": cpu}
    plan = Any(
        model_structure=Any(program=Any(functions={"main": Any(block=Any(operations=operations))})),
        get_compute_device_usage_for_mlprogram_operation=lambda op: Any(preferred_compute_device=usage[op]) if op in usage else None,
    )
    asked = []
    monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", lambda **given: asked.append(given) or plan)
    monkeypatch.setattr(import_coremltools().models.utils, "_macos_version", lambda: (15, 0))
    model = Any(get_compiled_model_path=lambda: "x.mlmodelc")
    assert planned(model, "CPU_AND_NE") == {"Neural Engine": 2, "CPU": 1}
    assert asked == [{"path": "x.mlmodelc", "compute_units": import_coremltools().ComputeUnit.CPU_AND_NE}]
    monkeypatch.setattr(import_coremltools().models.utils, "_macos_version", lambda: (14, 0))
    assert planned(model, "CPU_AND_NE") == {}


def test_compiling_is_coremltools_own_step_into_the_folder(exported, monkeypatch, tmp_path: Path):
    from toolkit.artifact import Artifact
    from toolkit.mil._coremltools import import_coremltools

    asked = []
    monkeypatch.setattr(import_coremltools().models.utils, "compile_model", lambda *given: asked.append(given))
    artifact = Artifact.open(exported.exports / "coreml-fp16")
    assert RUNTIMES["coreml-all"].compile(artifact, tmp_path)
    assert asked == [(str(artifact.entry), str(tmp_path / "model.mlmodelc"))]
    assert not RUNTIMES["onnxruntime-cpu"].compile(artifact, tmp_path)


@pytest.mark.skipif(sys.platform == "darwin", reason="there it can")
def test_off_macos_a_package_is_not_loaded_by_core_ml(exported):
    assert RUNTIMES["coreml-cpu"].why_not()
