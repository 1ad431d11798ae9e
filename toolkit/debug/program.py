"""The ops of a model file, read alike from every format: type, attributes, constants, what each reads. One reader a format."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.errors import ToolkitError

Array = np.ndarray[Any, Any]
KINDS = {  # by the type in lower case; what is not here is its own kind
    "upsample_bilinear": "resize", "upsample_nearest_neighbor": "resize", "resize_bilinear": "resize", "resize": "resize",
    "resize_nearest_neighbor": "resize", "reduce_mean": "pool", "reducemean": "pool", "avg_pool": "pool", "max_pool": "pool",
    "averagepool": "pool", "maxpool": "pool", "globalaveragepool": "pool", "globalmaxpool": "pool", "reduce_max": "pool",
    "reducemax": "pool", "gemm": "linear", "matmul": "linear", "linear": "linear", "relu6": "relu", "clip": "relu",
    "broadcasting_batch_matmul": "linear", "sum_pool_2d": "pool", "interpolate": "resize", "broadcasting_add": "add",
    "broadcasting_sub": "sub", "broadcasting_mul": "mul", "broadcasting_divide": "mul", "conv2d": "conv",
    "leakyrelu": "relu", "leaky_relu": "relu", "clamped_relu": "relu", "real_div": "mul", "div": "mul",
    "flatten": "reshape",
}  # fmt: skip
NEUTRAL = frozenset({"cast", "identity", "shape", "concat", "gather", "unsqueeze", "constant", "classify", "reshape", "squeeze", "output"})


@dataclass(frozen=True)
class Op:
    """`inputs`: the values it reads, in order; `attributes` and `constants` by the parameter's name (ONNX: by its place).

    `digests`: constants whose values the format's reader does not give, by what names their contents.
    """

    position: int
    type: str
    name: str  # of its first output
    inputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return KINDS.get(self.type.lower(), self.type.lower())


def read(artifact: Artifact) -> list[Op]:
    """In the file's order. Raises ToolkitError for a format that cannot be read op by op."""
    if artifact.format not in READERS:
        raise ToolkitError(
            f"{artifact.id}: {artifact.format} files cannot be looked into op by op. Debug another artifact of the same "
            f"checkpoint ({', '.join(READERS)}); `toolkit validate` names known mistakes"
        )
    return READERS[artifact.format](artifact)


def _coreml(artifact: Artifact) -> list[Op]:
    from toolkit.mil.program import Constant, load_program

    program, ops, constants = load_program(artifact.entry), list[Op](), dict[str, Any]()
    for operation in program.block.operations:
        if operation.type == "const":
            (value,) = operation.arguments["val"]
            constants[operation.outputs[0].name] = value.value if isinstance(value, Constant) else None
            continue
        inputs, attributes, weights = list[str](), dict[str, Any](), dict[str, Array]()
        for name, arguments in sorted(operation.arguments.items()):
            for argument in arguments:
                if isinstance(argument, str) and argument not in constants:
                    inputs.append(argument)
                    continue
                value = constants[argument] if isinstance(argument, str) else argument.value
                if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                    weights[name] = value
                else:
                    attributes[name] = value.tolist() if isinstance(value, np.ndarray) else value
        ops.append(Op(operation.position, operation.type, operation.outputs[0].name, tuple(inputs), attributes, weights))
    return ops


def _onnx(artifact: Artifact) -> list[Op]:
    import onnx

    graph = onnx.load(artifact.entry).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ops = list[Op]()
    for position, node in enumerate(graph.node):
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(attributes["value"])
            continue
        weights, wires = dict[str, Array](), list[str]()
        for place, name in enumerate(node.input):
            if name not in constants:
                wires += [name] if name else []
            elif constants[name].dtype.kind == "f":
                weights[f"input {place}"] = constants[name]
            else:
                attributes[f"input {place}"] = constants[name].tolist()
        plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
        ops.append(Op(position, node.op_type, node.output[0], tuple(wires), plain, weights))
    return ops


def _coreai(artifact: Artifact) -> list[Op]:
    from toolkit.debug.coreai import read as read_coreai

    return read_coreai(artifact)


READERS: dict[str, Callable[[Artifact], list[Op]]] = {"coreml": _coreml, "onnx": _onnx, "coreai": _coreai}
