"""ReferenceEvaluator: a .mlpackage in, `MLModel.predict` out, on any machine."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.errors import DataError
from toolkit.mil.binding import bind
from toolkit.mil.features import Array, Feature, check_outputs, decode, encode, encode_many, input_features
from toolkit.mil.plan import Plan, execute
from toolkit.mil.program import load_program


class ReferenceEvaluator:
    """Runs one function of an ML Program.

    mode: 'as-typed' rounds each result to the type the program declares; 'fp32' and 'exact' (float64) do not round.
    threads: PyTorch threads while running, None for what the process has set.
    Raises ArtifactError at construction for anything damaged or unknown, DataError later for a wrong input.
    """

    def __init__(self, path: str | Path, mode: str = "as-typed", function: str = "main", threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; give at least 1, or None")
        program = load_program(path, function)
        check_outputs(program)
        self.features: tuple[Feature, ...] = input_features(program)
        self.opset = program.opset
        self.mode = mode
        self.threads = threads
        self._plan: Plan = bind(program, mode)

    @property
    def class_labels(self) -> tuple[Any, ...]:
        """The classifier's labels in the order of `predict_array`'s probabilities; empty without a classifier."""
        return self._plan.classes

    @property
    def why_not_batched(self) -> str | None:
        """None where N inputs may go through at once, else the reason why `predict_array` runs them one by one."""
        return self._plan.why_not_batched

    def predict(self, inputs: Mapping[str, Any], intermediates: bool | Iterable[str] = False) -> dict[str, Any]:
        """Outputs by name: arrays, the label, {label: probability}. Pictures go in as PIL images, the rest as arrays.

        intermediates: True, or names of values of the program, adds those values in the type the program declares.
        """
        names = {feature.name for feature in self.features}
        if set(inputs) != names:
            raise DataError(f"inputs are {sorted(inputs)}, the model takes {sorted(names)}: give exactly these.")
        wanted = self._wanted(intermediates)
        tensors = {feature.name: encode(feature, inputs[feature.name]) for feature in self.features}
        with self._running():
            slots = execute(self._plan, tensors, keep=frozenset(wanted.values()))
        outputs = {name: self._output(slots, slot) for name, slot in self._plan.outputs.items()}
        return {name: self._intermediate(slots, slot) for name, slot in wanted.items()} | outputs

    def predict_batch(self, inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`predict` for each."""
        return [self.predict(each) for each in inputs]

    def predict_array(self, images: Any, batch_size: int = 64) -> dict[str, Array]:
        """Stacked inputs (N, …) of a model with one input, to stacked outputs: the fast path for a whole data set.

        For a classifier the label output is an array of N labels and the probabilities are (N, classes) in the order of
        `class_labels`. Up to `batch_size` inputs go through at once where that is proved to be the same (see
        batching.py; the last bits of convolutions may differ), otherwise one by one.
        """
        if len(self.features) != 1:
            raise DataError(f"predict_array takes one input, the model has {len(self.features)}: use predict_batch.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        feature = self.features[0]
        stacked = encode_many(feature, images)
        size = 1 if self.why_not_batched else batch_size
        chunks: list[dict[str, Array]] = []
        with self._running():
            for start in range(0, len(stacked), size):
                chunk = stacked[start : start + size]
                slots = execute(self._plan, {feature.name: chunk}, batch=len(chunk))
                chunks.append({name: self._rows(slots, slot) for name, slot in self._plan.outputs.items()})
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in self._plan.outputs}

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
        if isinstance(intermediates, bool):
            return values if intermediates else {}
        names = list(intermediates)
        unknown = [name for name in names if name not in values]
        if unknown:
            raise DataError(f"the program computes no {', '.join(unknown)}; it computes {', '.join(values)}.")
        return {name: values[name] for name in names}

    def _output(self, slots: list[Any], slot: int) -> Any:
        """As MLModel.predict: a dictionary of Python floats, a plain label, or an array."""
        value = slots[slot]
        if self._plan.types[slot].dtype == "dictionary":
            return dict(zip(self.class_labels, value[0].tolist(), strict=True))
        return value[0] if isinstance(value, list) else decode(value)

    def _rows(self, slots: list[Any], slot: int) -> Array:
        """With the inputs along axis 0."""
        value = slots[slot]
        if isinstance(value, list):
            return np.array(value)
        array: Array = value.numpy()
        stacked = self._plan.types[slot].dtype == "dictionary" or self._plan.types[slot].shape[:1] == (1,)
        return array if stacked else array[None]

    def _intermediate(self, slots: list[Any], slot: int) -> Any:
        """In the declared type: as-typed fp16 values are held in float32 and go back without loss."""
        declared = self._plan.types[slot].dtype
        if self.mode == "as-typed" and declared == "fp16":
            return slots[slot].to(torch.float16).numpy()
        return slots[slot].numpy() if isinstance(slots[slot], torch.Tensor) else self._output(slots, slot)
