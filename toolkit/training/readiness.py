"""Would a model train and run on MPS? Answered on any machine: a step of each is traced, and every operator looked up.

torch publishes in native_functions.yaml, which travels in its wheel, which operators have a kernel for MPS. What has none
raises there (or falls back to the CPU, slowly, with PYTORCH_ENABLE_MPS_FALLBACK=1), and float64 does not exist on it at all.
What a kernel computes can only be seen on a Mac: `toolkit train` checks gradients there before it begins.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toolkit import devices
from toolkit.data import load
from toolkit.networks import Classifier, build
from toolkit.recipe import Recipe
from toolkit.training.loop import Run

IMAGES = 16
UNKNOWN_TO_MPS = {torch.float64, torch.complex128}


@dataclass(frozen=True)
class OperatorUse:
    """An operator of a step. `fault` None: MPS has a kernel for it, and every dtype it met."""

    step: str  # training | inference
    operator: str
    calls: int
    dtypes: tuple[str, ...]
    fault: str | None


@dataclass(frozen=True)
class Readiness:
    model: str
    torch: str
    operators: list[OperatorUse]

    @property
    def faults(self) -> list[OperatorUse]:
        return [use for use in self.operators if use.fault is not None]


def examine_mps(recipe: Recipe, data_dir: Path | None = None) -> Readiness:
    """Every ATen operator and dtype of two training steps and one inference step of the recipe, judged for MPS."""
    data = load(recipe.data.set, data_dir)
    images, labels = data.train_images[:IMAGES], data.train_labels[:IMAGES]
    # Two steps of an epoch each: an optimiser does other things at its first one than at all others.
    plan = recipe.train.model_copy(update={"epochs": 2, "batch_size": IMAGES, "subset": None, "holdout": 0, "plain_end": 0.0})
    backend = replace(devices.BACKENDS["mps"], torch_device="cpu")  # its choices, carried out here
    model = build(recipe, len(data.classes), images.shape[1])
    return Readiness(recipe.name, torch.__version__, [*_training(model, images, labels, plan, backend), *_inference(model, images)])


def _training(model: Classifier, images: torch.Tensor, labels: torch.Tensor, plan: Any, backend: devices.Backend) -> list[OperatorUse]:
    trace = _Trace()
    with trace:
        list(Run(model, images, labels, plan, backend).figures())
    return trace.uses("training")


def _inference(model: Classifier, images: torch.Tensor) -> list[OperatorUse]:
    model.eval()
    trace = _Trace()
    with trace, torch.no_grad():  # in inference mode composite operators are not taken apart
        model(images.float()).softmax(1)
    return trace.uses("inference")


class _Trace(TorchDispatchMode):
    """Counts the operators that reach a backend, below autograd, and the dtypes of what goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.dtypes: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name()  # aten::add.Tensor
        found = {leaf.dtype for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if found:  # else it is the profiler's, and computes nothing
            self.calls[name] += 1
            self.dtypes.setdefault(name, set()).update(found)
        return out

    def uses(self, step: str) -> list[OperatorUse]:
        return [
            OperatorUse(
                step, name, calls, tuple(sorted(str(dtype).removeprefix("torch.") for dtype in self.dtypes[name])), self._fault(name)
            )
            for name, calls in sorted(self.calls.items())
        ]

    def _fault(self, name: str) -> str | None:
        faults = [] if has_mps_kernel(name) else ["torch has no MPS kernel for it"]
        faults += [f"MPS has no {str(dtype).removeprefix('torch.')}" for dtype in self.dtypes[name] & UNKNOWN_TO_MPS]
        return "; ".join(sorted(faults)) or None


def has_mps_kernel(operator: str) -> bool:
    """`operator` as aten::add.Tensor. By torch's own table: a kernel for MPS, or one that is made of others on any backend."""
    kernels, functions = _table()
    namespace, _, name = operator.partition("::")
    function = functions.get(name) if namespace == "aten" else None
    if function is None:
        return False
    delegate = functions.get(str(function.structured_delegate)) if function.structured_delegate else None
    composite = (
        function.has_composite_implicit_autograd_kernel or function.has_composite_explicit_autograd_kernel
        or function.has_composite_explicit_autograd_non_functional_kernel
    )  # fmt: skip
    return bool(composite or kernels.has_kernel(function) or (delegate is not None and kernels.has_kernel(delegate)))


@cache
def _table() -> tuple[Any, dict[str, Any]]:
    import torchgen  # type: ignore[import-untyped]
    from torchgen.gen import parse_native_yaml  # type: ignore[import-untyped]
    from torchgen.model import DispatchKey  # type: ignore[import-untyped]

    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    parsed = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    return parsed.backend_indices[DispatchKey.MPS], {str(function.func.name): function for function in parsed.native_functions}
