"""What callers may do wrong, and what must stay theirs: copies, rows, states, pictures, descriptions."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.mil.raw import Name, write
from toolkit.errors import ArtifactError, DataError
from toolkit.mil import ReferenceEvaluator

X = Name("x")
ROW = [("x", "fp32", (1, 2))]
RELU: list[Any] = [("relu", {"x": X}, [("y", "fp32", (1, 2))])]
ONES = np.array([[1, 2]], np.float32)
ADDS_A_CONSTANT: list[Any] = [
    ("const", {"val": ONES}, [("w", "fp32", (1, 2))]),
    ("identity", {"x": Name("w")}, [("same", "fp32", (1, 2))]),
    ("square", {"x": Name("w")}, [("squared", "fp32", (1, 2))]),
    ("add", {"x": X, "y": Name("same")}, [("y", "fp32", (1, 2))]),
]
COUNTS: list[Any] = [("read_state", {"input": Name("s")}, [("y", "fp16", (2,))])]


@pytest.fixture
def relu(tmp_path: Path) -> ReferenceEvaluator:
    return ReferenceEvaluator(write(tmp_path, ROW, RELU, ["y"]), "fp32")


def test_intermediates_are_the_callers_own(tmp_path: Path) -> None:
    evaluator = ReferenceEvaluator(_const(write(tmp_path, ROW, ADDS_A_CONSTANT, ["y"])), "fp32")
    given = np.zeros((1, 2), np.float32)
    for value in evaluator.predict({"x": given}, intermediates=True).values():
        value[:] = 100
    assert not given.any()
    assert evaluator.predict({"x": given})["y"].tolist() == ONES.tolist()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_value_that_depends_on_no_input_has_a_row_for_each(batch_size: int, tmp_path: Path) -> None:
    evaluator = ReferenceEvaluator(_const(write(tmp_path, ROW, ADDS_A_CONSTANT, ["y"])), "fp32")
    assert evaluator.why_not_batched is None
    found = evaluator.predict_array(np.zeros((5, 2)), batch_size, intermediates=["squared", "x"])
    assert found["squared"].tolist() == [[1, 4]] * 5
    assert found["x"].shape == found["y"].shape == (5, 2)


def _const(path: Path) -> Path:
    """A const has its value as an attribute, where other ops have inputs."""
    from toolkit.mil._proto import model_pb2

    spec = model_pb2().Model.FromString(path.read_bytes())
    function = spec.mlProgram.functions["main"]
    for op in function.block_specializations[function.opset].operations:
        if op.type == "const":
            op.attributes["val"].CopyFrom(op.inputs["val"].arguments[0].value)
            op.inputs.pop("val")
    path.write_bytes(spec.SerializeToString())
    return path


def classifier(folder: Path, rows: int, labels: list[str]) -> Path:
    outputs = [("label", "string", ()), ("probs", "dictionary", None)]
    ops = [("classify", {"probabilities": X, "classes": labels}, outputs)]
    return write(folder, [("x", "fp32", (rows, 3))], ops, ["label", "probs"])


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [(2, ["a", "b", "c"], "6 probabilities for 3 class labels"), (1, ["a", "b", "a"], "label 'a' stands for several classes")],
)
def test_a_classifier_gives_one_probability_for_each_label(rows: int, labels: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        ReferenceEvaluator(classifier(tmp_path, rows, labels))


def test_a_list_of_inputs_gives_a_list_of_results(relu: ReferenceEvaluator) -> None:
    first, second = relu.predict([{"x": ONES}, {"x": 2 * ONES}])
    assert (first["y"].tolist(), second["y"].tolist()) == ([[1, 2]], [[2, 4]])


WRONG: dict[str, tuple[Any, str]] = {
    "ragged": ({"x": [[1, 2], [3]]}, "input 'x' is no array"),
    "gradient": ({"x": torch.zeros(1, 2, requires_grad=True)}, "input 'x' is no array: .*requires grad"),
    "text": ({"x": [["a", "b"]]}, "input 'x' has type <U1, not numbers"),
    "nothing": (None, "inputs are a NoneType; give a dictionary"),
    "names": ({"x": ONES, 3: ONES}, "give exactly these"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_named(case: str, relu: ReferenceEvaluator) -> None:
    inputs, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        relu.predict(inputs)


def test_a_state_must_be_the_models_own(tmp_path: Path) -> None:
    def evaluator(name: str, size: int) -> ReferenceEvaluator:
        ops = [("read_state", {"input": Name(name)}, [("y", "fp16", (size,))])]
        return ReferenceEvaluator(write(tmp_path, [("x", "fp16", (2,)), (name, "state:fp16", (size,))], ops, ["y"], opset=18))

    counter = evaluator("s", 2)
    for state in (evaluator("t", 2).make_state(), evaluator("s", 3).make_state(), {"s": 1}):
        with pytest.raises(DataError, match=r"the state is .*the model's is \{'s': \(2,\)\}"):
            counter.predict({"x": np.zeros(2)}, state=state)
    with pytest.raises(DataError, match="the value of state 's' has type <U1, not numbers"):
        counter.make_state().write_state("s", ["a", "b"])


def picture_program(folder: Path, color: int, planes: int, dtype: str = "fp32", output: bool = False) -> Path:
    shape = (1, planes, 2, 2)
    colors = {"y" if output else "x": (color, 2, 2)}
    return write(folder, [("x", dtype, shape)], [("relu", {"x": X}, [("y", dtype, shape)])], ["y"], colors=colors)


def test_a_float_picture_gives_no_warning(tmp_path: Path) -> None:
    evaluator = ReferenceEvaluator(picture_program(tmp_path, 40, 1, "fp16"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluator.predict({"x": Image.new("F", (2, 2), 0.5)})["y"].tolist() == [[[[0.5, 0.5]] * 2]]


def test_an_alpha_plane_is_refused_as_coremltools_does(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mode RGB, not RGBA"):
        ReferenceEvaluator(picture_program(tmp_path, 20, 3)).predict({"x": Image.new("RGBA", (2, 2))})


def test_nan_is_no_pixel_and_no_integer(tmp_path: Path) -> None:
    picture = ReferenceEvaluator(picture_program(tmp_path, 20, 3, output=True))
    whole = ReferenceEvaluator(write(tmp_path, [("x", "int32", (1,))], [("abs", {"x": X}, [("y", "int32", (1,))])], ["y"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ArtifactError, match="output 'y' is a picture, and some of its values are NaN"):
            picture.predict({"x": np.full((1, 3, 2, 2), np.nan)})
        with pytest.raises(DataError, match="takes int32; some values do not fit"):
            whole.predict({"x": [np.nan]})


def describe(name: str, **changes: Any) -> Callable[[Any], None]:
    """Another array type in the description of an input or output."""

    def edit(spec: Any) -> None:
        found = next(each for each in (*spec.description.input, *spec.description.output) if each.name == name)
        array = found.type.multiArrayType
        for key, value in changes.items():
            if key == "shape":
                array.shape[:] = value
            else:
                setattr(array, key, value)

    return edit


LIES: dict[str, tuple[Callable[[Any], None], str]] = {
    "input shape": (describe("x", shape=[9, 9]), r"'x' is described with shape \(9, 9\), the program has fp32\[1, 2\]"),
    "output shape": (describe("y", shape=[1, 7]), r"'y' is described with shape \(1, 7\)"),
    "input type": (describe("x", dataType=131104), r"'x' is described as integers, the program has fp32"),
    "output type": (describe("y", dataType=131104), r"'y' is described as integers"),
    "no output": (lambda spec: spec.description.ClearField("output"), "the description names no output"),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_description_is_held_against_the_program(lie: str, tmp_path: Path) -> None:
    edit, message = LIES[lie]
    with pytest.raises(ArtifactError, match=message):
        ReferenceEvaluator(write(tmp_path, ROW, RELU, ["y"], edit=edit))


def test_what_core_ml_converts_is_no_lie(tmp_path: Path) -> None:
    """Doubles for floats; a scalar as [1]; and an output that nobody describes is not returned."""
    path = write(tmp_path, ROW, RELU, ["y", "x"], edit=lambda spec: (describe("x", dataType=65600)(spec), spec.description.output.pop()))
    assert list(ReferenceEvaluator(path).predict({"x": ONES})) == ["y"]
    scalar = write(tmp_path, [("x", "fp32", ())], [("relu", {"x": X}, [("y", "fp32", ())])], ["y"], edit=describe("x", shape=[1]))
    assert ReferenceEvaluator(scalar).predict({"x": 2.0})["y"].tolist() == [2]


def test_a_path_is_called_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is nothing at this path"):
        ReferenceEvaluator(tmp_path / "none.mlpackage")
    (tmp_path / "net.mlmodelc").mkdir()
    with pytest.raises(ArtifactError, match="a model compiled for Apple's devices"):
        ReferenceEvaluator(tmp_path / "net.mlmodelc")
