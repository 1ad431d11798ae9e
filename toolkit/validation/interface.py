"""What a model file itself says it is: names, shapes, labels, metadata, number formats. One reader a format."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.errors import ArtifactError
from toolkit.files import read_bytes
from toolkit.mil.dtypes import DTYPES
from toolkit.runtimes.coreai import check_program

MOST_LABELS, MOST_ENTRIES = 100_000, 1000
MAX_METADATA_BYTES = 1 << 20
MAX_ONNX_BYTES = 2 << 30  # protobuf's own limit
Shape = tuple[int | None, ...]  # None: any length, such as the batch


@dataclass(frozen=True)
class Interface:
    """`labels` None: the format has no place for them. `weights`: number format → parameters held in it; empty: not readable.

    `input_kind` None: the format has one kind only.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    labels: list[str] | None
    metadata: dict[str, str]
    weights: Counter[str]
    compressed: bool = False
    input_kind: str | None = None


def read(artifact: Artifact) -> Interface:
    """What the file says. Raises ArtifactError where it cannot be read, and nothing else: it is a stranger's.

    A format without a reader has an empty interface.
    """
    found = READERS[artifact.format](artifact)
    if len(found.labels or ()) > MOST_LABELS or len(found.metadata) > MOST_ENTRIES:
        raise ArtifactError(
            f"{artifact.entry} has {len(found.labels or ())} class labels and {len(found.metadata)} entries of metadata; at most "
            f"{MOST_LABELS} and {MOST_ENTRIES} are read"
        )
    return found


def _coreml(artifact: Artifact) -> Interface:
    from toolkit.mil import ReferenceEvaluator
    from toolkit.mil.package import open_package, read_spec
    from toolkit.mil.program import Block, Constant, load_program

    description = read_spec(open_package(artifact.entry)).description
    program = load_program(artifact.entry)
    weights: Counter[str] = Counter()
    compressed = set[str]()

    def count(block: Block) -> None:
        for operation in block.operations:
            compressed.update({operation.type} if operation.type.startswith("constexpr_") else ())
            for values in operation.arguments.values():
                for value in values:
                    if (
                        isinstance(value, Constant)
                        and isinstance(value.value, np.ndarray)
                        and value.type.dtype in DTYPES
                        and value.value.ndim > 1
                    ):
                        weights[value.type.dtype] += value.value.size
            for nested in operation.blocks:
                count(nested)

    count(program.block)
    labels = [str(label) for label in ReferenceEvaluator(artifact.entry).class_labels]
    metadata = dict(description.metadata.userDefined)
    return Interface(
        {each.name: _feature_shape(each) for each in description.input}, {each.name: _feature_shape(each) for each in description.output},
        labels, metadata, weights, bool(compressed - {"constexpr_cast"}),
        "image" if any(each.type.WhichOneof("Type") == "imageType" for each in description.input) else "tensor",
    )  # fmt: skip


def _feature_shape(feature: Any) -> Shape:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        return (1, 3 if image.colorSpace in (20, 30) else 1, image.height, image.width)  # RGB, BGR of FeatureTypes.proto
    return tuple(feature.type.multiArrayType.shape) if kind == "multiArrayType" else ()


def _onnx(artifact: Artifact) -> Interface:
    import onnx

    if (size := artifact.entry.stat().st_size) > MAX_ONNX_BYTES:
        raise ArtifactError(f"{artifact.entry} has {size} bytes, more than an ONNX file can have")
    try:
        model = onnx.load(artifact.entry, load_external_data=False)
    except Exception as error:  # protobuf's exceptions are its own
        raise ArtifactError(f"{artifact.entry} is no ONNX file: {error}. Export again") from error

    def shape(value: Any) -> Shape:
        return tuple(dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in value.type.tensor_type.shape.dim)

    metadata = {each.key: each.value for each in model.metadata_props}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ArtifactError(f"{artifact.entry} keeps weights in files beside it, which our exporter never does. Export again")
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            weights[_number_format(tensor.data_type)] += math.prod(max(0, size) for size in tensor.dims)
    constants = {tensor.name for tensor in model.graph.initializer}
    return Interface(
        {each.name: shape(each) for each in model.graph.input if each.name not in constants},
        {each.name: shape(each) for each in model.graph.output}, _labels(metadata), metadata, weights,
        any(node.op_type in _COMPRESSED for node in model.graph.node),
    )  # fmt: skip


def _number_format(data_type: int) -> str:
    """Our name of TensorProto.DataType; of a number that it does not have, the number."""
    import onnx

    known = onnx.TensorProto.DataType
    name = known.Name(data_type).lower() if data_type in known.values() else f"data type {data_type}"
    return _ONNX.get(data_type, name)


_COMPRESSED = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulNBits", "ConvInteger", "MatMulInteger"}
)
_ONNX = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}  # TensorProto.DataType


def _labels(metadata: dict[str, str]) -> list[str] | None:
    """None of them where they are missing, or no list."""
    try:
        return [str(label) for label in json.loads(metadata["class_labels"])]
    except (KeyError, ValueError, TypeError, RecursionError):  # the last of 100,000 brackets
        return []


def _coreai(artifact: Artifact) -> Interface:
    check_program(artifact.entry)
    path = artifact.entry / "metadata.json"
    try:
        metadata = json.loads(read_bytes(path, MAX_METADATA_BYTES, raises=ArtifactError))["creatorDefinedMetadata"]
        return Interface({}, {}, None, {str(key): str(value) for key, value in metadata.items()}, Counter())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read: {type(error).__name__}: {error}. Export again") from error


def _nothing(artifact: Artifact) -> Interface:
    return Interface({}, {}, None, {}, Counter())


READERS: dict[str, Callable[[Artifact], Interface]] = {"coreml": _coreml, "onnx": _onnx, "coreai": _coreai, "torch": _nothing}
