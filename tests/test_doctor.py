"""The examination names every runtime with its reason and every known-bad pair with one command, and changes nothing."""

import shlex
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest

from toolkit import doctor
from toolkit.runtimes import RUNTIMES

onnx = pytest.importorskip("onnx")


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch):
    """Makes the doctor see these versions; None is a package that is not installed."""
    real = doctor.installed
    return lambda **wanted: monkeypatch.setattr(doctor, "installed", lambda name: wanted[name] if name in wanted else real(name))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The processes that were started."""
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, *_, **__: started.append(command) or pytest.fail(f"it started {command}"))
    return started


def only_problem() -> doctor.Problem:
    (problem,) = [found for check in doctor.CHECKS if (found := check()) is not None]
    assert "\n" not in problem.mend
    assert not {"&", ";", "|"} & set(shlex.split(problem.mend)) or "&&" in problem.mend
    return problem


def test_the_set_that_is_tested_here_has_no_problem_and_nothing_is_started(commands, monkeypatch):
    monkeypatch.setattr(doctor, "describe", lambda: {"processor": "known"})  # the system's own tools are asked for it
    found = doctor.examine()
    assert found.problems == []
    assert [state.id for state in found.runtimes] == list(RUNTIMES)
    assert found.environment == {"processor": "known"}
    assert commands == []


def test_a_runtime_has_a_version_where_it_runs_and_a_reason_where_it_does_not():
    states = {state.id: state for state in doctor.examine().runtimes}
    assert states["torch-cpu"].reason is None
    assert states["torch-cpu"].version is not None
    for state in states.values():
        assert (state.reason is None) == (state.version is not None)
        assert state.reason is None or len(state.reason) > 10
        assert state.is_device is RUNTIMES[state.id].is_device


@pytest.mark.parametrize(
    "error", [ImportError("libcudart.so.13: cannot open shared object file"), OSError("no such symbol"), KeyError("x")]
)
def test_a_library_that_does_not_import_is_a_row_with_the_reason(monkeypatch, error):
    def failing(self):
        raise error

    monkeypatch.setattr(type(RUNTIMES["torch-cpu"]), "why_not", failing)
    for state in doctor.examine().runtimes:
        assert state.reason == f"{type(error).__name__}: {error}"
        assert state.version is None


def test_a_runtime_whose_module_is_broken_is_a_row_too(monkeypatch):
    monkeypatch.setitem(sys.modules, RUNTIMES["onnxruntime-cpu"].module, None)
    state = next(state for state in doctor.examine().runtimes if state.id == "onnxruntime-cpu")
    assert state.reason.startswith("ModuleNotFoundError: ")


@pytest.mark.parametrize(("torch", "torchvision", "fitting"), [("2.13.0+cpu", "0.27.1", "0.28.*"), ("2.9.1", "0.28.0", "0.24.*")])
def test_torch_beside_a_torchvision_of_another_release_is_one_problem(versions, torch, torchvision, fitting):
    versions(torch=torch, torchvision=torchvision)
    problem = only_problem()
    assert problem.what == f"torchvision {torchvision} is not built for torch {torch}"
    assert problem.mend == f"pip install 'torchvision=={fitting}'"


@pytest.mark.parametrize(
    "pair",
    [("2.13.0+cpu", "0.28.0"), ("2.8.0", "0.23.0+cu128"), ("2.0.1", "0.15.2"), ("2.14.0.dev20260101", "0.29.0a0"), ("3.0.0", "1.0.0")],
)
def test_torch_beside_its_own_torchvision_or_of_unknown_rule_is_no_problem(versions, pair):
    versions(torch=pair[0], torchvision=pair[1])
    assert doctor._torch_with_torchvision() is None


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_torch_or_torchvision_that_is_missing_is_one_problem(versions, missing):
    versions(**{missing: None})
    assert only_problem() == doctor.Problem(f"{missing} is not installed", f"pip install {missing}")


@pytest.mark.parametrize(("numpy", "coremltools"), [("2.4.0", "9.0"), ("2.5.1", "8.3.0"), ("3.0.0", "9.0b1")])
def test_a_numpy_that_coremltools_does_not_know_is_one_problem(versions, numpy, coremltools):
    versions(numpy=numpy, coremltools=coremltools)
    problem = only_problem()
    assert problem.what.startswith(f"numpy {numpy} with coremltools {coremltools}: ")
    assert problem.mend == "pip install 'numpy<2.4'"


@pytest.mark.parametrize(("numpy", "coremltools"), [("2.3.5", "9.0"), ("2.4.0", "9.1"), ("2.4.0", None), (None, "9.0")])
def test_a_numpy_that_coremltools_knows_is_no_problem(versions, numpy, coremltools):
    versions(numpy=numpy, coremltools=coremltools)
    assert doctor._numpy_with_coremltools() is None


def test_a_coremltools_without_native_libraries_is_one_problem(monkeypatch, tmp_path):
    spec = ModuleSpec("coremltools", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: spec if name == "coremltools" else real(name))
    problem = only_problem()
    assert problem.what.startswith("coremltools has no native libraries for Python 3.")
    assert "coremltools==9.0" in problem.mend
    (tmp_path / "libmilstoragepython.so").touch()
    assert doctor._coremltools_native() is None


def test_where_coremltools_is_not_installed_its_libraries_are_not_missed(versions):
    versions(coremltools=None)
    assert doctor._coremltools_native() is None


def test_an_onnx_newer_than_onnxruntime_reads_is_one_problem(monkeypatch):
    monkeypatch.setattr(doctor, "newest_readable_ir", lambda: 3)
    problem = only_problem()
    assert "onnxruntime" in problem.what
    assert problem.what.endswith("reads 3 at most")
    assert problem.mend == "pip install --upgrade onnxruntime"


def test_an_onnx_that_does_not_import_is_one_problem_and_not_the_end(monkeypatch):
    def failing():
        raise ImportError("DLL load failed")

    monkeypatch.setattr(doctor, "newest_readable_ir", failing)
    problem = only_problem()
    assert problem.what == "onnx or onnxruntime does not work: ImportError: DLL load failed"
    assert problem.mend == "pip install --force-reinstall onnx onnxruntime"
    assert len(doctor.examine().runtimes) == len(RUNTIMES)


def test_without_onnx_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor._onnx_newer_than_runtime() is None


def test_the_newest_readable_version_is_read_and_the_next_is_not():
    import onnxruntime

    def loads(version: int) -> bool:
        shape = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", shape[:1], shape[1:])
        model = onnx.helper.make_model(graph, ir_version=version, opset_imports=[onnx.helper.make_opsetid("", 13)])
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception:
            return False
        return True

    newest = doctor.newest_readable_ir()
    assert loads(newest)
    assert newest == onnx.IR_VERSION or not loads(newest + 1)


def test_an_onnxruntime_that_reads_nothing_gives_the_oldest_version(monkeypatch):
    import onnxruntime

    def failing(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    assert doctor.newest_readable_ir() == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.13.0+cpu", (2, 13)),
        ("9.0b1", (9, 0)),
        ("2.4.0rc1", (2, 4)),
        ("10", (10,)),
        ("0.29.0a0", (0, 29)),
        ("2.14.0.dev1+cu130", (2, 14)),
    ],
)
def test_the_first_two_numbers_of_any_version(text, expected):
    assert doctor.numbers(text) == expected
