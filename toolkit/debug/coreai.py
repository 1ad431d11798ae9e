"""Core AI, op by op: all that coreai-torch writes for one PyTorch op is one op here; the values come from the runtime's own log.

Both rest on the debugging tools of coreai-torch, a beta: where they are missing or differ, that is said. On Linux the
runtime logs values as well, but only of a program that is compiled for it with debug information, which no public call asks for.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.debug.program import Op
from toolkit.errors import ToolkitError
from toolkit.export.noise import known_noise
from toolkit.runtimes.coreai import CoreAISession
from toolkit.tensors import IMAGE, LOGITS

Array = np.ndarray[Any, Any]
PRINCIPAL = ("conv2d", "broadcasting_batch_matmul", "sum_pool_2d", "interpolate")  # what a group of ops is called after


@contextmanager
def _beta(artifact: Artifact) -> Iterator[None]:
    """What the beta raises, of whatever type, as a ToolkitError."""
    if find_spec("coreai_torch") is None:
        raise ToolkitError(f"{artifact.id} cannot be looked into: coreai-torch is not installed: pip install 'apple-deployment-toolkit[coreai]'")
    try:
        with known_noise():
            yield
    except ToolkitError:
        raise
    except Exception as error:  # RuntimeError, AttributeError, KeyError and types of the binding
        raise ToolkitError(f"{artifact.id} cannot be looked into with this coreai-torch: {type(error).__name__}: {error}") from error


def read(artifact: Artifact) -> list[Op]:
    """In the file's order, and for each output one that names it. Raises ToolkitError."""
    with _beta(artifact):
        return [op for op, _ in _grouped(artifact)]


def _grouped(artifact: Artifact) -> list[tuple[Op, int | None]]:
    """Ops, each with the number of the Core AI operation that gives its value; None for an output and for what reads no data."""
    from coreai.authoring import AIModelAsset
    from coreai_torch.debugging.debug_info import get_operation_id
    from coreai_torch.debugging.graph import create_graph_from_coreai_program
    from coreai_torch.debugging.torch_utils import get_torch_to_ops_mapping

    program = AIModelAsset.load(artifact.entry).program
    torch_names = {get_operation_id(each): name for name, found in get_torch_to_ops_mapping(program).items() for each in found}
    if not torch_names:
        raise ToolkitError(f"{artifact.id} names no PyTorch ops: its debug information was stripped. Export it again")
    *nodes, output = create_graph_from_coreai_program(program._module._mlir_module, "main").get_nodes()
    by_number = {node.op_id: node for node in nodes}
    groups: dict[str, list[Any]] = {}
    for node in nodes:
        if node.original_node.name != "coreai.constant":
            groups.setdefault(torch_names.get(node.op_id, f"coreai_{node.op_id}"), []).append(node)
    home = {node.op_id: name for name, members in groups.items() for node in members}
    found = [_group(place, name, members, by_number, home) for place, (name, members) in enumerate(groups.items())]
    names = [spec.name for spec in artifact.manifest.outputs]  # in the file's order: the exporter asks for it
    return found + [
        (Op(len(found) + place, "output", name, (home[number],)), None)
        for place, (name, number) in enumerate(zip(names, output.predecessors, strict=True))
    ]


def _group(place: int, name: str, members: list[Any], nodes: dict[int, Any], home: dict[int, str]) -> tuple[Op, int | None]:
    inputs, attributes, constants, digests = list[str](), dict[str, Any](), dict[str, Array](), dict[str, str]()
    inner = {node.op_id for node in members}
    types = [_short(node) for node in members]
    for node, kind in zip(members, types, strict=True):
        attributes |= {f"{kind} {each.name}": str(each.attr) for each in node.original_node.attributes}
        wires = list(node.predecessors)
        for number, operand in enumerate(node.original_node.operands):
            if operand.owner is None or not hasattr(operand.owner, "attributes"):  # the function's own argument
                inputs.append(IMAGE)
                continue
            before = nodes[wires.pop(0)]
            if before.op_id in home:
                inputs += [home[before.op_id]] if before.op_id not in inner else []
                continue
            value, label = before.original_node.attributes["value"], f"{kind} input {number}"
            array = np.array(value)
            if array.dtype == object:  # a large one, which lies apart: the binding gives no values, only what they are called by
                digests[label] = str(value)
            elif array.dtype.kind == "f":
                constants[label] = array
            else:
                attributes[label] = array.tolist()
    kind = next((each for each in PRINCIPAL if each in types), types[-1])
    return Op(place, kind, name, tuple(inputs), attributes, constants, digests), members[-1].op_id if inputs else None


def _short(node: Any) -> str:
    """`coreai.decomposable.broadcasting_add` → `broadcasting_add`."""
    return str(node.original_node.name).rpartition(".")[2]


def trace(artifact: Artifact, ops: list[Op], images: Array, exact: bool) -> dict[str, Array]:
    """Value by name, (N, …) float64; what the compiler merged into another op is not among them. Raises ToolkitError.

    `exact` changes nothing: these programs are fp32 throughout.
    """
    with _beta(artifact):
        rows = asyncio.run(_rows(artifact, images))
    values = {name: np.concatenate([np.atleast_1d(row[name]) for row in rows]).astype(np.float64) for name in rows[0]}
    session = CoreAISession(artifact)
    try:
        plain = session({IMAGE: images})[LOGITS]
    finally:
        session.close()
    if not np.allclose(plain, values[LOGITS], rtol=1e-5, atol=1e-5 * float(np.abs(plain).max(initial=1.0)), equal_nan=True):
        raise ToolkitError(f"{artifact.id} computes other logits when its values are logged: this is a bug of the Core AI runtime")
    return values


async def _rows(artifact: Artifact, images: Array) -> list[dict[str, Array]]:
    """For each image (1, C, H, W) at once its values by name, outputs included."""
    from coreai_torch.debugging.inspector import CoreAIInspector

    numbers = {op.name: number for op, number in _grouped(artifact) if number is not None}
    rows = []
    async with _watchable(artifact) as model:
        inspector = CoreAIInspector(model)
        for image in images:
            found = await inspector.get_intermediates_for_ops(list(numbers.values()), {IMAGE: np.ascontiguousarray(image[None])})
            row = {name: np.array(value[0]) for name, number in numbers.items() if (value := found.get(number)) and value[0] is not None}
            rows.append(row | {name: np.array(value) for name, value in (inspector._last_outputs or {}).items()})
    return rows


@asynccontextmanager
async def _watchable(artifact: Artifact) -> AsyncIterator[Any]:
    """The model, compiled with debug information."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import AIModel

    asset = AIModelAsset.load(artifact.entry)
    if sys.platform == "darwin":
        from coreai.runtime import SpecializationOptions

        async with asset.executable(SpecializationOptions.default().with_debug(enabled=True)) as model:
            yield model
        return
    with tempfile.TemporaryDirectory(suffix=".aimodelx") as folder:
        await asyncio.to_thread(asset._write_odix, Path(folder), enable_debug_info=True)  # as executable() does, but for the flag
        yield await AIModel.load(path=Path(folder), specialization_options=None)
