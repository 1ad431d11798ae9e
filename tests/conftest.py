"""Shared by all tests: where real data lies, and one tiny model, trained and exported once a session.

MNIST is used where it is there (TOOLKIT_DATA, or ../shared/data beside a checkout); nothing touches the network.
"""

import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toolkit.recipe import Recipe
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from toolkit.mil import ReferenceEvaluator

TINY = """
name = "tiny"
description = "a small network on the embedded digits, for tests"
[data]
set = "digits"
[network]
builder = "small-cnn"
[preprocess]
size = 32
mean = 0.1558
std = 0.2774
[train]
epochs = 3
batch_size = 32
lr = 0.1
schedule = "one-cycle"
"""

_BESIDE = Path(__file__).parents[2] / "shared" / "data"


def mnist_dir() -> Path | None:
    """The folder that holds MNIST/raw/*.gz, if this machine has one."""
    for folder in (os.environ.get("TOOLKIT_DATA"), _BESIDE):
        if folder and (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").is_file():
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def mnist() -> Path:
    folder = mnist_dir()
    if folder is None:
        pytest.skip("MNIST is not on this machine: set TOOLKIT_DATA to a folder that holds MNIST/raw/*.gz")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Answers that validation remembers are this session's, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails at once; sockets within the machine (asyncio) stay."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


def make_workspace(folder: Path, text: str = TINY) -> Workspace:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return Workspace(folder, folder / "recipe.toml")


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """A tiny model with nothing but its recipe."""
    return make_workspace(tmp_path / "models" / "tiny")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny model, trained. Shared: do not change what is in it; `trained_copy` is for that."""
    from toolkit.training import train

    workspace = make_workspace(tmp_path_factory.mktemp("trained") / "models" / "tiny")
    assert train(workspace, Recipe.read(workspace.recipe), device="cpu").finished
    return workspace


@pytest.fixture(scope="session")
def exported(trained: Workspace) -> Workspace:
    """The tiny model with its artifacts: coreml-fp16, coreml-fp32, onnx-fp32, and coreai-fp32 where coreai is installed. Shared too."""
    from importlib.util import find_spec

    from toolkit.export import Options, export

    export(trained, ["coreml", "onnx", *(["coreai"] if find_spec("coreai_torch") else [])], Options())
    export(trained, ["coreml"], Options(precision="fp32"))
    return trained


@pytest.fixture
def exported_copy(exported: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the exported model, to damage."""
    import shutil

    shutil.copytree(exported.folder, tmp_path / "models" / "tiny")
    return Workspace(tmp_path / "models" / "tiny", tmp_path / "models" / "tiny" / "recipe.toml")


@pytest.fixture
def fake_macos(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """coremltools' own MLModel with the evaluator behind it; yields the inputs that get through to the evaluator, in order."""
    from coremltools.models import MLModel

    from toolkit.mil import ReferenceEvaluator, coremltools_predict

    given: list[Any] = []
    honest = ReferenceEvaluator.predict

    def predict(self: "ReferenceEvaluator", inputs: Mapping[str, Any], *more: Any) -> dict[str, Any]:
        given.extend(inputs.values())
        return honest(self, inputs, *more)

    monkeypatch.setattr(ReferenceEvaluator, "predict", predict)
    monkeypatch.setattr("toolkit.runtimes.coreml.why_not", lambda compute_unit: None)
    monkeypatch.setattr(MLModel, "last_predict_duration_in_nano_seconds", 1000, raising=False)  # the drop-in has no clock of Apple's
    with coremltools_predict():
        yield given


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """build(body, shape, …, dtype='fp32') -> a package whose program is `body(x, …)`, as written: no optimisation."""
    from toolkit.mil._coremltools import import_coremltools

    ct: Any = import_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    folder = tmp_path_factory.mktemp("programs")

    def make(body: Callable[..., Any], *shapes: tuple[int, ...], dtype: str = "fp32") -> Path:
        specs = [mb.TensorSpec(shape=shape, dtype=getattr(types, dtype)) for shape in shapes]
        program = mb.program(input_specs=specs, opset_version=ct.target.iOS17)(_named(body, len(specs)))
        return save_program(
            folder / f"{len(list(folder.iterdir()))}.mlpackage",
            program,
            convert_to="mlprogram",
            pass_pipeline=ct.PassPipeline.EMPTY,
            compute_precision=ct.precision.FLOAT32,
        )

    return make


def save_program(path: Path, source: Any, **options: Any) -> Path:
    """ct.convert for iOS 17, to `path`. What the converter and PyTorch say of their own insides is not tested here."""
    from toolkit.mil._coremltools import import_coremltools

    ct: Any = import_coremltools()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(source, minimum_deployment_target=ct.target.iOS17, skip_model_load=True, **options)
    if "classifier_config" in options:
        spec = model.get_spec()
        ct.utils.rename_feature(spec, "classLabel_probs", "probabilities")
        model = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    model.save(str(path))
    return path


def _named(body: Callable[..., Any], inputs: int) -> Callable[..., Any]:
    """mb.program reads the input names off the signature."""
    return [lambda: body(), lambda x: body(x), lambda x, y: body(x, y)][inputs]
