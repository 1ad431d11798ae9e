"""The truth, layer by layer: PyTorch's own graph of the checkpoint in float64, whole or one layer at a time."""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.checkpoint import Checkpoint
from toolkit.export.noise import known_noise
from toolkit.networks import WithProbabilities, from_checkpoint
from toolkit.tensors import LOGITS, PROBABILITIES

Array = np.ndarray[Any, Any]
KINDS = {  # of PyTorch's operators, by a part of their names
    "conv": "conv", "batch_norm": "batch_norm", "relu": "relu", "hardtanh": "relu", "upsample": "resize", "softmax": "softmax",
    "linear": "linear", "addmm": "linear", "avg_pool": "pool", "max_pool": "pool", "mean": "pool", "view": "reshape",
    "reshape": "reshape", "flatten": "reshape", "add": "add", "sub": "sub", "mul": "mul", "div": "mul",
}  # fmt: skip
_MODULES: dict[Any, Any] = {}  # the last one: faults are looked into one by one, and the graph stays the same


@dataclass(frozen=True)
class Node:
    """A value that PyTorch computes. `names`: what converters call it; `sums`: products in each of its sums, 0 without any."""

    index: int
    names: tuple[str, ...]
    kind: str
    module: str
    source: str
    sums: int
    value: Array  # (N, …) float64


class Reference:
    """The graph with its values for `images` (N, C, H, W), and the means to compute one node from values found elsewhere."""

    def __init__(self, checkpoint: Checkpoint, images: Array) -> None:
        self.images = torch.from_numpy(images).double()
        key = (checkpoint.card.weights_sha256, checkpoint.card.recipe_hash, self.images.shape)
        if key not in _MODULES:
            model = WithProbabilities(from_checkpoint(checkpoint)).double().eval()
            _MODULES.clear()
            with known_noise():
                _MODULES[key] = torch.export.export(model, (self.images,)).run_decompositions({}).module()
        self.module = _MODULES[key]
        self.values: dict[str, Any] = {}
        with torch.inference_mode():
            for node in self.module.graph.nodes:
                if node.op in ("placeholder", "get_attr", "call_function"):
                    self.values[node.name] = self._compute(node, self.values)
        outputs = next(node for node in self.module.graph.nodes if node.op == "output").args[0]
        aliases = {outputs[0].name: LOGITS, outputs[1].name: PROBABILITIES}
        self.nodes = [self._node(index, node, aliases) for index, node in enumerate(self._interesting())]
        self.fx = {node.names[0]: each for node, each in zip(self.nodes, self._interesting(), strict=True)}

    def local(self, node: Node, known: dict[str, Array]) -> Array:
        """What PyTorch makes of `node` where the values of `known` (by a node's first name) are taken instead of its own."""
        given: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in known.items() if name != node.names[0]
        }
        with torch.inference_mode():
            result: Array = self._need(self.fx[node.names[0]], given).numpy()
        return result

    def _need(self, node: Any, given: dict[str, Any]) -> Any:
        if node.name not in given:
            for each in node.all_input_nodes:
                self._need(each, given)
            given[node.name] = self._compute(node, given)
        return given[node.name]

    def _compute(self, node: Any, values: dict[str, Any]) -> Any:
        if node.op == "placeholder":
            return self.images
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.module)
        arguments = torch.fx.map_arg((node.args, node.kwargs), lambda each: values[each.name])
        return node.target(*arguments[0], **arguments[1])

    def _interesting(self) -> list[Any]:
        """Nodes with one tensor that converters give a name to; of a batch-norm its result, not its statistics."""
        found = []
        for node in self.module.graph.nodes:
            first = node.op == "call_function" and (node.target is not operator.getitem or node.args[1] == 0)
            if first and isinstance(self.values[node.name], torch.Tensor):
                found.append(node)
        return found

    def _node(self, index: int, node: Any, aliases: dict[str, str]) -> Node:
        whole = node.args[0] if node.target is operator.getitem else node
        names = [node.name, *([whole.name] if whole is not node else []), *([aliases[node.name]] if node.name in aliases else [])]
        names += self._folded(whole)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = str(stack[-1][0] if stack and isinstance(stack[-1], tuple) else "").removeprefix("classifier").removeprefix(".")
        target = str(whole.target).rpartition("::")[2]
        kind = next((kind for part, kind in KINDS.items() if part in target), target)
        value = self.values[node.name].numpy()
        return Node(index, tuple(names), kind, module, _source(node.meta.get("stack_trace")), self._sums(whole, kind), value)

    def _folded(self, node: Any) -> list[str]:
        """`convolution_3`: what Core AI calls the fourth convolution, whose value is that of the batch-norm folded into it."""
        convolutions = [each for each in self.module.graph.nodes if each.op == "call_function" and "conv" in str(each.target)]
        normed = {each.args[0]: each for each in self.module.graph.nodes if "batch_norm" in str(each.target)}
        return [
            f"convolution_{number}" if number else "convolution"
            for number, each in enumerate(convolutions) if normed.get(each, each) is node
        ]  # fmt: skip

    def _sums(self, node: Any, kind: str) -> int:
        """Of a batch-norm those of the convolution before it: converters make one op of the two."""
        if kind == "batch_norm":
            before = node.args[0]
            return self._sums(before, "conv") if "conv" in str(before.target) else 0
        weights = [self.values[each.name] for each in node.all_input_nodes if each.op == "get_attr"]
        return int(np.prod(weights[0].shape[1:])) if kind in ("conv", "linear") and weights else 0


def _source(trace: str | None) -> str:
    """`resnet.py:102`: the innermost line that is not PyTorch's own."""
    lines = [line.strip() for line in (trace or "").splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "/torch/nn/" not in line] or lines
    if not own:
        return ""
    path, _, rest = own[-1].removeprefix('File "').partition('"')
    return f"{Path(path).name}:{rest.partition('line ')[2].partition(',')[0]}"
