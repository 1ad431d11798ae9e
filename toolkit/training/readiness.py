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
    """An operator of a step. `fault` None: MPS has every dtype it met, and a kernel for it, or it is `composite`: one kernel of torch's
    for all backends, that calls others. Which ones depends on the backend, so that no other machine can see them.
    """

    step: str  # training | inference
    operator: str
    calls: int
    dtypes: tuple[str, ...]
    fault: str | None
    composite: bool = False


@dataclass(frozen=True)
class Readiness:
    model: str
    torch: str
    operators: list[OperatorUse]

    @property
    def faults(self) -> list[OperatorUse]:
        return [use for use in self.operators if use.fault is not None]


def examine_mps(recipe: Recipe) -> Readiness:
    """Every ATen operator and dtype of two training steps and one inference step of the recipe, judged for MPS."""
    data = load("digits")  # in place of the recipe's, which may be a download: operators depend on no picture, and all have this shape
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
        name = func.name()  # aten::add.Tensor
        out = func(*args, **(kwargs or {}))
        found = {leaf.dtype for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if found:  # else it is the profiler's, and computes nothing
            self.calls[name] += 1
            self.dtypes.setdefault(name, set()).update(found)
        return out

    def uses(self, step: str) -> list[OperatorUse]:
        return [
            OperatorUse(step, name, calls, self._dtypes(name), self._fault(name), is_composite(name))
            for name, calls in sorted(self.calls.items())
        ]

    def _dtypes(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in self.dtypes[name]))

    def _fault(self, name: str) -> str | None:
        faults = [] if has_mps_kernel(name) or is_composite(name) else ["torch has no MPS kernel for it"]
        faults += [f"MPS has no {str(dtype).removeprefix('torch.')}" for dtype in self.dtypes[name] & UNKNOWN_TO_MPS]
        return "; ".join(sorted(faults)) or None


def has_mps_kernel(operator: str) -> bool:
    """Of its own, by torch's table. `operator` as aten::add.Tensor."""
    kernels, functions, _ = _table()
    function = functions.get(operator)
    if function is None:
        return False
    delegate = functions.get(f"aten::{function.structured_delegate}") if function.structured_delegate else None
    return bool(kernels.has_kernel(function) or (delegate is not None and kernels.has_kernel(delegate)))


def is_composite(operator: str) -> bool:
    """Has it, on MPS, no kernel of its own, but one that calls others? Not where it only allocates for its out= form, which MPS lacks."""
    _, functions, with_out = _table()
    function = functions.get(operator)
    if function is None or has_mps_kernel(operator):
        return False
    out = with_out.get(function.func.signature())
    if out is not None and not (_for_all_backends(out) or has_mps_kernel(f"aten::{out.func.name}")):
        return False
    return _for_all_backends(function)


def _for_all_backends(function: Any) -> bool:
    return bool(
        function.has_composite_implicit_autograd_kernel or function.has_composite_explicit_autograd_kernel
        or function.has_composite_explicit_autograd_non_functional_kernel
    )  # fmt: skip


@cache
def _table() -> tuple[Any, dict[str, Any], dict[Any, Any]]:
    """Kernels for MPS; functions by name; those that write into out=, by the signature that they share with the one that does not."""
    import torchgen  # type: ignore[import-untyped]
    from torchgen.gen import parse_native_yaml  # type: ignore[import-untyped]
    from torchgen.model import DispatchKey  # type: ignore[import-untyped]

    folder = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    parsed = parse_native_yaml(str(folder / "native_functions.yaml"), str(folder / "tags.yaml"))
    functions = {f"aten::{function.func.name}": function for function in parsed.native_functions}
    with_out = {function.func.signature(): function for function in parsed.native_functions if function.func.is_out_fn()}
    return parsed.backend_indices[DispatchKey.MPS], functions, with_out
