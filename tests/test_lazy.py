"""`import toolkit` and the command line load nothing heavy, and the public names are the same whatever came before."""

import importlib
import subprocess
import sys
import types

import pytest

import toolkit.data

HEAVY = {
    "torch", "torchvision", "numpy", "scipy", "sklearn", "coremltools", "coreai", "coreai_torch", "onnx", "onnxruntime", "onnxscript",
    "matplotlib", "jinja2", "PIL", "safetensors", "psutil", "pydantic",
}  # fmt: skip


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def loaded(program: str) -> set[str]:
    return set(run(f"import sys\n{program}\nprint(*(name.split('.')[0] for name in sys.modules))").split())


@pytest.mark.parametrize("statement", ["import toolkit", "import toolkit.cli", "import toolkit.workspace, toolkit.errors, toolkit.tensors"])
def test_an_import_loads_nothing_heavy(statement: str):
    assert not loaded(statement) & HEAVY


def test_help_loads_nothing_heavy():
    program = "import contextlib, io, toolkit.cli\n"
    program += "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): toolkit.cli.main(['--help'])"
    assert not loaded(program) & HEAVY


@pytest.mark.parametrize("task", ["answers", "interfaces", "round", "predict", "inspect", "admit"])
def test_a_worker_starts_without_pytorch(task: str):
    """Its runtime may be another library's; PyTorch alone takes more than a second of a processor."""
    assert "torch" not in loaded(f"from toolkit.workers.tasks import find; find({task!r})")


def test_a_room_says_what_it_has():
    with pytest.raises(AttributeError, match=r"'toolkit.data' has no attribute 'lod'; it has DATASETS, Dataset, held_out, load"):
        toolkit.data.lod  # noqa: B018


@pytest.mark.parametrize("room", ["toolkit.data", "toolkit.validation"])
def test_a_lazy_room_offers_all_that_it_names(room: str):
    module = importlib.import_module(room)
    assert all(getattr(module, name) is not None and not isinstance(getattr(module, name), types.ModuleType) for name in module.__all__)


def test_the_check_sees_a_heavy_import():
    assert "numpy" in loaded("import toolkit.artifact")


def test_choosing_what_to_import_later_loads_nothing_now():
    assert not loaded("import toolkit; assert 'train' in toolkit.__all__") & HEAVY


def test_every_public_name_is_what_it_says_whatever_was_imported_before():
    """A function named like its room would turn into the module as soon as anything imports the room."""
    program = (
        "import toolkit, types\n"
        "def kinds(): return {name: type(getattr(toolkit, name)) for name in toolkit.__all__}\n"
        "before = kinds()\n"
        "import toolkit.bench, toolkit.cli, toolkit.export, toolkit.predict, toolkit.report, toolkit.training, toolkit.validation\n"
        "assert kinds() == before, (before, kinds())\n"
        "from toolkit import export, train\n"
        "print(*sorted(name for name, kind in before.items() if kind is types.ModuleType))\n"
    )
    assert run(program).split() == ["bench", "export", "predict", "report"]


@pytest.mark.parametrize("room", ["bench", "export", "predict", "report"])
def test_a_room_named_like_its_verb_has_it(room: str):
    assert callable(getattr(getattr(toolkit, room), room))


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(AttributeError, match=r"module 'toolkit' has no attribute 'deploy'; it has .*export.*train"):
        _ = toolkit.deploy
