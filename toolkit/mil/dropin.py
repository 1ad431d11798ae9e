"""`MLModel.predict` on any machine: coremltools itself, with the reference evaluator where it calls Apple's framework.

    with coremltools_predict():
        coremltools.models.MLModel("net.mlpackage").predict({"x": array})  # and code of others that does so

What coremltools checks before it calls the framework stays real. Queries about devices and compute plans stay Apple's.
"""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError, ToolkitError
from toolkit.mil._coremltools import import_coremltools
from toolkit.mil.dtypes import INTEGERS
from toolkit.mil.features import host_array

MACOS = (15, 5)  # coremltools asks for the version before it offers a feature; states came with 15
SPECIFICATION = 10  # iOS 26: the newest coremltools 9.0 writes; whether an opset is known is the evaluator's to say


@contextmanager
def coremltools_predict(mode: str = "as-typed") -> Iterator[None]:
    """Makes `MLModel.predict`, `make_state` and what builds on them work, until the last of the contexts that were entered is left.

    Contexts may be nested, overlap, and be entered and left in any order and in any thread: coremltools' settings are the process's,
    so the mode is that of the context entered last, of those not yet left. Models made inside keep working outside, in their mode.
    For start and stop: `ExitStack().enter_context(coremltools_predict())`.
    """
    import_coremltools()
    proxy = proxy_class(mode)
    with _LOCK:
        if not _ENTERED:
            _REPLACED.extend(_replace())
        _ENTERED.append(proxy)
        _call(proxy)
    try:
        yield
    finally:
        with _LOCK:
            _ENTERED.remove(proxy)
            if _ENTERED:
                _call(_ENTERED[-1])
            else:
                _restore()


_LOCK = threading.Lock()
_ENTERED: list[type] = []  # the proxies of the contexts that were entered and not left, in this order
_REPLACED: list[tuple[str, Any, Any]] = []  # the name of a function of coremltools, itself, what stands in its place meanwhile
_PROXIES: list[tuple[Any, Any]] = []  # a module, and the class that it calls otherwise


def _replace() -> list[tuple[str, Any, Any]]:
    """Makes coremltools believe that this is macOS; what was replaced."""
    from coremltools.models import _compiled_model, model, utils

    _PROXIES.extend((module, module._MLModelProxy) for module in (model, _compiled_model))
    replaced = [("_is_macos", utils._is_macos, lambda: True), ("_macos_version", utils._macos_version, lambda: MACOS)]
    for name, original, replacement in replaced:
        _rebind(name, original, replacement)
    return replaced


def _call(proxy: type) -> None:
    for module, _ in _PROXIES:
        module._MLModelProxy = proxy


def _restore() -> None:
    for module, before in _PROXIES:
        module._MLModelProxy = before
    for name, original, replacement in _REPLACED:
        _rebind(name, replacement, original)
    _PROXIES.clear()
    _REPLACED.clear()


def proxy_class(mode: str) -> type:
    """The class that coremltools is to call instead of its binding: `coremlpython/CoreMLPython.mm` of coremltools 9.0."""
    from toolkit.mil.evaluator import ReferenceEvaluator, State

    chosen = mode

    class EvaluatorProxy:
        mode = chosen

        @staticmethod
        def maximum_supported_specification_version() -> int:
            return SPECIFICATION

        def __init__(
            self, filename: str, compute_units: str = "", function_name: str = "", hints: object = None, asset: object = None
        ) -> None:
            """`compute_units` and `hints` choose among Apple's devices; there is one here."""
            if asset is not None:
                raise RuntimeError("a model in memory (MLModelAsset) cannot be run here: give the path of a .mlpackage")
            self.path = filename
            with _as_runtime_error():
                self.evaluator = ReferenceEvaluator(filename, mode=mode, function=function_name or None)

        def predict(self, data: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
            with _as_runtime_error("Unable to compute the prediction using ML Program. "):
                return self.evaluator.predict(_converted(self.evaluator, data), state)

        def batchPredict(self, data: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
            return [self.predict(each) for each in data]

        def newState(self) -> "StateProxy":
            return StateProxy(self.evaluator)

        def get_compiled_model_path(self) -> str:
            """The package itself: nothing is compiled here. `CompiledMLModel` takes it."""
            return self.path

        def get_load_duration_in_nano_seconds(self) -> None:
            """None is coremltools' word for "not available": a time of ours would be taken for one of Apple's."""

        get_last_predict_duration_in_nano_seconds = get_load_duration_in_nano_seconds

    class StateProxy(State):
        """Errors as the binding raises them."""

        def __init__(self, evaluator: ReferenceEvaluator) -> None:
            self.__dict__.update(evaluator.make_state().__dict__)

        def read_state(self, name: str) -> Any:
            with _as_runtime_error():
                return super().read_state(name)

        def write_state(self, name: str, value: Any) -> None:
            with _as_runtime_error():
                super().write_state(name, value)

    return EvaluatorProxy


def _converted(evaluator: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Core ML converts any numbers to the declared type: fractions are cut off for integers, and (1,) does for rank 0."""
    features = {feature.name: feature for feature in evaluator.features}
    converted: dict[str, Any] = {}
    for name, value in data.items():
        feature = features.get(name)
        if feature is None or feature.color is not None:
            converted[name] = value
            continue
        array = host_array(f"input {name!r}", value)
        if feature.type.dtype in INTEGERS and array.dtype.kind == "f":
            array = np.trunc(array)
        converted[name] = array.reshape(()) if feature.type.shape == () and array.shape == (1,) else array
    return converted


@contextmanager
def _as_runtime_error(lead: str = "") -> Iterator[None]:
    """Core ML's binding raises RuntimeError for everything, and MLModel expects that."""
    try:
        yield
    except ToolkitError as error:
        raise RuntimeError(f"{lead if isinstance(error, ArtifactError) else ''}{error}") from error


def _rebind(name: str, old: object, new: object) -> None:
    """In every module of coremltools that has imported `old` by that name, also in those imported meanwhile."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "coremltools" and vars(module).get(name) is old:
            setattr(module, name, new)
