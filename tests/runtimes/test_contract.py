"""What every runtime owes its callers, held against each one that can run here. The rest is `pytest -m mac` and `-m gpu`."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.artifact import Artifact
from toolkit.checkpoint import Checkpoint
from toolkit.errors import ArtifactError, RuntimeUnavailable, ToolkitError
from toolkit.runtimes import RUNTIMES, find, select
from toolkit.workspace import Workspace

ARTIFACTS = {"torch": ("torch",), "onnx": ("onnx-fp32",), "coreml": ("coreml-fp16", "coreml-fp32"), "coreai": ("coreai-fp32",)}
MAC = {"torch-mps", "onnxruntime-coreml", "coreml-cpu", "coreml-gpu", "coreml-ane", "coreml-all"}
BOUNDS = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1.0}  # of logits up to 30


def marks(runtime_id: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.mac] if runtime_id in MAC else [pytest.mark.gpu] if runtime_id == "torch-cuda" else []


PAIRS = [
    pytest.param(runtime, artifact, id=f"{runtime.id}-{artifact}", marks=marks(runtime.id))
    for runtime in RUNTIMES.values()
    if runtime.id != "null"
    for artifact in ARTIFACTS[runtime.reads]
]
every_runtime = pytest.mark.parametrize(("runtime", "name"), PAIRS)


def artifact_of(workspace: Workspace, name: str) -> Artifact:
    return Artifact.of_checkpoint(Checkpoint.open(workspace.checkpoint)) if name == "torch" else Artifact.open(workspace.exports / name)


def bound(runtime: Any, name: str) -> float:
    return BOUNDS[runtime.precision or ("fp16" if name.endswith("fp16") else "fp32")]


@pytest.fixture
def session(runtime: Any, name: str, exported: Workspace) -> Any:
    if reason := runtime.why_not():
        pytest.skip(reason)
    opened = runtime.open(artifact_of(exported, name))
    yield opened
    opened.close()


@every_runtime
def test_it_computes_the_trained_model(runtime, name, session, images, truth):
    found = session({"image": images})
    assert np.abs(found["logits"] - truth).max() < bound(runtime, name)
    shifted = np.exp(truth - truth.max(1, keepdims=True))
    allowed = {1e-3: 1e-4, 0.1: 0.02, 1.0: 0.1}[bound(runtime, name)]
    np.testing.assert_allclose(found["probabilities"], shifted / shifted.sum(1, keepdims=True), rtol=0, atol=allowed)
    assert (found["logits"].argmax(1) == truth.argmax(1)).all()


@every_runtime
def test_outputs_are_the_declared_ones_on_the_host(runtime, name, session, images, exported):
    found = session({"image": images})
    declared = artifact_of(exported, name).manifest.outputs
    assert {"logits", "probabilities"} <= set(found) <= {spec.name for spec in declared} | {"classLabel"}
    for spec in declared:
        array = found[spec.name]
        assert type(array) is np.ndarray
        assert array.shape == (len(images), *spec.shape[1:])
        assert array.dtype.kind == "U" if spec.dtype == "str" else str(array.dtype) == spec.dtype


@every_runtime
def test_it_neither_changes_nor_needs_to_write_its_input(runtime, name, session, images):
    given = images.copy()
    given.flags.writeable = False
    batch = {"image": given}
    session(batch)
    assert batch.keys() == {"image"}
    assert batch["image"] is given
    np.testing.assert_array_equal(given, images)


@every_runtime
def test_an_array_that_is_a_view_will_do(runtime, name, session, images):
    """Every second image, and pixels in reverse: what slicing gives."""
    expected = session({"image": np.ascontiguousarray(images[::2, :, ::-1])})["logits"]
    np.testing.assert_array_equal(session({"image": images[::2, :, ::-1]})["logits"], expected)


@every_runtime
def test_the_same_input_gives_the_same_output_and_its_own_memory(runtime, name, session, images):
    first = session({"image": images})
    kept = {key: array.copy() for key, array in first.items()}
    session({"image": 255 - images})
    second = session({"image": images})
    for key, array in kept.items():
        np.testing.assert_array_equal(first[key], array)  # a later call does not overwrite an earlier answer
        np.testing.assert_array_equal(second[key], array)


@every_runtime
def test_results_do_not_depend_on_how_images_are_batched(runtime, name, session, images):
    together = session({"image": images})["logits"]
    tolerance = 0.02 if name.endswith("fp16") else 1e-4
    for size in (1, 5):
        parts = [session({"image": images[start : start + size]})["logits"] for start in range(0, len(images), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=tolerance)


@every_runtime
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda images: {"picture": images}, r"takes one input named 'image', got \['picture'\]"),
        (lambda images: {"image": images, "more": images}, r"takes one input named 'image', got \['image', 'more'\]"),
        (lambda images: {}, r"takes one input named 'image', got \[\]"),
        (lambda images: {"image": images[:, 0]}, r"\(N, 1, 28, 28\) float32, got \(12, 28, 28\) float32"),
        (lambda images: {"image": images[:, :, :27]}, r"got \(12, 1, 27, 28\)"),
        (lambda images: {"image": images.repeat(3, 1)}, r"got \(12, 3, 28, 28\)"),
        (lambda images: {"image": images[0]}, r"got \(1, 28, 28\)"),
        (lambda images: {"image": images.astype(np.float64)}, r"got \(12, 1, 28, 28\) float64"),
        (lambda images: {"image": images.astype(np.uint8)}, "uint8"),
        (lambda images: {"image": images[:0]}, r"got \(0, 1, 28, 28\)"),
        (lambda images: {"image": images.tolist()}, "as a NumPy array, got list"),
    ],
)
def test_a_wrong_input_is_said(runtime, name, session, images, fault, message):
    with pytest.raises(ArtifactError, match=message):
        session(fault(images))


@every_runtime
def test_one_thread_computes_the_same(runtime, name, exported, images, truth):
    import torch

    if reason := runtime.why_not():
        pytest.skip(reason)
    before = torch.get_num_threads()
    try:
        session = runtime.open(artifact_of(exported, name), threads=1)
        assert np.abs(session({"image": images})["logits"] - truth).max() < bound(runtime, name)
        session.close()
    finally:
        torch.set_num_threads(before)


@every_runtime
def test_it_says_where_it_runs_and_how_long_in_plain_types(runtime, name, session, images):
    session({"image": images[:1]})
    assert all(isinstance(place, str) for place in session.placement())
    assert session.framework_ns() is None or session.framework_ns() > 0


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_an_artifact_of_another_format_is_refused(runtime, exported, monkeypatch):
    if runtime.why_not():
        monkeypatch.setattr(f"{runtime.module}.why_not", lambda **options: None)
    wrong = artifact_of(exported, "onnx-fp32" if runtime.reads != "onnx" else "coreml-fp16")
    with pytest.raises(ArtifactError, match=f"{runtime.id} reads {runtime.reads} artifacts; .* is {wrong.format}"):
        runtime.open(wrong)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_what_cannot_run_here_says_why(runtime, exported, monkeypatch):
    monkeypatch.setattr(f"{runtime.module}.why_not", lambda **options: f"no such thing for {sorted(options)}")
    artifact = artifact_of(exported, "onnx-fp32")  # whatever it is: the reason comes before the format
    assert runtime.why_not() == f"no such thing for {sorted(runtime.options)}"
    with pytest.raises(RuntimeUnavailable, match=f"{runtime.id} cannot run here: no such thing"):
        runtime.open(artifact)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_every_line_of_the_table_leads_to_a_module(runtime):
    """Reasons and versions are text on every machine, wherever the runtime itself can run."""
    assert runtime.why_not() is None or len(runtime.why_not()) > 10
    if runtime.why_not() is None:
        assert runtime.version()[0].isdigit()


def test_an_unknown_runtime_is_answered_with_the_known_ones():
    with pytest.raises(ToolkitError, match=r"there is no runtime 'tensorrt'; there are torch-cpu, .*, null"):
        find("tensorrt")


def test_selection():
    """Without names all but null; with names those, once each, in the order they were given."""
    assert [runtime.id for runtime in select(None)] == [name for name in RUNTIMES if name != "null"]
    assert [runtime.id for runtime in select(["null", "torch-cpu", "null"])] == ["null", "torch-cpu"]


def test_null_answers_with_zeros_in_the_right_shape(exported, images):
    session = RUNTIMES["null"].open(artifact_of(exported, "torch"))
    found = session({"image": images})
    assert not found["logits"].any()
    np.testing.assert_allclose(found["probabilities"], np.full((12, 10), 0.1))


def test_a_damaged_model_file_is_an_artifact_error(exported_copy):
    """Past its checksum, as when the manifest was made from the damaged file."""
    for runtime_id, name, file in (
        ("onnxruntime-cpu", "onnx-fp32", "model.onnx"),
        ("onnx-reference", "onnx-fp32", "model.onnx"),
        ("coreml-reference", "coreml-fp16", "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"),
    ):
        artifact = artifact_of(exported_copy, name)
        path = artifact.folder / file
        sound = path.read_bytes()
        path.write_bytes(b"\x00" * 200)
        with pytest.raises(ArtifactError, match="model"):
            RUNTIMES[runtime_id].open(artifact)
        path.write_bytes(sound)


def test_a_graph_that_loads_and_does_not_run_is_an_artifact_error(exported_copy, images):
    """A batch size of 2 written into the file."""
    import onnx

    artifact = artifact_of(exported_copy, "onnx-fp32")
    model = onnx.load(artifact.entry)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, artifact.entry)
    session = RUNTIMES["onnxruntime-cpu"].open(artifact)
    with pytest.raises(ArtifactError, match=r"onnxruntime does not run .*model\.onnx on \(12, 1, 28, 28\)"):
        session({"image": images})


def test_the_real_reasons_name_what_is_missing(monkeypatch):
    from toolkit.runtimes import coreai, coreml, onnxruntime

    monkeypatch.setattr("sys.platform", "linux")
    assert coreml.why_not("ALL") == "Core ML needs macOS 13 or later; this is linux"
    monkeypatch.setattr(onnxruntime.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "has no CoreMLExecutionProvider; it is part of the macOS builds" in onnxruntime.why_not("CoreMLExecutionProvider")
    assert onnxruntime.why_not("CPUExecutionProvider") is None
    monkeypatch.setattr(coreai, "find_spec", lambda name: None)
    assert "pip install 'apple-deployment-toolkit[coreai]'" in coreai.why_not()


def test_a_fake_gpu_is_what_torch_runs_on(exported, images, truth, monkeypatch):
    """torch-mps over a stand-in: tensors go to its device, results come back to the host."""
    from toolkit import devices

    monkeypatch.setitem(devices.BACKENDS, "mps", replace(devices.BACKENDS["mps"], torch_device="cpu", why_not=lambda: None))
    session = RUNTIMES["torch-mps"].open(artifact_of(exported, "torch"))
    assert np.abs(session({"image": images})["logits"] - truth).max() < 1e-3
    assert session.placement() == ("cpu",)


def test_a_fake_core_ml_provider_is_handed_to_onnx_runtime(exported, images, truth, monkeypatch):
    """onnxruntime-coreml where the provider is listed: that provider, and no other, is asked for."""
    import onnxruntime

    asked, real = [], onnxruntime.InferenceSession

    def inference_session(path: Any, options: Any, providers: list[str]) -> Any:
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CoreMLExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", inference_session)
    session = RUNTIMES["onnxruntime-coreml"].open(artifact_of(exported, "onnx-fp32"))
    assert np.abs(session({"image": images})["logits"] - truth).max() < 1e-3
    assert asked == [["CoreMLExecutionProvider"]]
