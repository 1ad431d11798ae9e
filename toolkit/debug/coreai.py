"""Core AI, op by op: all that coreai-torch writes for one PyTorch op is one op here; the values come from the runtime's own log.

Both rest on the debugging tools of coreai-torch, a beta: where they are missing or differ, that is said. On Linux the
runtime logs values as well, but only of a program that is compiled for it with debug information, which no public call asks for.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import Artifact
from toolkit.debug.program import Op
from toolkit.errors import ToolkitError
from toolkit.export.noise import known_noise
from toolkit.runtimes.coreai import CoreAISession, check_program
from toolkit.tensors import IMAGE, LOGITS

Array = np.ndarray[Any, Any]
PRINCIPAL = ("conv2d", "broadcasting_batch_matmul", "sum_pool_2d", "interpolate")  # what a group of ops is called after


@contextmanager
def _beta(artifact: Artifact) -> Iterator[None]:
    """What the beta raises, of whatever type, as a ToolkitError."""
    if find_spec("coreai_torch") is None:
        raise ToolkitError(
            f"{artifact.id} cannot be looked into: coreai-torch is not installed: pip install 'apple-deployment-toolkit[coreai]'"
        )
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
    """Ops, each with the number of the Core AI operation that gives its value; None for an output."""
    from coreai.authoring import AIModelAsset
    from coreai_torch.debugging.debug_info import get_operation_id
    from coreai_torch.debugging.graph import create_graph_from_coreai_program
    from coreai_torch.debugging.torch_utils import get_torch_to_ops_mapping

    check_program(artifact.entry)
    program = AIModelAsset.load(artifact.entry).program
    torch_names = {get_operation_id(each): name for name, found in get_torch_to_ops_mapping(program).items() for each in found}
    if not torch_names:
        raise ToolkitError(f"{artifact.id} names no PyTorch ops: its debug information was stripped. Export it again")
    *nodes, output = create_graph_from_coreai_program(program._module._mlir_module, "main").get_nodes()
    home = _homes(nodes, torch_names)
    groups: dict[str, list[Any]] = {}
    for node in nodes:
        if node.op_id in home:
            groups.setdefault(home[node.op_id], []).append(node)
    by_number = {node.op_id: node for node in nodes}
    found: list[tuple[Op, int | None]] = [_group(name, members, by_number, home) for name, members in groups.items()]
    for spec, number in zip(artifact.manifest.outputs, output.predecessors, strict=True):  # in the file's order: the exporter asks for it
        place = next(place for place, (op, _) in enumerate(found) if op.name == home[number])
        found.insert(place + 1, (Op(0, "output", spec.name, (home[number],)), None))
    return [(replace(op, position=position), number) for position, (op, number) in enumerate(found)]


def _homes(nodes: list[Any], torch_names: dict[int, str]) -> dict[int, str]:
    """Number → name of its group. Constants have none; what is computed of constants alone belongs to who reads it."""
    fixed = set[int]()
    for node in nodes:
        if node.original_node.name == "coreai.constant" or (_wired(node) == 0 and set(node.predecessors) <= fixed):
            fixed.add(node.op_id)
    home = {node.op_id: torch_names.get(node.op_id, f"coreai_{node.op_id}") for node in nodes if node.op_id not in fixed}
    for node in reversed(nodes):
        if node.op_id in home:
            for each in node.predecessors:
                if each in fixed:
                    home.setdefault(each, home[node.op_id])
    constants = {node.op_id for node in nodes if node.original_node.name == "coreai.constant"}
    return {number: name for number, name in home.items() if number not in constants}


def _wired(node: Any) -> int:
    """How many of its operands are the function's own arguments."""
    return len(list(node.original_node.operands)) - len(node.predecessors)


def _group(name: str, members: list[Any], nodes: dict[int, Any], home: dict[int, str]) -> tuple[Op, int]:
    inputs, attributes, constants, digests = list[str](), dict[str, Any](), dict[str, Array](), dict[str, str]()
    inner = {node.op_id for node in members}
    types = [_short(node) for node in members]
    for node, kind in zip(members, types, strict=True):
        attributes |= {f"{kind} {each.name}": str(each.attr) for each in node.original_node.attributes}
        inputs += [IMAGE] * _wired(node)
        for number, each in enumerate(node.predecessors, start=_wired(node)):
            before = nodes[each]
            if each in home:
                inputs += [home[each]] if each not in inner else []
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
    return Op(0, kind, name, tuple(inputs), attributes, constants, digests), members[-1].op_id


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
