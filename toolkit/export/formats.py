"""EXPORTERS: the formats there are, how each can be made, and which runtime proves the result."""

import gc
import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from toolkit.checkpoint import Checkpoint
from toolkit.disks import chain
from toolkit.errors import ExportError
from toolkit.export.noise import known_noise
from toolkit.networks import WithProbabilities
from toolkit.tensors import TensorSpec

TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may choose. None is the format's, or the recipe's, own default.

    `keep_fp32`: names of ops that stay in fp32 in a Core ML fp16 program, as `toolkit debug` prints them.
    """

    precision: str | None = None
    input_kind: str = "image"
    minimum_target: str | None = None
    keep_fp32: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a converter is given: the trained classifier in eval mode, fp32, and what is known of it."""

    checkpoint: Checkpoint
    model: WithProbabilities
    precision: str
    options: Options


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a converter made in the folder it was given."""

    entry: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_kind: str = "tensor"


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """A line of EXPORTERS. The first precision is the default; routes are tried in order until one proves itself."""

    module: str
    precisions: tuple[str, ...]
    routes: tuple[str, ...]
    prover: str  # the runtime that runs the result before it is accepted
    proofs: int  # on how many of the golden images
    packages: tuple[str, ...]
    alone: bool = False  # its libraries can end the whole process: they run in a worker (alone.py)

    def require(self) -> None:
        """Raises ExportError where what it needs is not installed: before a worker is started for it."""
        module: Any = import_module(self.module)
        module.require()

    def convert(self, source: Source, route: str, folder: Path) -> Converted:
        """Fills `folder`. What the converters leave in temporary folders, and do not always remove, vanishes with it."""
        module: Any = import_module(self.module)
        with known_noise(), _temporary_files_in(folder):
            return module.convert(source, route, folder)  # type: ignore[no-any-return]


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """In a folder of their own that is removed at the end; no variable of the environment that a library has set leads there then.

    torch's TORCHINDUCTOR_CACHE_DIR is one: each process that inherits it would make the folder again.
    """
    before, variables = tempfile.tempdir, dict(os.environ)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder) as tempfile.tempdir:
        try:
            yield
        except BaseException as error:
            for each in chain(error):  # what converters hold in their frames removes its own files, while they are there
                traceback.clear_frames(each.__traceback__)
            gc.collect()
            raise
        finally:
            _forget(str(tempfile.tempdir), variables)
            tempfile.tempdir = before


def _forget(place: str, variables: dict[str, str]) -> None:
    """Every variable of the environment that leads to `place` is again what it was in `variables`."""
    for name in [name for name, value in os.environ.items() if place in value]:
        del os.environ[name]
        if name in variables:
            os.environ[name] = variables[name]


_HOME = "toolkit.export"
EXPORTERS = {
    "coreml": Exporter(
        module=f"{_HOME}.coreml", precisions=("fp16", "fp32"), routes=("torch.export",),
        prover="coreml-reference", proofs=64, packages=("torch", "coremltools"),
    ),
    "onnx": Exporter(
        module=f"{_HOME}.onnx", precisions=("fp32",), routes=("dynamo", "torchscript"),
        prover="onnxruntime-cpu", proofs=64, packages=("torch", "onnx", "onnxscript", "onnxruntime"),
    ),
    "coreai": Exporter(
        module=f"{_HOME}.coreai", precisions=("fp32",), routes=("torch.export",),
        prover="coreai", proofs=4, packages=("torch", "coreai-torch", "coreai-core"), alone=True,
    ),
}  # fmt: skip


def find(name: str) -> Exporter:
    if name not in EXPORTERS:
        raise ExportError(f"there is no format {name!r}; there are {', '.join(EXPORTERS)}")
    return EXPORTERS[name]


def check(name: str, options: Options) -> str:
    """The precision to export in. Raises ExportError where the options do not fit the format."""
    exporter = find(name)
    precision = options.precision or exporter.precisions[0]
    if precision not in exporter.precisions:
        raise ExportError(f"{name} is exported in {' or '.join(exporter.precisions)}, not in {precision!r}")
    if options.input_kind not in ("image", "tensor"):
        raise ExportError(f"--input {options.input_kind!r} is neither image nor tensor")
    if options.minimum_target is not None and options.minimum_target not in TARGETS:
        raise ExportError(f"--target {options.minimum_target!r} is not one of {', '.join(TARGETS)}")
    if options.keep_fp32 and (name, precision) != ("coreml", "fp16"):
        raise ExportError(f"--keep-fp32 is for Core ML in fp16; {name} in {precision} has nothing to keep. Leave it out, or export apart")
    return precision
