"""What this machine can do, why not the rest, and which installed versions are known to break. Installs nothing."""

import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from toolkit.environment import describe, installed
from toolkit.runtimes import RUNTIMES


@dataclass(frozen=True)
class RuntimeState:
    id: str
    version: str | None
    is_device: bool
    reason: str | None  # None: it can run here


@dataclass(frozen=True)
class Problem:
    """Something that is known to break, and the one command that mends it."""

    what: str
    mend: str


@dataclass(frozen=True)
class Diagnosis:
    environment: dict[str, str]
    runtimes: list[RuntimeState]
    problems: list[Problem]


def examine() -> Diagnosis:
    problems = [problem for check in CHECKS if (problem := check()) is not None]
    return Diagnosis(describe(), [_state(name) for name in RUNTIMES], problems)


def _state(name: str) -> RuntimeState:
    """A library that does not even import is a reason like any other, and must not end the examination."""
    runtime = RUNTIMES[name]
    try:
        reason = runtime.why_not()
        return RuntimeState(name, runtime.version() if reason is None else None, runtime.is_device, reason)
    except Exception as error:
        return RuntimeState(name, None, runtime.is_device, f"{type(error).__name__}: {error}")


def numbers(text: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0+cpu", (9, 0) of "9.0b1"."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:2])


def _numpy_with_coremltools() -> Problem | None:
    numpy, coremltools = installed("numpy"), installed("coremltools")
    if numpy and coremltools and numbers(numpy) >= (2, 4) and numbers(coremltools) <= (9, 0):
        return Problem(
            f"numpy {numpy} with coremltools {coremltools}: some conversions fail (apple/coremltools#2633)", "pip install 'numpy<2.4'"
        )
    return None


def _torch_with_torchvision() -> Problem | None:
    """torchvision 0.N is built for torch 2.(N − 15), a rule that has held since 0.15."""
    torch, torchvision = installed("torch"), installed("torchvision")
    if not torch or not torchvision:
        missing = "torch" if not torch else "torchvision"
        return Problem(f"{missing} is not installed", f"pip install {missing}")
    if numbers(torch)[0] == 2 and numbers(torchvision)[0] == 0 and numbers(torchvision)[1] != numbers(torch)[1] + 15:
        fitting = f"0.{numbers(torch)[1] + 15}"
        return Problem(f"torchvision {torchvision} is not built for torch {torch}", f"pip install 'torchvision=={fitting}.*'")
    return None


def _coremltools_native() -> Problem | None:
    """Its wheels carry compiled libraries for some Pythons only; without them weights cannot be written."""
    if installed("coremltools") and find_spec("coremltools") and not _has_native_library():
        return Problem(
            f"coremltools has no native libraries for Python {platform.python_version()} on {sys.platform}: it cannot write ML Programs",
            "python3.11 -m venv .venv && .venv/bin/pip install coremltools==9.0",
        )
    return None


def _has_native_library() -> bool:
    from pathlib import Path

    spec = find_spec("coremltools")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return any(any(Path(folder).glob(f"libmilstoragepython*{end}")) for folder in folders for end in (".so", ".pyd"))


def _onnx_newer_than_runtime() -> Problem | None:
    """What onnx writes by default, and what onnxruntime reads at most, both asked of the libraries themselves."""
    if not find_spec("onnx") or not find_spec("onnxruntime"):
        return None
    try:
        import onnx

        from toolkit.export.onnx import OPSET

        written = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", OPSET)])
        readable = newest_readable_ir()
    except Exception as error:  # a compiled library that does not load must not end the examination
        return Problem(
            f"onnx or onnxruntime does not work: {type(error).__name__}: {error}", "pip install --force-reinstall onnx onnxruntime"
        )
    if written > readable:
        return Problem(
            f"onnx {installed('onnx')} writes IR version {written}, onnxruntime {installed('onnxruntime')} reads {readable} at most",
            "pip install --upgrade onnxruntime",
        )
    return None


def newest_readable_ir() -> int:
    """The newest IR version that the installed onnxruntime loads, found by loading a model of one node."""
    import onnx
    import onnxruntime

    shape = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", shape[:1], shape[1:])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for version in range(onnx.IR_VERSION, 3, -1):
        model = onnx.helper.make_model(graph, ir_version=version, opset_imports=[onnx.helper.make_opsetid("", 13)])
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # private types of the binding; that it does not load is the answer
            continue
        return version
    return 3


CHECKS: tuple[Callable[[], Problem | None], ...] = (
    _torch_with_torchvision,
    _numpy_with_coremltools,
    _coremltools_native,
    _onnx_newer_than_runtime,
)
