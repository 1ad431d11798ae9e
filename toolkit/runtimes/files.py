"""Model files from elsewhere, to be timed: no manifest, no golden outputs, inputs made up as the file declares them.

What could run code from the file is refused before a library sees it (strangers.py), unless it is trusted.
"""

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ArtifactError, ToolkitError
from toolkit.runtimes.base import FileSession
from toolkit.runtimes.strangers import admit
from toolkit.tensors import Batch, TensorSpec

READS = {".onnx": "onnx", ".mlpackage": "coreml", ".pt2": "torch", ".pt": "torch", ".ts": "torch", ".torchscript": "torch"}
# Model files of others that we do not time: named, so that they are not taken for a model of ours.
OTHERS = (".mlmodel", ".mlmodelc", ".tflite", ".pth", ".safetensors", ".pb", ".engine", ".gguf")
PICTURE = "picture"  # the dtype of an image input: uint8 (H, W) or (H, W, 3), handed over as a PIL image
MOST_ELEMENTS = 1 << 28


def format_of(path: Path) -> str | None:
    """The format that runtimes call it by; None for what is no model file that we know."""
    return READS.get(path.suffix.lower())


def is_model_file(path: Path) -> bool:
    """Whether somebody who gives this path means a model file, and not a model of ours, which is a folder."""
    return path.suffix.lower() in (*READS, *OTHERS) or path.is_file()


def open_file(path: Path, form: str, threads: int | None, options: dict[str, Any], trust: bool = False) -> FileSession:
    """`options`: of the runtime's line in RUNTIMES. `trust`: the file may run code.

    Raises ToolkitError when the file is not there, cannot be loaded, or could run code and is not trusted.
    """
    if not path.exists():
        raise ArtifactError(f"there is no file {path}")
    with tempfile.TemporaryDirectory() as folder:
        return OPENERS[form](admit(path, Path(folder), trust), threads, options)


def sha256_of_model(path: Path) -> str:
    """Of a file, or of all files of a package by their names."""
    digest = hashlib.sha256()
    for each in [path] if path.is_file() else sorted(member for member in path.rglob("*") if member.is_file()):
        digest.update(each.relative_to(path.parent).as_posix().encode())
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


Shapes = dict[str, tuple[tuple[int, ...], str | None]]  # name → sizes, and the type where the file does not say it


def made_up(specs: list[TensorSpec] | None, batch: int, shapes: Shapes, seed: int) -> Batch:
    """Inputs that honour declared types and shapes: an open axis 0 is the batch, other open ones are 1, unless `shapes` says more.

    Floats are normal, whole numbers 0 or 1 (valid as an index anywhere), pictures noise. Raises ToolkitError for a name or a
    shape that does not fit.
    """
    random = np.random.default_rng(seed)
    if specs is None:
        if not shapes:
            raise ToolkitError(
                "a TorchScript file does not say what it takes. Say it, in order: --shape image=1x3x224x224, or --shape ids=1x16:int64"
            )
        specs = [TensorSpec(name=name, shape=shape, dtype=dtype or "float32") for name, (shape, dtype) in shapes.items()]
    if unknown := sorted(shapes.keys() - {spec.name for spec in specs}):
        raise ToolkitError(f"there is no input {unknown[0]!r}; there are {', '.join(spec.name for spec in specs) or 'none'}")
    given = (shapes[spec.name][0] for spec in specs if spec.name in shapes and spec.shape[:1] == (-1,))
    batch = next((shape[0] for shape in given), batch)
    made = {spec.name: _shape(spec, batch, shapes.get(spec.name)) for spec in specs}
    if batch > 1 and not any(spec.shape[:1] in ((-1,), (batch,)) for spec in specs):
        shown = ", ".join(f"{name} {_text(shape)}" for name, shape in made.items()) or "it has no inputs"
        raise ToolkitError(f"{batch} images a call were asked for, and the batch size is baked in ({shown}): give --batch 1")
    return {spec.name: _values(spec, made[spec.name], random) for spec in specs}


def images_in(specs: list[TensorSpec] | None, batch: Batch, asked: int = 1, shapes: Shapes | None = None) -> int:
    """Images a call: along axis 0 where that is open, else where all inputs of two axes or more agree on it; 0: no batch axis.

    A length that the file has fixed may be anything, such as a number of words: it counts where it is 1, or was asked for.
    """
    declared = {spec.name: spec for spec in specs or ()}
    if any(spec.dtype == PICTURE for spec in declared.values()):
        return 1
    opened = {len(array) for name, array in batch.items() if name in declared and declared[name].shape[:1] == (-1,)}
    sizes = opened or {len(array) for array in batch.values() if array.ndim >= 2}
    meant = opened or {1, asked, *(given[0] for given, _ in (shapes or {}).values() if given)}
    return sizes.pop() if len(sizes) == 1 and sizes <= meant else 0


def described(batch: Batch) -> str:
    return ", ".join(f"{name} {_text(array.shape)} {array.dtype}" for name, array in batch.items()) or "no inputs"


def _shape(spec: TensorSpec, batch: int, given: tuple[tuple[int, ...], str | None] | None) -> tuple[int, ...]:
    if given is not None:
        sizes, dtype = given
        if dtype not in (None, spec.dtype):
            raise ToolkitError(f"input {spec.name} is declared as {spec.dtype}; {dtype} does not fit. Leave the type out of --shape")
        fits = len(sizes) == len(spec.shape) and all(size in (-1, mine) for size, mine in zip(spec.shape, sizes, strict=True))
        if not fits:
            raise ToolkitError(f"input {spec.name} is declared as {_text(spec.shape)}; {_text(sizes)} does not fit. Change --shape")
        return sizes
    shape = tuple((batch if place == 0 else 1) if size == -1 else size for place, size in enumerate(spec.shape))
    if np.prod(shape, dtype=float) > MOST_ELEMENTS:
        raise ToolkitError(f"input {spec.name} of shape {_text(shape)} is too large to make up")
    return shape


def _text(shape: tuple[int, ...]) -> str:
    return "×".join("?" if size == -1 else str(size) for size in shape) or "a scalar"


def _values(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if spec.dtype == PICTURE:
        return random.integers(0, 256, shape, np.uint8)
    if spec.dtype == "bfloat16" or spec.dtype.startswith("float8"):  # known to NumPy only where another library has taught it
        raise ToolkitError(f"input {spec.name} is {spec.dtype}, which NumPy lacks; export the program with float32 inputs")
    kind = np.dtype(spec.dtype).kind
    if kind in "iu":
        return random.integers(0, 2, shape).astype(spec.dtype)
    if kind == "b":
        return random.random(shape) < 0.5
    return random.standard_normal(shape).astype(spec.dtype)


class _File:
    """What all of them share."""

    requested = ""

    def placement(self) -> tuple[str, ...]:
        return (self.requested,)

    def planned(self) -> dict[str, int]:
        return {}

    def framework_ns(self) -> int | None:
        return None

    def close(self) -> None: ...


class OnnxFile(_File):
    def __init__(self, path: Path, threads: int | None, options: dict[str, Any]) -> None:
        from toolkit.runtimes.onnxruntime import load

        self.path, self.requested = path, options["provider"]
        self.session = load(path, threads, self.requested)
        self.names = [each.name for each in self.session.get_outputs()]

    def inputs(self) -> list[TensorSpec]:
        found = []
        for each in self.session.get_inputs():
            dtype = _ONNX_TYPES.get(each.type)
            if dtype is None:
                raise ArtifactError(f"{self.path}: input {each.name} is a {each.type}, which cannot be made up")
            found.append(TensorSpec(name=each.name, shape=tuple(size if isinstance(size, int) else -1 for size in each.shape), dtype=dtype))
        return found

    def __call__(self, batch: Batch) -> Batch:
        return dict(zip(self.names, self.session.run(self.names, batch), strict=True))

    def planned(self) -> dict[str, int]:
        from toolkit.runtimes.onnxruntime import planned

        return planned(self.session)


_ONNX_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class TorchFile(_File):
    """TorchScript (.pt, .ts, .torchscript) or an exported program (.pt2); outputs are copied to the host, which waits for the device."""

    def __init__(self, path: Path, threads: int | None, options: dict[str, Any]) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        if options.get("dtype", "float32") != "float32":
            raise ArtifactError(f"{path}: a program from elsewhere computes in its own types; leave torch-cpu-bf16 out")
        self.requested = options["device"]
        self.specs: list[TensorSpec] | None = None
        if path.suffix.lower() == ".pt2":
            self.model, self.specs = _exported(path)
        else:
            self.model = _scripted(path)
            if not self.model.forward.schema.arguments[1:]:  # the first is the module itself
                self.specs = []  # of others only the names are known
        if self.requested != "cpu":
            self.model = self.model.to(self.requested)

    def inputs(self) -> list[TensorSpec] | None:
        return self.specs

    def __call__(self, batch: Batch) -> Batch:
        import torch

        with torch.inference_mode():
            found = self.model(*(torch.from_numpy(np.array(each)).to(self.requested) for each in batch.values()))
        rows = found if isinstance(found, tuple | list) else list(found.values()) if isinstance(found, dict) else [found]
        return {str(place): each.cpu().numpy() for place, each in enumerate(rows) if isinstance(each, torch.Tensor)}


def _scripted(path: Path) -> Any:
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is; the files are still there
            return torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # RuntimeError mostly, and what the archive reader raises
        raise ArtifactError(f"{path} cannot be loaded as TorchScript: {_first_line(error)}") from error


def _exported(path: Path) -> tuple[Any, list[TensorSpec]]:
    """The module of an exported program, and what it takes. Raises ArtifactError. The file must have been admitted."""
    import torch

    with _logged() as logged:
        try:
            program = torch.export.load(str(path))
            module = program.module()
        except Exception as error:
            reason = (logged or [error])[0]  # torch only logs the error proper, and then looks for an older format
            raise ArtifactError(f"{path} cannot be loaded as an exported program: {_first_line(reason)}") from error
    wanted = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted and not isinstance(node.meta.get("val"), torch.Tensor):
            raise ArtifactError(f"{path}: input {node.name} is no tensor, which cannot be made up; export it as a constant")
    specs = [
        TensorSpec(
            name=node.name, dtype=str(node.meta["val"].dtype).removeprefix("torch."),
            shape=tuple(size if isinstance(size, int) else -1 for size in node.meta["val"].shape),
        )
        for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted
    ]  # fmt: skip
    return module, specs


@contextlib.contextmanager
def _logged() -> Iterator[list[BaseException]]:
    """Errors that torch.export logs, with their tracebacks, and does not raise."""
    found: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        found.extend(record.exc_info[1:2] if record.exc_info and record.exc_info[1] else ())
        return False

    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export.serde.serialize")]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeFilter(keep)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


class CoreMLFile(_File):
    def __init__(self, path: Path, threads: int | None, options: dict[str, Any]) -> None:
        from toolkit.mil._coremltools import import_coremltools

        coremltools = import_coremltools()
        self.path, self.unit = path, options["compute_unit"]
        self.requested = f"requested {self.unit}"
        try:
            self.model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[self.unit])
        except Exception as error:  # whatever Core ML says of a file that it does not take
            raise ArtifactError(f"Core ML does not load {path}: {error}") from error
        self.description = self.model.get_spec().description

    def inputs(self) -> list[TensorSpec]:
        found = []
        for each in self.description.input:
            kind = each.type.WhichOneof("Type")
            if kind == "imageType":
                image = each.type.imageType
                channels = (3,) if image.colorSpace in (20, 30) else ()  # RGB, BGR of FeatureTypes.proto
                found.append(TensorSpec(name=each.name, shape=(image.height, image.width, *channels), dtype=PICTURE))
            elif kind == "multiArrayType":
                array = each.type.multiArrayType
                found.append(TensorSpec(name=each.name, shape=tuple(array.shape), dtype=_COREML_TYPES[array.dataType]))
            else:
                raise ArtifactError(f"{self.path}: input {each.name} is a {kind}, which cannot be made up")
        return found

    def __call__(self, batch: Batch) -> Batch:
        from PIL import Image

        given = {name: Image.fromarray(value) if value.dtype == np.uint8 else value for name, value in batch.items()}
        return {name: np.asarray(value) for name, value in self.model.predict(given).items() if not isinstance(value, dict)}

    def planned(self) -> dict[str, int]:
        from toolkit.runtimes.coreml import planned

        return planned(self.model, self.unit)

    def framework_ns(self) -> int | None:
        return getattr(self.model, "last_predict_duration_in_nano_seconds", None)


# ArrayDataType of FeatureTypes.proto
_COREML_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 65552: "float16", 131080: "int8"}
OPENERS: dict[str, Callable[[Path, int | None, dict[str, Any]], FileSession]] = {"onnx": OnnxFile, "torch": TorchFile, "coreml": CoreMLFile}
