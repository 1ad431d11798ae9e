"""A package cannot take the machine down: what is too large is refused before memory is taken or time is spent."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.mil.raw import Name, write
from toolkit.errors import ArtifactError, DataError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil._proto import model_pb2
from toolkit.mil.limits import Budget
from toolkit.mil.ops import control
from toolkit.mil.ops.table import OPS
from toolkit.mil.ops.types import TensorList

Build = Callable[..., Path]
X = (1, 2, 4, 4)


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


def holding(elements: int) -> Budget:
    """Budget under which so many elements may be alive."""
    return Budget(memory_bytes=16 * elements)


def edit(path: Path, act: Callable[[Any], None]) -> Path:
    """Changes the main block of a package in place."""
    model = path / "Data/com.apple.CoreML/model.mlmodel"
    spec = model_pb2().Model.FromString(model.read_bytes())
    function = spec.mlProgram.functions["main"]
    act(function.block_specializations[function.opset])
    model.write_bytes(spec.SerializeToString())
    return path


def huge(parameter: str, value: int = 2**30) -> Callable[[Any], None]:
    """Sets every number of a constant parameter of the last op to `value`, and leaves the shapes of results open."""

    def act(block: Any) -> None:
        op = block.operations[-1]
        name = op.inputs[parameter].arguments[0].name
        const = next(each for each in block.operations if each.outputs[0].name == name)
        for tensor in (const.attributes["val"].immediateValue.tensor,):
            values = tensor.ints.values or tensor.floats.values
            values[:] = [value] * len(values)
        for dimension in op.outputs[0].type.tensorType.dimensions:
            dimension.unknown.variadic = False

    return act


PROGRAMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tile": (lambda x: _mb().tile(x=x, reps=[1, 1, 2, 2]), "reps"),
    "pad": (lambda x: _mb().pad(x=x, pad=[1, 1, 1, 1]), "pad"),
    "reflect": (lambda x: _mb().pad(x=x, pad=[1, 1, 1, 1], mode="reflect"), "pad"),
    "upsample": (lambda x: _mb().upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=2), "scale_factor_height"),
    "resize": (lambda x: _mb().resize_bilinear(x=x, target_size_height=5, target_size_width=5), "target_size_height"),
    "conv": (lambda x: _mb().conv(x=x, weight=np.ones((1, 2, 1, 1), np.float32), pad_type="custom", pad=[1, 1, 1, 1]), "pad"),
    "max_pool": (lambda x: _mb().max_pool(x=x, kernel_sizes=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]), "pad"),
    "space_to_batch": (lambda x: _mb().space_to_batch(x=x, block_shape=[2, 2], paddings=[[1, 1], [1, 1]]), "paddings"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_op_that_asks_for_too_much_is_refused_at_no_cost(name: str, build: Build) -> None:
    program, parameter = PROGRAMS[name]
    path = edit(build(program, X), huge(parameter))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError):
        ReferenceEvaluator(path).predict({"x": np.ones(X)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB; the results would have been 8 GiB and more


@pytest.mark.parametrize("op", ["fill", "random_normal", "random_uniform", "random_bernoulli"])
def test_ops_made_of_a_shape_alone_look_at_it_first(op: str) -> None:
    with pytest.raises(ArtifactError, match="more than"):
        OPS[op].function(shape=(2**20, 2**20))


def test_broadcasting_counts_as_well(build: Build) -> None:
    mb = _mb()
    path = build(lambda x: mb.add(x=mb.reshape(x=x, shape=[-1, 1]), y=mb.reshape(x=x, shape=[1, -1])), (2**15,))
    with pytest.raises(ArtifactError, match="elements"):
        ReferenceEvaluator(path).predict({"x": np.ones(2**15)})


def test_a_list_does_not_grow_without_bound(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    mb = _mb()
    monkeypatch.setattr(control, "MAX_ITERATIONS", 100)

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=1, elem_shape=(1,), dtype="fp32", dynamic_length=True)
        return mb.list_length(ls=mb.list_write(ls=ls, index=100, value=x))

    with pytest.raises(ArtifactError, match=r"indices \[100\] are not 0\.\.99"):
        ReferenceEvaluator(build(program, (1,))).predict({"x": np.ones(1)})


def test_constants_count_together(build: Build) -> None:
    mb = _mb()
    path = build(
        lambda x: mb.mul(
            x=mb.add(x=x, y=np.ones(X, np.float32)), y=mb.sub(x=np.full(X, 2, np.float32), y=mb.mul(x=x, y=np.full(X, 3, np.float32)))
        ),
        X,
    )
    with pytest.raises(ArtifactError, match="constants of 96 elements, more than 64"):
        ReferenceEvaluator(path, budget=holding(64))


def test_programs_of_too_many_ops_are_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.mil.program.MAX_OPERATIONS", 2)
    with pytest.raises(ArtifactError, match="more than 2 ops"):
        ReferenceEvaluator(build(lambda x: _mb().relu(x=_mb().add(x=x, y=1.0)), X))


def test_a_parameter_that_is_computed_forbids_stacking(build: Build) -> None:
    """Even where the file declares every shape: the rules look at values, and there is none yet."""
    mb = _mb()

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=3, elem_shape=(1,), dtype="fp32", dynamic_length=True)
        length = mb.expand_dims(x=mb.list_length(ls=ls), axes=[0])
        return mb.slice_by_index(x=x, begin=[0, 0], end=mb.concat(values=[np.array([1], np.int32), length], axis=0))

    def declare(block: Any) -> None:
        for dimension, size in zip(block.operations[-1].outputs[0].type.tensorType.dimensions, (1, 3), strict=True):
            dimension.constant.size = size

    evaluator = ReferenceEvaluator(edit(build(program, (1, 4)), declare))
    assert "slice_by_index" in str(evaluator.why_not_batched)
    assert next(iter(evaluator.predict({"x": np.array([[1.0, 2, 3, 4]])}).values())).tolist() == [[1, 2, 3]]


def test_a_list_where_a_number_is_wanted_is_refused(build: Build) -> None:
    mb = _mb()

    def program(x: Any) -> Any:
        ls = mb.make_list(init_length=3, elem_shape=(1,), dtype="fp32", dynamic_length=True)
        return mb.list_read(ls=mb.list_write(ls=ls, index=mb.list_length(ls=ls), value=x), index=0)

    def swap(block: Any) -> None:
        write = next(op for op in block.operations if op.type == "list_write")
        write.inputs["index"].arguments[0].name = write.inputs["ls"].arguments[0].name

    with pytest.raises(ArtifactError, match="'index' is computed, as list of"):
        ReferenceEvaluator(edit(build(program, (1,)), swap))


def grown() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_gathering_a_large_blank_is_refused_at_no_cost() -> None:
    """Sixteen times the same zeros of 2^28 elements, of which nobody holds one."""
    ls = TensorList((None,), torch.zeros(()).expand(2**28))
    before = grown()
    with pytest.raises(ArtifactError, match=r"16 elements of \[268435456\]: more than"):
        control.list_gather(ls, (0,) * 16)
    assert grown() - before < 500_000


@pytest.mark.parametrize("ios", [15, 17])
def test_boxes_of_many_images_are_refused_at_no_cost(ios: int) -> None:
    boxes, scores = torch.ones(2048, 1, 4), torch.ones(2048, 1, 1)
    before = grown()
    with pytest.raises(ArtifactError, match="for each of 2048 images: more than"):
        OPS["non_maximum_suppression"].function(
            boxes.mT if ios == 17 else boxes, scores.mT if ios == 17 else scores, iou_threshold=0.5, max_boxes=2**20, ios=ios
        )
    assert grown() - before < 500_000


def test_elements_of_lists_are_alive(build: Build) -> None:
    """A loop that writes another value each round into a list."""
    mb = _mb()
    budget = holding(6000)  # an item counts for 128 elements besides its own

    def program(rounds: int) -> Callable[[Any], Any]:
        def body(x: Any) -> Any:
            ls = mb.make_list(init_length=1, elem_shape=(32,), dtype="fp32", dynamic_length=True)
            _, ls, _ = mb.while_loop(
                _cond=lambda i, ls, v: mb.less(x=i, y=rounds),
                _body=lambda i, ls, v: (mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=mb.mul(x=v, y=2.0)), mb.mul(x=v, y=3.0)),
                loop_vars=(0, ls, x),
            )
            return mb.list_length(ls=ls)

        return body

    evaluator = ReferenceEvaluator(build(program(20), (32,)), budget=budget)
    assert next(iter(evaluator.predict({"x": np.ones(32)}).values())).tolist() == [20]
    with pytest.raises(ArtifactError, match="more than 6000 elements alive"):
        ReferenceEvaluator(build(program(200), (32,)), budget=budget).predict({"x": np.ones(32)})


def test_a_list_does_not_keep_what_its_elements_were_cut_from() -> None:
    written = control.list_write(TensorList((), None), 0, torch.zeros(1000)[:1])
    assert written.items[0] is not None
    assert written.items[0].untyped_storage().nbytes() == 4


def test_states_count_as_well(tmp_path: Path) -> None:
    states = [(f"s{index}", "state:fp16", (2**28,)) for index in range(20)]
    path = write(tmp_path, [("x", "fp16", (2,)), *states], [("relu", {"x": Name("x")}, [("y", "fp16", (2,))])], ["y"], opset=18)
    with pytest.raises(ArtifactError, match="elements alive at the start, more than"):
        ReferenceEvaluator(path, budget=Budget(memory_bytes=16 << 30))


def test_no_more_inputs_are_stacked_than_fit(build: Build) -> None:
    """The stack shrinks; one input and what is asked for beside it must fit."""
    mb = _mb()
    evaluator = ReferenceEvaluator(build(lambda x: mb.tanh(x=mb.relu(x=x, name="a")), (1, 32)), budget=holding(1000))
    sizes: list[int] = []
    tanh = OPS["tanh"].function

    def watched(x: torch.Tensor) -> Any:
        sizes.append(len(x))
        return tanh(x)

    (step,) = (each for each in evaluator._plan.routine.steps if each.operation.type == "tanh")
    step.call = watched
    evaluator._plan.fast = None
    (result,) = evaluator.predict_array(np.zeros((25, 32))).values()
    assert result.shape == (25, 32)
    assert max(sizes) * evaluator._plan.peak <= 1000 < (max(sizes) + 1) * evaluator._plan.peak
    evaluator._plan.budget = holding(evaluator._plan.peak)
    with pytest.raises(DataError, match="1 intermediates do not fit in memory together"):
        evaluator.predict({"x": np.zeros((1, 32))}, intermediates=["a"])
