"""torchvision imports beside any torch, and nothing is declared where its own import works."""

import builtins
import subprocess
import sys
import types

import pytest
import torch

from toolkit._torchvision import import_torchvision

_USES = (
    "from toolkit._torchvision import import_torchvision\n"
    "torchvision = import_torchvision()\n"
    "assert import_torchvision() is torchvision\n"
    "import torch\nfrom torchvision.datasets import MNIST\nfrom torchvision.models import resnet18\n"
    "assert resnet18().eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)\n"
)


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch):
    """`import torchvision` gives or raises the next of the given things; returns what was declared meanwhile."""
    declared = []

    class Library:
        def __init__(self, *arguments):
            declared.append(arguments)

        def define(self, schema):
            declared.append(schema)

    def prepare(*outcomes):
        remaining, real = list(outcomes), builtins.__import__

        def fake(name, *arguments, **options):
            if name != "torchvision":
                return real(name, *arguments, **options)
            outcome = remaining.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(builtins, "__import__", fake)
        return declared

    monkeypatch.setattr(torch.library, "Library", Library)
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    yield prepare
    sys.modules.update(kept)


def test_a_fresh_process_imports_it_without_a_warning_and_can_use_it():
    subprocess.run([sys.executable, "-W", "error", "-c", _USES], check=True)


def test_where_the_plain_import_works_nothing_is_declared(importing):
    whole = types.ModuleType("torchvision")
    declared = importing(whole)
    assert import_torchvision.__wrapped__() is whole
    assert declared == []


def test_where_the_operators_are_missing_their_schemas_are_declared_and_the_half_import_is_dropped(importing, monkeypatch):
    whole = types.ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision.half", types.ModuleType("torchvision.half"))
    declared = importing(RuntimeError("operator torchvision::nms does not exist"), whole)
    assert import_torchvision.__wrapped__() is whole
    assert "torchvision.half" not in sys.modules
    assert declared[0] == ("torchvision", "DEF")
    assert [schema.split("(")[0] for schema in declared[1:]] == ["nms", "qnms"]
    assert whole._toolkit_schemas is not None


@pytest.mark.parametrize("error", [RuntimeError("something else"), ImportError("No module named torchvision")])
def test_another_cause_is_raised_as_it_is(importing, error):
    declared = importing(error)
    with pytest.raises(type(error), match=str(error)):
        import_torchvision.__wrapped__()
    assert declared == []
