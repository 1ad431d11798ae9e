"""A package cannot take the machine down: what is too large is refused before memory is taken or time is spent."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import ArtifactError
from toolkit.mil import ReferenceEvaluator
from toolkit.mil._proto import model_pb2
from toolkit.mil.ops import control
from toolkit.mil.ops.table import OPS

Build = Callable[..., Path]
X = (1, 2, 4, 4)


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


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


def test_constants_count_together(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.mil.binding.MAX_LIVE_ELEMENTS", 40)
    path = build(lambda x: _mb().add(x=_mb().add(x=x, y=np.ones(X, np.float32)), y=np.full(X, 2, np.float32)), X)
    with pytest.raises(ArtifactError, match="constants of 64 elements, more than 40"):
        ReferenceEvaluator(path)


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
