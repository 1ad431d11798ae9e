"""coremltools' own MLModel, answering on this machine; everything as it was afterwards."""

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.mil._coremltools import import_coremltools
from toolkit.mil.dropin import MACOS, coremltools_predict

ct: Any = import_coremltools()


def bound() -> dict[tuple[str, str], object]:
    """All that the drop-in may replace, wherever coremltools has it."""
    names = ("_is_macos", "_macos_version", "_MLModelProxy")
    modules = [(name, module) for name, module in sys.modules.items() if name.partition(".")[0] == "coremltools"]
    return {(where, name): vars(module)[name] for where, module in modules for name in names if name in vars(module)}


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    from coremltools.models import _compiled_model, model, utils  # noqa: F401

    before = bound()
    yield
    assert bound().items() >= before.items()
    assert all(value is before["coremltools.models.utils", name] for (_, name), value in bound().items() if name != "_MLModelProxy")


def someone_elses_code(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Knows nothing of this toolkit."""
    outputs: dict[str, Any] = ct.models.MLModel(str(path)).predict(data)
    return outputs


@pytest.fixture(scope="module")
def doubled(build: Any) -> Path:
    from coremltools.converters.mil import Builder as mb

    path: Path = build(lambda x: mb.mul(x=x, y=np.float32(2), name="y"), (2, 3))
    return path


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adds x to a state and returns the sum."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types as mil_types

    @mb.program(
        input_specs=[mb.TensorSpec((2,), dtype=mil_types.fp16), mb.StateTensorSpec((2,), dtype=mil_types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, total: Any) -> Any:
        added = mb.add(x=mb.read_state(input=total), y=x)
        return mb.coreml_update_state(state=total, value=added, name="added")

    path = tmp_path_factory.mktemp("state") / "counter.mlpackage"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(str(path))
    return path


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_code_that_knows_nothing_of_this_predicts(doubled: Path):
    with coremltools_predict():
        np.testing.assert_array_equal(someone_elses_code(doubled, {"x": X})["y"], 2 * X)


def test_without_it_prediction_is_apples_alone(doubled: Path):
    if sys.platform == "darwin":
        pytest.skip("Core ML is here")
    with coremltools_predict():
        pass
    with pytest.raises(Exception, match=r"only supported on macOS"):
        someone_elses_code(doubled, {"x": X})


def test_a_model_made_inside_keeps_working_outside(doubled: Path):
    with coremltools_predict():
        model = ct.models.MLModel(str(doubled))
    np.testing.assert_array_equal(model.predict({"x": X})["y"], 2 * X)


def test_nested_ones_are_undone_in_turn_and_the_inner_mode_holds_inside(build: Any):
    from coremltools.converters.mil import Builder as mb

    third = build(lambda x: mb.mul(x=mb.cast(x=x, dtype="fp16"), y=np.float16(1 / 3), name="y"), (1, 1))
    one = {"x": np.ones((1, 1), np.float32)}
    with coremltools_predict():
        outer = bound()
        with coremltools_predict("exact"):
            exact = someone_elses_code(third, dict(one))["y"]
        assert bound() == outer
        rounded = someone_elses_code(third, dict(one))["y"]
    assert exact.dtype == np.float64
    assert rounded == np.float32(np.float16(1 / 3))


def test_an_exception_undoes_it():
    with pytest.raises(ZeroDivisionError), coremltools_predict():
        raise ZeroDivisionError


def test_it_can_be_started_and_stopped(doubled: Path):
    stack = ExitStack()
    stack.enter_context(coremltools_predict())
    assert someone_elses_code(doubled, {"x": X})["y"].shape == (2, 3)
    stack.close()


def test_a_module_imported_inside_is_put_back_too():
    from coremltools.models import utils

    real = utils._macos_version
    late = types.ModuleType("coremltools.imported_late")
    with coremltools_predict():
        assert utils._is_macos()
        assert utils._macos_version() == MACOS
        late._macos_version = utils._macos_version
        sys.modules["coremltools.imported_late"] = late
    try:
        assert late._macos_version is real
    finally:
        del sys.modules["coremltools.imported_late"]


def test_an_unknown_mode_is_refused_when_a_model_is_loaded(doubled: Path):
    with coremltools_predict("fp8"), pytest.raises(ValueError, match="fp8"):
        ct.models.MLModel(str(doubled))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
def test_numbers_of_any_type_are_taken(doubled: Path, dtype: Any):
    with coremltools_predict():
        np.testing.assert_array_equal(someone_elses_code(doubled, {"x": np.ones((2, 3), dtype)})["y"], np.full((2, 3), 2.0))


@pytest.fixture(scope="module")
def whole(build: Any) -> Path:
    from coremltools.converters.mil import Builder as mb

    path: Path = build(lambda x: mb.add(x=x, y=np.int32(0), name="y"), (4,), dtype="int32")
    return path


def test_fractions_are_cut_off_for_a_whole_number_input(whole: Path):
    with coremltools_predict():
        y = someone_elses_code(whole, {"x": np.array([1.9, -1.9, 2.0, -0.5], np.float32)})["y"]
    assert y.dtype == np.int32
    assert y.tolist() == [1, -1, 2, 0]


@pytest.mark.parametrize("value", [np.nan, 3e9])
def test_what_no_whole_number_is_near_is_a_runtime_error(whole: Path, value: float):
    with coremltools_predict():
        model = ct.models.MLModel(str(whole))
        with np.errstate(invalid="ignore"), pytest.raises(RuntimeError, match="do not fit"):
            model.predict({"x": np.array([value, 0, 0, 0], np.float32)})


def test_lists_and_tensors_are_taken_as_coremltools_takes_them(doubled: Path):
    import torch

    with coremltools_predict():
        for given in (X.tolist(), torch.from_numpy(X)):
            np.testing.assert_array_equal(someone_elses_code(doubled, {"x": given})["y"], 2 * X)


def test_a_wrong_shape_is_a_runtime_error_as_from_core_ml(doubled: Path):
    with coremltools_predict(), pytest.raises(RuntimeError, match=r"shape \(3, 2\)"):
        someone_elses_code(doubled, {"x": X.T})


@pytest.fixture(scope="module")
def flexible(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """relu(x) where x is (1, 3..5), or one of (1, 2) and (1, 4)."""
    import torch

    kinds = {"range": ct.Shape((1, ct.RangeDim(3, 5))), "enumerated": ct.EnumeratedShapes([(1, 2), (1, 4)])}
    paths = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 4))
        for name, shape in kinds.items():
            paths[name] = tmp_path_factory.mktemp("flexible") / f"{name}.mlpackage"
            inputs = [ct.TensorType(name="x", shape=shape)]
            outputs = [ct.TensorType(name="y")]
            target = ct.target.iOS17
            model = ct.convert(traced, inputs=inputs, outputs=outputs, minimum_deployment_target=target, skip_model_load=True)
            model.save(str(paths[name]))
    return paths


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("range", 6, r"Size \(6\) of dimension \(1\) is not in allowed range \(3\.\.5\)"),
        ("range", 2, r"Size \(2\) of dimension \(1\) is not in allowed range \(3\.\.5\)"),
        ("enumerated", 3, r"MultiArray Shape \(1 x 3\) was not in enumerated set of allowed shapes"),
    ],
)
def test_a_shape_that_the_description_does_not_allow_is_refused_in_core_mls_words(flexible: Any, kind: str, size: int, words: str):
    with coremltools_predict():
        assert someone_elses_code(flexible[kind], {"x": np.ones((1, 4))})["y"].tolist() == [[1] * 4]
        with pytest.raises(RuntimeError, match=words):
            someone_elses_code(flexible[kind], {"x": np.zeros((1, size))})


def test_a_wrong_name_is_found_by_coremltools_itself(doubled: Path):
    with coremltools_predict(), pytest.raises(KeyError, match="does not match any of the model input name"):
        someone_elses_code(doubled, {"z": X})


def test_an_error_while_computing_starts_with_core_mls_words(build: Any):
    from coremltools.converters.mil import Builder as mb

    path = build(lambda x: mb.gather(x=x, indices=mb.cast(x=mb.reduce_max(x=x), dtype="int32"), validate_indices=True), (3,))
    with coremltools_predict(), pytest.raises(RuntimeError, match=r"^Unable to compute the prediction using ML Program\. .*gather"):
        someone_elses_code(path, {"x": np.full(3, 9.0)})


def test_a_list_of_inputs_gives_a_list_of_outputs(doubled: Path):
    with coremltools_predict():
        outputs = ct.models.MLModel(str(doubled)).predict([{"x": X}, {"x": X + 1}])
    assert [each["y"].tolist() for each in outputs] == [(2 * X).tolist(), (2 * X + 2).tolist()]


def test_a_picture_model_takes_a_picture_and_checks_its_mode(packages: dict[str, Path], pictures: Any):
    from PIL import Image

    picture = Image.fromarray(pictures[0, 0].astype(np.uint8))
    with coremltools_predict():
        outputs = someone_elses_code(packages["FLOAT32-image"], {"image": picture})
        assert outputs["classLabel"] in ("cat", "dog", "emu")
        assert sum(outputs["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        with pytest.raises(TypeError, match="mode=='L'"):
            someone_elses_code(packages["FLOAT32-image"], {"image": picture.convert("RGB")})


def test_a_state_remembers_and_can_be_read_and_written(counter: Path):
    with coremltools_predict():
        model = ct.models.MLModel(str(counter))
        first, second = model.make_state(), model.make_state()
        one = {"x": np.ones(2, np.float32)}
        for expected in (1, 2, 3):
            assert model.predict(dict(one), state=first)["added"].tolist() == [expected] * 2
        assert first.read_state("total").tolist() == [3, 3]
        assert second.read_state("total").tolist() == [0, 0]
        second.write_state("total", np.array([5, -5], np.float32))
        assert model.predict(dict(one), state=second)["added"].tolist() == [6, -4]


def test_states_that_are_not_there_are_runtime_errors(counter: Path):
    with coremltools_predict():
        model = ct.models.MLModel(str(counter))
        state = model.make_state()
        with pytest.raises(RuntimeError, match="no state 'other'"):
            state.read_state("other")
        with pytest.raises(RuntimeError, match="shape"):
            state.write_state("total", np.zeros(3, np.float32))
        with pytest.raises(RuntimeError, match="make_state"):
            model.predict({"x": np.ones(2, np.float32)})


def test_another_format_is_named_at_prediction(tmp_path: Path):
    from coremltools.models.neural_network import NeuralNetworkBuilder

    features = [("x", ct.models.datatypes.Array(3))], [("y", ct.models.datatypes.Array(3))]
    builder = NeuralNetworkBuilder(*features)
    builder.add_activation("relu", "RELU", "x", "y")
    with coremltools_predict():
        with pytest.warns(RuntimeWarning, match="neuralNetwork, which is another format"):
            model = ct.models.MLModel(builder.spec)
        with pytest.raises(RuntimeError, match="neuralNetwork, which is another format"):
            model.predict({"x": np.zeros(3)})


def test_a_compiled_model_is_the_package(doubled: Path):
    with coremltools_predict():
        path = ct.models.MLModel(str(doubled)).get_compiled_model_path()
        outputs = ct.models.CompiledMLModel(path).predict({"x": X})
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_durations_are_said_to_be_unavailable(doubled: Path):
    with coremltools_predict():
        model = ct.models.MLModel(str(doubled))
        model.predict({"x": X})
        assert model.load_duration_in_nano_seconds is None
        assert model.last_predict_duration_in_nano_seconds is None


def test_activations_can_be_quantized_which_calibrates_with_predictions(build: Any):
    """`linear_quantize_activations` predicts with every value made an output; the result stays near the original.

    One sample: coremltools 9.0 keeps the range of the last one only (`record_intermediate_output`).
    """
    import coremltools.optimize as cto
    from coremltools.converters.mil import Builder as mb

    draw = np.random.default_rng(0)
    weights = [draw.normal(size=shape).astype(np.float32) for shape in ((4, 1, 3, 3), (2, 4, 3, 3))]
    path = build(lambda x: mb.conv(x=mb.relu(x=mb.conv(x=x, weight=weights[0])), weight=weights[1], name="y"), (1, 1, 8, 8))
    sample = {"x": draw.normal(size=(1, 1, 8, 8)).astype(np.float32)}
    quantizer = cto.coreml.experimental.OpActivationLinearQuantizerConfig(mode="linear_symmetric")
    config = cto.coreml.OptimizationConfig(global_config=quantizer)
    with coremltools_predict(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.models.MLModel(str(path))
        quantized = cto.coreml.experimental.linear_quantize_activations(model, config, [dict(sample)])
        expected, found = (each.predict(dict(sample))["y"] for each in (model, quantized))
    block = next(iter(quantized.get_spec().mlProgram.functions["main"].block_specializations.values()))
    assert {"quantize", "dequantize"} <= {operation.type for operation in block.operations}
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
