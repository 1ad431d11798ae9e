"""Control flow, lists, states, functions and flexible shapes, in programs that coremltools writes."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.errors import ArtifactError, DataError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil._coremltools import import_coremltools
from toolkit.mil._proto import model_pb2
from toolkit.mil.ops import control

Build = Callable[..., Path]
ONE = np.ones(1, np.float32)


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


@contextmanager
def _quiet() -> Iterator[None]:
    """coremltools' models say, when they go, that their temporary folder went with them. They go before this ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


def _save(program: Any, path: Path, **options: Any) -> Path:
    ct: Any = import_coremltools()
    with _quiet():
        ct.convert(program, convert_to="mlprogram", skip_model_load=True, **options).save(str(path))
    return path


def collatz(x: Any) -> Any:
    """x [1] int32 -> how many steps to 1: a loop with a branch in it."""
    mb = _mb()

    def step(value: Any, count: Any) -> Any:
        even = mb.equal(x=mb.mod(x=value, y=2), y=np.array([0], np.int32))
        flat = mb.squeeze(x=even, axes=[0])
        after = mb.cond(pred=flat, _true_fn=lambda: mb.floor_div(x=value, y=2), _false_fn=lambda: mb.add(x=mb.mul(x=value, y=3), y=1))
        return after, mb.add(x=count, y=1)

    def going(value: Any, count: Any) -> Any:
        return mb.squeeze(x=mb.not_equal(x=value, y=np.array([1], np.int32)), axes=[0])

    start = mb.identity(x=np.array([0], np.int32))
    return mb.while_loop(_cond=going, _body=step, loop_vars=(x, start))[1]


@pytest.mark.parametrize(("start", "steps"), [(1, 0), (6, 8), (27, 111)])
def test_loops_and_branches_nest(start: int, steps: int, build: Build) -> None:
    (result,) = ReferenceEvaluator(build(collatz, (1,), dtype="int32")).predict({"x": np.array([start])}).values()
    assert result.tolist() == [steps]


def test_both_branches_see_outer_values_and_the_one_asked_for_runs(build: Build) -> None:
    mb = _mb()

    def program(x: Any) -> Any:
        outer = mb.mul(x=x, y=10.0)
        positive = mb.squeeze(x=mb.greater(x=x, y=0.0), axes=[0])
        return mb.cond(pred=positive, _true_fn=lambda: mb.add(x=outer, y=1.0), _false_fn=lambda: mb.identity(x=outer))

    evaluator = ReferenceEvaluator(build(program, (1,)))
    for value, expected in ((2.0, 21.0), (-2.0, -20.0), (3.0, 31.0)):
        assert next(iter(evaluator.predict({"x": ONE * value}).values())).tolist() == [expected]
    assert evaluator.why_not_batched is not None


def test_a_loop_without_end_is_an_error(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    mb = _mb()
    monkeypatch.setattr(control, "MAX_ITERATIONS", 50)

    def program(x: Any) -> Any:
        return mb.while_loop(
            _cond=lambda v: mb.squeeze(x=mb.greater(x=v, y=-1.0), axes=[0]), _body=lambda v: mb.abs(x=mb.add(x=v, y=1.0)), loop_vars=(x,)
        )

    with pytest.raises(ArtifactError, match=r"while_loop.*still runs after 50 rounds"):
        ReferenceEvaluator(build(program, (1,))).predict({"x": ONE})


def test_lists_are_written_read_gathered_and_grow(build: Build) -> None:
    mb = _mb()

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=2, elem_shape=(1,), dtype="fp32", dynamic_length=True)
        ls = mb.list_write(ls=ls, index=0, value=x)
        ls = mb.list_write(ls=ls, index=2, value=mb.mul(x=x, y=3.0))
        ls = mb.list_scatter(ls=ls, indices=np.array([1], np.int32), value=mb.expand_dims(x=mb.add(x=x, y=5.0), axes=[0]))
        read = mb.list_read(ls=ls, index=1)
        every = mb.list_gather(ls=ls, indices=np.array([2, 0, 1], np.int32))
        return mb.add(x=every, y=mb.mul(x=read, y=100.0))

    (result,) = ReferenceEvaluator(build(program, (1,))).predict({"x": ONE * 2}).values()
    assert result[:, 0].tolist() == [706.0, 702.0, 707.0]


def test_a_loop_may_carry_a_list(build: Build) -> None:
    mb = _mb()

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=1, elem_shape=(1,), dtype="fp32", dynamic_length=True)

        def body(index: Any, ls: Any) -> Any:
            return mb.add(x=index, y=1), mb.list_write(ls=ls, index=index, value=mb.add(x=x, y=mb.cast(x=index, dtype="fp32")))

        _, ls = mb.while_loop(_cond=lambda index, ls: mb.less(x=index, y=3), _body=body, loop_vars=(0, ls))
        return mb.list_gather(ls=ls, indices=np.array([2, 0], np.int32))

    (result,) = ReferenceEvaluator(build(program, (1,))).predict({"x": ONE}).values()
    assert result[:, 0].tolist() == [3, 1]


def test_an_element_nobody_wrote_is_zero_and_one_outside_is_refused(build: Build) -> None:
    mb = _mb()

    def program(index: int) -> Callable[[Any], Any]:
        def body(x: Any) -> Any:
            ls = mb.make_list(init_length=3, elem_shape=(1,), dtype="fp32", dynamic_length=False)
            return mb.list_read(ls=mb.list_write(ls=ls, index=0, value=x), index=index)

        return body

    assert next(iter(ReferenceEvaluator(build(program(1), (1,))).predict({"x": ONE}).values())).tolist() == [0]
    with pytest.raises(ArtifactError, match="index 3 into a list of 3"):
        ReferenceEvaluator(build(program(3), (1,))).predict({"x": ONE})


@pytest.fixture(scope="module")
def accumulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = s + x, and s becomes y: fp16, as Core ML wants states."""
    ct: Any = import_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    specs = [mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(x: Any, memory: Any) -> Any:
        return mb.coreml_update_state(state=memory, value=mb.add(x=mb.read_state(input=memory), y=x, name="total"), name="y")

    path = tmp_path_factory.mktemp("state") / "accumulator.mlpackage"
    return _save(program, path, minimum_deployment_target=ct.target.iOS18)


def test_a_state_is_zero_at_first_and_remembers(accumulator: Path) -> None:
    evaluator = ReferenceEvaluator(accumulator)
    (name,) = {value.name for value in evaluator.features}
    state, other = evaluator.make_state(), evaluator.make_state()
    outputs = [next(iter(evaluator.predict({name: np.array([1.0, each])}, state=state).values())).tolist() for each in (1, 2, 3)]
    assert outputs == [[1, 1], [2, 3], [3, 6]]
    assert state.read_state("memory").tolist() == [3, 6]
    assert other.read_state("memory").tolist() == [0, 0]
    state.write_state("memory", np.array([100.0, 2049.0]))  # 2049 is no fp16 number
    assert state.read_state("memory").tolist() == [100, 2048]
    assert evaluator.why_not_batched is not None


def test_what_is_wrong_with_a_state_is_said(accumulator: Path) -> None:
    evaluator = ReferenceEvaluator(accumulator)
    (name,) = {value.name for value in evaluator.features}
    with pytest.raises(DataError, match="give predict the state that make_state"):
        evaluator.predict({name: np.zeros(2)})
    with pytest.raises(DataError, match="no state 'memo', only memory"):
        evaluator.make_state().read_state("memo")
    with pytest.raises(DataError, match=r"shape \(2,\), not \(3,\)"):
        evaluator.make_state().write_state("memory", np.zeros(3))


def test_flexible_shapes_run_at_every_size_allowed_and_no_other(tmp_path: Path) -> None:
    ct: Any = import_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol

    @mb.program(input_specs=[mb.TensorSpec((1, get_new_symbol(), 3))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        pairs = mb.reshape(x=x, shape=mb.concat(values=(mb.shape(x=mb.squeeze(x=x, axes=[0])), [1]), axis=0))
        return mb.reduce_sum(x=mb.mul(x=pairs, y=2.0), axes=[0])

    options = {"minimum_deployment_target": ct.target.iOS17, "compute_precision": ct.precision.FLOAT32}
    ranged = ct.TensorType(name="x", shape=(1, ct.RangeDim(2, 5), 3))
    evaluator = ReferenceEvaluator(_save(program, tmp_path / "ranged.mlpackage", inputs=[ranged], **options))
    for length in (2, 5):
        x = np.arange(length * 3, dtype=np.float32).reshape(1, length, 3)
        (result,) = evaluator.predict({"x": x}).values()
        np.testing.assert_array_equal(result[:, 0], 2 * x.sum((0, 1)))
    with pytest.raises(DataError, match=r"Size \(6\) of dimension \(1\) is not in allowed range \(2\.\.5\)"):
        evaluator.predict({"x": np.zeros((1, 6, 3))})
    listed = ct.TensorType(name="x", shape=ct.EnumeratedShapes([(1, 2, 3), (1, 4, 3)]))
    evaluator = ReferenceEvaluator(_save(program, tmp_path / "listed.mlpackage", inputs=[listed], **options))
    assert next(iter(evaluator.predict({"x": np.ones((1, 4, 3))}).values())).tolist() == [[8], [8], [8]]
    with pytest.raises(DataError, match=r"MultiArray Shape \(1 x 3 x 3\) was not in enumerated.*\(1, 2, 3\), \(1, 4, 3\)"):
        evaluator.predict({"x": np.zeros((1, 3, 3))})


def test_an_optional_input_has_its_default(tmp_path: Path) -> None:
    ct: Any = import_coremltools()
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((2,)), mb.TensorSpec((2,))], opset_version=ct.target.iOS16)
    def program(x: Any, y: Any) -> Any:
        return mb.sub(x=x, y=y)

    inputs = [ct.TensorType(name="x", shape=(2,)), ct.TensorType(name="y", shape=(2,), default_value=np.full(2, 7, np.float32))]
    path = _save(program, tmp_path / "o.mlpackage", inputs=inputs, minimum_deployment_target=ct.target.iOS16)
    evaluator = ReferenceEvaluator(path)
    assert next(iter(evaluator.predict({"x": np.array([8.0, 9.0])}).values())).tolist() == [1, 2]
    assert next(iter(evaluator.predict({"x": np.array([8.0, 9.0]), "y": np.zeros(2)}).values())).tolist() == [8, 9]


@pytest.mark.parametrize(("layout", "mode"), [("RGB", "RGBA"), ("BGR", "RGBA"), ("GRAYSCALE", "L")])
def test_picture_outputs_are_clamped_pictures_in_the_declared_order(layout: str, mode: str, tmp_path: Path) -> None:
    ct: Any = import_coremltools()
    from coremltools.converters.mil import Builder as mb
    from PIL import Image

    planes = 1 if layout == "GRAYSCALE" else 3

    @mb.program(input_specs=[mb.TensorSpec((1, planes, 2, 2))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.mul(x=x, y=2.0, name="out")

    kind = getattr(ct.colorlayout, layout)
    inputs = [ct.ImageType(name="x", shape=(1, planes, 2, 2), color_layout=kind)]
    path = _save(program, tmp_path / "p.mlpackage", inputs=inputs, minimum_deployment_target=ct.target.iOS16)
    model = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = model_pb2().Model.FromString(model.read_bytes())
    spec.description.output[0].type.imageType.CopyFrom(spec.description.input[0].type.imageType)
    model.write_bytes(spec.SerializeToString())
    color = 10 if layout == "GRAYSCALE" else (10, 20, 200)
    picture = ReferenceEvaluator(path).predict({"x": Image.new("L" if planes == 1 else "RGB", (2, 2), color)})["out"]
    assert (picture.mode, picture.size) == (mode, (2, 2))
    assert picture.getpixel((1, 1)) == (20 if planes == 1 else (20, 40, 255, 255))


def test_functions_are_told_apart(tmp_path: Path, build: Build) -> None:
    ct: Any = import_coremltools()
    mb = _mb()
    paths = {}
    for name, factor in (("double", 2.0), ("triple", 3.0)):

        def body(x: Any) -> Any:
            return mb.mul(x=x, y=factor, name="y")  # noqa: B023 (it is called before the loop goes on)

        program = mb.program(input_specs=[mb.TensorSpec((1,))], opset_version=ct.target.iOS18)(body)
        paths[name] = _save(program, tmp_path / f"{name}.mlpackage", minimum_deployment_target=ct.target.iOS18)
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, path in paths.items():
        descriptor.add_function(str(path), "main", name)
    descriptor.default_function_name = "triple"
    both = tmp_path / "both.mlpackage"
    with _quiet():
        ct.utils.save_multifunction(descriptor, str(both))
    assert ReferenceEvaluator(both, function="double").predict({"x": ONE})["y"].tolist() == [2]
    assert ReferenceEvaluator(both).function == "triple"
    assert ReferenceEvaluator(both).predict({"x": ONE})["y"].tolist() == [3]


def test_the_length_of_a_list_counts_what_was_never_written(build: Build) -> None:
    mb = _mb()

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=2, elem_shape=(1,), dtype="fp32", dynamic_length=True)
        return mb.list_length(ls=mb.list_write(ls=ls, index=6, value=x))

    assert next(iter(ReferenceEvaluator(build(program, (1,))).predict({"x": ONE}).values())).tolist() == [7]


def test_classify_names_the_first_of_the_largest_and_keeps_the_order_of_the_classes() -> None:
    labels, table = control.classify(torch.tensor([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]]), ("c", "a", "b"))
    assert labels == ["a", "c"]
    np.testing.assert_array_equal(table.numpy(), np.array([[0.2, 0.4, 0.4], [0.6, 0.3, 0.1]], np.float32))


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d"), ()])
def test_classify_refuses_labels_that_do_not_fit(labels: tuple[str, ...]) -> None:
    with pytest.raises(ArtifactError, match=f"3 probabilities for {len(labels)} class labels"):
        control.classify(torch.tensor([[0.2, 0.4, 0.4]]), labels)


@pytest.mark.parametrize("value", [np.array([2.0, 1.0])[::-1], np.array([1.0, 2.0], ">f4")])
def test_a_state_takes_an_array_of_any_layout(accumulator: Path, value: np.ndarray[Any, Any]) -> None:
    state = ReferenceEvaluator(accumulator).make_state()
    state.write_state("memory", value)
    assert state.read_state("memory").tolist() == [1, 2]
