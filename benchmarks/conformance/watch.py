"""What one case of Apple's suite did: how often it predicted, what it compared with a prediction, and how far off that was.

A prediction is marked by its type, `Predicted`, which results computed from it keep. A comparison counts when something
predicted goes into it; a test that predicts and compares nothing has shown nothing.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STRICT = 5e-3  # of the largest expected value: what a float16 program may be off
SMALLEST_SCALE = 1e-2  # expected values below are taken for zero
LOOSE = 0.5  # from this absolute tolerance on, coremltools has widened that of a float16 case (`max(100 * atol, 0.5)`)
_COMPARING = (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.isfinite)
_SPIED = {
    "testing": ("assert_equal", "assert_array_equal", "assert_almost_equal", "assert_array_almost_equal", "assert_array_less"),
    "": ("allclose", "array_equal", "isclose"),
}


@dataclass
class Case:
    """`precision` is "fp16", "fp32" or "" where nothing says it. `allowed`: the part of elements that may be off."""

    precision: str = ""
    predictions: int = 0
    comparisons: int = 0
    largest: float | None = None
    allowed: float = 0.0
    violations: list[str] = field(default_factory=list)
    ops: set[str] = field(default_factory=set)


class Watch:
    """`case` is the one that runs now."""

    def __init__(self) -> None:
        self.case = Case()

    def compared(self, *operands: Any) -> bool:
        """Counts a comparison if something predicted takes part in it."""
        taken = any(isinstance(operand, Predicted) for operand in operands)
        self.case.comparisons += taken
        return taken

    def judge(self, actual: Any, desired: Any, atol: float) -> None:
        """Notes the largest difference; a float16 case under a widened tolerance must also keep within STRICT."""
        actual, desired = (np.asarray(each, dtype=np.complex128 if np.iscomplexobj(each) else np.float64) for each in (actual, desired))
        if actual.shape != desired.shape and 1 not in (actual.size, desired.size):
            return  # NumPy's to refuse, or to broadcast
        actual, desired = np.broadcast_arrays(actual, desired)
        finite = np.isfinite(actual) & np.isfinite(desired)
        if not finite.any():
            return
        scale = scale_of(desired)
        off = np.abs(actual[finite] - desired[finite]) / scale
        self.case.largest = max(self.case.largest or 0.0, float(off.max()))
        limit = max(STRICT, atol / 100 / scale if atol > LOOSE else 0.0)
        if self.case.precision == "fp16" and atol >= LOOSE and float((off > limit).mean()) > self.case.allowed:
            self.case.violations.append(f"off by {off.max():.3g} of the largest value {scale:.3g}, float16 may be off by {limit:.3g}")


def scale_of(desired: Any) -> float:
    """The largest finite expected value."""
    values = np.abs(np.asarray(desired, dtype=np.complex128 if np.iscomplexobj(desired) else np.float64))
    return max(float(values[np.isfinite(values)].max(initial=0.0)), SMALLEST_SCALE)


WATCH = Watch()


class Predicted(np.ndarray):  # type: ignore[type-arg]
    """An array that a prediction gave, or that was computed from one."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None:
            options["out"] = _plain(out)
        if ufunc in _COMPARING and method == "__call__":
            WATCH.compared(*inputs)
            return getattr(ufunc, method)(*_plain(inputs), **options)
        return marked(getattr(ufunc, method)(*_plain(inputs), **options))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return marked(function(*_plain(args), **_plain(kwargs)))

    def __hash__(self) -> int:  # type: ignore[override]  # single numbers have one in NumPy
        return hash(self.item())

    def __getitem__(self, index: Any) -> Any:
        return marked(_plain(self)[index])


def marked(value: Any) -> Any:
    """`value` as Predicted where it is numbers; inside tuples, lists and dictionaries too."""
    if isinstance(value, dict):
        return {key: marked(each) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(marked(each) for each in value)
    return np.asarray(value).view(Predicted) if isinstance(value, np.ndarray | np.number) else value


def _plain(value: Any) -> Any:
    """`value` without marks; inside tuples, lists and dictionaries too."""
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_plain(each) for each in value)
    return value.view(np.ndarray) if isinstance(value, Predicted) else value


@contextmanager
def spied() -> Iterator[None]:
    """NumPy's comparisons, and coremltools' `compare_backend`, tell WATCH. Before the tests import them."""
    from coremltools.converters.mil import testing_utils

    replaced: list[tuple[Any, str, Any]] = [(np.testing, "assert_allclose", _allclose(np.testing.assert_allclose))]
    for where, names in _SPIED.items():
        owner = getattr(np, where) if where else np
        replaced += [(owner, name, _counting(getattr(owner, name))) for name in names]
    replaced.append((testing_utils, "compare_backend", _backend(testing_utils.compare_backend)))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        WATCH.compared(*args, *options.values())
        return function(*_plain(args), **_plain(options))

    return wrapper


def _allclose(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, *args: Any, **options: Any) -> None:
        counted = WATCH.compared(actual, desired)
        actual, desired = _plain(actual), _plain(desired)
        if counted and WATCH.case.precision == "fp16" and atol < LOOSE:
            atol = max(atol, STRICT * scale_of(desired))  # an fp32 tolerance asks more of float16 than it can hold
        if counted:
            WATCH.judge(actual, desired, float(atol))
        function(actual, desired, rtol, atol, *args, **options)

    return wrapper


def _backend(function: Callable[..., Any]) -> Callable[..., Any]:
    """Labels and probabilities are compared by a bare `==`; here they are counted."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        WATCH.case.allowed = float(given.get("allow_mismatch_ratio", 0.0))
        try:
            outputs = function(*args, **options)
        finally:
            WATCH.case.allowed = 0.0
        expected = given.get("expected_outputs") or {}
        WATCH.case.comparisons += sum(not isinstance(each, np.ndarray) for each in (outputs or {}).values()) if expected else 0
        return outputs

    return wrapper
