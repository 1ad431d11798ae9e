"""ReferenceEvaluator: a .mlpackage in, `MLModel.predict` out, on any machine."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from toolkit.errors import ArtifactError, DataError
from toolkit.limits import thread_count
from toolkit.mil import mixed
from toolkit.mil.binding import bind
from toolkit.mil.features import (
    Array,
    Feature,
    decode,
    default,
    encode,
    encode_many,
    host_array,
    input_features,
    output_features,
    picture,
    state_types,
)
from toolkit.mil.limits import Budget, Work, applied
from toolkit.mil.ops.types import Cell
from toolkit.mil.packing import pack
from toolkit.mil.plan import Plan, Routine, Target, execute, storage
from toolkit.mil.program import Program, load_program
from toolkit.mil.prove import prove

Inputs = Mapping[str, Any]


class State:
    """The memory of a stateful model, zeros at first; `MLState` of coremltools."""

    def __init__(self, cells: Mapping[str, Cell], targets: Mapping[str, Target]) -> None:
        self.cells, self._targets = cells, targets

    def read_state(self, name: str) -> Array:
        """What the state holds. Raises DataError when there is none of that name."""
        return decode(self._cell(name).value, self._targets[name].type).copy()

    def write_state(self, name: str, value: Any) -> None:
        """Replaces what the state holds. Raises DataError when the shape is not the state's."""
        cell = self._cell(name)
        array = host_array(f"the value of state {name!r}", value)
        if array.shape != tuple(cell.value.shape):
            raise DataError(f"state {name!r} has shape {tuple(cell.value.shape)}, not {array.shape}.")
        native = np.require(array, array.dtype.newbyteorder("="), ["C"])  # torch takes no reversed or big-endian array
        cell.value = self._targets[name].settle(torch.tensor(native))

    def _cell(self, name: str) -> Cell:
        if name not in self.cells:
            raise DataError(f"the model has no state {name!r}, only {', '.join(self.cells) or 'none at all'}.")
        return self.cells[name]


class ReferenceEvaluator:
    """Runs one function of an ML Program (None: the default one, else 'main').

    mode: 'as-typed' rounds each result to the type the program declares; 'fp32' and 'exact' (float64) do not round.
    threads: PyTorch threads while running, None for what the process has set.
    keep_fp32: values of an fp16 program that as-typed mode keeps in float32, to try mixed precision (mixed.py).
    budget: the memory and the operations that one prediction may take, by default what this machine has (limits.py).
    Pickled and copied as its path and its arguments: the copy reads the package again.
    Raises ArtifactError at construction for anything damaged or unknown or too large, DataError later for a wrong input.
    """

    def __init__(
        self, path: str | Path, mode: str = "as-typed", function: str | None = None, threads: int | None = None,
        keep_fp32: frozenset[str] = frozenset(), budget: Budget | None = None,
    ) -> None:  # fmt: skip
        self.budget = budget or Budget()
        self.threads = thread_count(threads)
        self.mode = mode
        self._again = (Path(path).absolute(), mode, function, threads, keep_fp32, budget)
        with applied(Work(self.budget)):
            self._load(load_program(path, function), keep_fp32)

    def _load(self, program: Program, keep_fp32: frozenset[str]) -> None:
        mode = self.mode
        self.features: tuple[Feature, ...] = input_features(program)
        self._states = {name: Target.of(-1, name, type_, mode) for name, type_ in state_types(program).items()}
        self.function = program.function
        self._files = program.files
        self.opset = program.opset
        self._plan: Plan = bind(program, mode)
        types = self._plan.types
        described = output_features(program, {name: types[slot] for name, slot in self._plan.outputs.items()})
        self._pictures = {name: each for name, each in described.items() if each.color is not None}
        names = {each.name for each in program.interface.output}
        self._plan.outputs = {name: slot for name, slot in self._plan.outputs.items() if name in names}
        if keep_fp32:
            mixed.keep_fp32(self._plan, keep_fp32)
        prove(self._plan)
        if not keep_fp32:
            pack(self._plan)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self._files, self._again)

    @property
    def class_labels(self) -> tuple[Any, ...]:
        """The classifier's labels in the order of `predict_array`'s probabilities; empty without a classifier."""
        return self._plan.classes

    @property
    def op_types(self) -> frozenset[str]:
        """The ops that run, nested blocks included; constexpr_* included, though they run at load."""
        return frozenset(_op_types(self._plan.routine)) | self._plan.constexpr

    @property
    def rounded(self) -> tuple[str, ...]:
        """What ops outside nested blocks compute in fp16, by the program's own types and in its order."""
        computed = [target for step in self._plan.routine.steps for target in step.outputs]
        return tuple(target.name for target in computed if target.type.dtype == "fp16")

    @property
    def readers(self) -> Mapping[str, tuple[str, ...]]:
        """Value -> the first outputs of the ops that read it."""
        return mixed.readers(self._plan)

    @property
    def why_not_batched(self) -> str | None:
        """None where N inputs may go through at once, else the reason why `predict_array` runs them one by one."""
        return self._plan.why_not_batched

    def make_state(self) -> State:
        """A fresh state, zeros, to hand to `predict` again and again. Empty for a model without state."""
        cells = {name: Cell(torch.zeros(each.type.sizes, dtype=storage(each.type.dtype, self.mode))) for name, each in self._states.items()}
        return State(cells, self._states)

    @overload
    def predict(self, inputs: Inputs, state: State | None = None, intermediates: bool | Iterable[str] = False) -> dict[str, Any]: ...

    @overload
    def predict(
        self, inputs: list[Inputs], state: State | None = None, intermediates: bool | Iterable[str] = False
    ) -> list[dict[str, Any]]: ...

    def predict(
        self, inputs: Inputs | list[Inputs], state: State | None = None, intermediates: bool | Iterable[str] = False
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Outputs by name: arrays, the label, {label: probability}. Pictures go in as PIL images, the rest as arrays.

        inputs: a dictionary; or, as MLModel.predict has it, a list of them, which gives a list of results.
        state: from `make_state`, for a stateful model; it is changed.
        intermediates: True, or names of values of the program, adds those values in the type the program declares.
        """
        if isinstance(inputs, list):
            return [self.predict(each, state, intermediates) for each in inputs]
        tensors = self._encoded(inputs)
        cells = self._cells(state)
        wanted = self._wanted(intermediates)
        with self._running():
            slots = execute(self._plan, tensors, states=cells, keep=frozenset(wanted.values()))
        outputs = {name: self._output(name, slots, slot) for name, slot in self._plan.outputs.items()}
        return {name: self._intermediate(slots, slot) for name, slot in wanted.items()} | outputs

    def _encoded(self, inputs: Any) -> dict[str, torch.Tensor]:
        """One set of inputs as tensors. Raises DataError unless they are exactly those that the model takes."""
        optional = {feature.name for feature in self.features if feature.default is not None}
        names = {feature.name for feature in self.features}
        if not isinstance(inputs, Mapping):
            raise DataError(f"inputs are a {type(inputs).__name__}; give a dictionary of {sorted(names)}, or a list of dictionaries.")
        if not names - optional <= set(inputs) <= names:
            raise DataError(f"inputs are {sorted(map(str, inputs))}, the model takes {sorted(names)}: give exactly these.")
        with applied(Work(self.budget)):
            return {each.name: encode(each, inputs[each.name]) if each.name in inputs else default(each) for each in self.features}

    def _cells(self, state: State | None) -> Mapping[str, Cell] | None:
        """The memory of `state`. Raises DataError unless it is one of this model's."""
        if self._states and state is None:
            raise DataError("the model has state: give predict the state that make_state() returns.")
        if state is None:
            return None
        wanted = {name: each.type.sizes for name, each in self._states.items()}
        given = {name: tuple(cell.value.shape) for name, cell in state.cells.items()} if isinstance(state, State) else state
        if given != wanted:
            raise DataError(f"the state is {given}, the model's is {wanted}: give predict what its own make_state() returns.")
        return state.cells

    def predict_array(self, images: Any, batch_size: int = 64, intermediates: Iterable[str] = ()) -> dict[str, Array]:
        """Stacked inputs (N, …) of a model with one input, to stacked outputs: the fast path for a whole data set.

        Pictures are planes in the order of the model's colour space: a model that takes BGR is given BGR here, while `predict` takes
        a PIL picture, which is RGB, and turns it round.
        For a classifier the label output is an array of N labels and the probabilities are (N, classes) in the order of
        `class_labels`. Up to `batch_size` inputs, as many as fit in memory, go through at once where that is proved to be the same
        (see batching.py; the last bits of convolutions may differ), otherwise one by one. `intermediates`: values of the program
        to return as well.
        """
        if len(self.features) != 1 or self._states:
            raise DataError(f"predict_array takes one input and no state, the model has {len(self.features)} inputs: use predict.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        feature = self.features[0]
        stacked = encode_many(feature, images)
        wanted = self._wanted(list(intermediates))
        size = min(batch_size, self._plan.room(wanted.values()))
        named, keep = wanted | self._plan.outputs, frozenset(wanted.values())
        chunks: list[dict[str, Array]] = []
        with self._running():
            for start in range(0, len(stacked), size):
                chunk = stacked[start : start + size]
                slots = execute(self._plan, {feature.name: chunk}, batch=len(chunk), keep=keep)
                chunks.append({name: self._rows(name, slots, slot, len(chunk)) for name, slot in named.items()})
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in named}

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and the number of threads asked for; PyTorch's setting is the process's, so it is put back."""
        before = torch.get_num_threads()
        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            with torch.inference_mode():
                yield
        finally:
            if self.threads is not None:
                torch.set_num_threads(before)

    def _wanted(self, intermediates: bool | Iterable[str]) -> dict[str, int]:
        values = self._plan.values
        names = (list(values) if intermediates else []) if isinstance(intermediates, bool) else list(intermediates)
        unknown = [name for name in names if name not in values]
        if unknown:
            raise DataError(f"the program computes no {', '.join(unknown)}; it computes {', '.join(values)}.")
        wanted = {name: values[name] for name in names}
        if self._plan.room(wanted.values()) < 1:
            raise DataError(
                f"{len(names)} intermediates do not fit in memory together, more than {self.budget.live} numbers: ask for fewer."
            )
        return wanted

    def _output(self, name: str, slots: list[Any], slot: int) -> Any:
        """As MLModel.predict: a dictionary of Python floats, a plain label, a picture, or an array."""
        value = slots[slot]
        if self._plan.types[slot].dtype == "dictionary":
            return dict(zip(self.class_labels, self._each_one_row(value)[0].tolist(), strict=True))
        if name in self._pictures:
            return picture(self._pictures[name], value)
        if not isinstance(value, torch.Tensor):
            return self._each_one_row(value)[0] if isinstance(value, list) else value
        return decode(value, self._plan.types[slot]).copy()  # it may be a constant of the plan, or the caller's own input

    def _rows(self, name: str, slots: list[Any], slot: int, count: int) -> Array:
        """With the `count` inputs along axis 0; what depends on no input is the same for each."""
        value, type_ = slots[slot], self._plan.types[slot]
        if type_.dtype == "list":
            raise DataError(f"{name!r} is a list, whose elements do not stack: use predict.")
        if isinstance(value, list) or type_.dtype == "dictionary":  # what classify gives
            labels: Array = np.asarray(self._each_one_row(value, count))
            return labels
        array = decode(value, type_)
        rows = array if (type_.shape or ())[:1] == (1,) else array[None]
        return rows if slot in self._plan.batched else np.repeat(rows, count, axis=0)

    def _each_one_row(self, classified: Any, count: int = 1) -> Any:
        if len(classified) != count:
            raise ArtifactError(
                f"the classifier gives {len(classified)} rows of probabilities for {count} inputs; one for each is defined."
            )
        return classified

    def _intermediate(self, slots: list[Any], slot: int) -> Any:
        """In the declared type: as-typed fp16 values are held in float32 and go back without loss. Always a copy."""
        value, type_ = slots[slot], self._plan.types[slot]
        if type_.dtype == "list":
            return [None if each is None else each.numpy().copy() for each in value.items]
        if type_.dtype == "dictionary" or not isinstance(value, torch.Tensor):
            return self._output("", slots, slot)
        if self.mode == "as-typed" and type_.dtype == "fp16":
            return value.to(torch.float16).numpy()
        return (decode(value, type_) if value.ndim else value.numpy()).copy()


def _opened_again(files: tuple[Any, ...], arguments: tuple[Any, ...]) -> ReferenceEvaluator:
    """What unpickling calls. Raises ArtifactError where the package is another one by now."""
    evaluator = ReferenceEvaluator(*arguments)
    if evaluator._files != files:
        raise ArtifactError(f"{arguments[0]} was changed after the evaluator was made that is copied here. Make a new one from the path.")
    return evaluator


def _op_types(routine: Routine) -> Iterator[str]:
    for step in routine.steps:
        yield step.operation.type
        for block in step.blocks:
            yield from _op_types(block)
