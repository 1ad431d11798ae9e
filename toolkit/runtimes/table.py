"""RUNTIMES: every runtime there is."""

from collections.abc import Iterable

from toolkit.errors import ToolkitError
from toolkit.runtimes.base import Runtime

_HOME = "toolkit.runtimes"
_TABLE = (
    Runtime(id="torch-cpu", module=f"{_HOME}.torch", reads="torch", batch=250, options={"device": "cpu"}),
    Runtime(
        id="torch-cpu-bf16", module=f"{_HOME}.torch", reads="torch", batch=250, precision="bf16",
        options={"device": "cpu", "dtype": "bfloat16"},
    ),
    Runtime(id="torch-mps", module=f"{_HOME}.torch", reads="torch", batch=250, options={"device": "mps"}),
    Runtime(id="torch-cuda", module=f"{_HOME}.torch", reads="torch", batch=250, options={"device": "cuda"}),
    Runtime(id="onnxruntime-cpu", module=f"{_HOME}.onnxruntime", reads="onnx", batch=250, options={"provider": "CPUExecutionProvider"}),
    Runtime(id="onnxruntime-coreml", module=f"{_HOME}.onnxruntime", reads="onnx", options={"provider": "CoreMLExecutionProvider"}),
    Runtime(id="onnx-reference", module=f"{_HOME}.onnx_reference", reads="onnx", is_device=False, batch=20, most_images=100),
    Runtime(id="coreml-cpu", module=f"{_HOME}.coreml", reads="coreml", options={"compute_unit": "CPU_ONLY"}),
    Runtime(id="coreml-gpu", module=f"{_HOME}.coreml", reads="coreml", options={"compute_unit": "CPU_AND_GPU"}),
    Runtime(id="coreml-ane", module=f"{_HOME}.coreml", reads="coreml", options={"compute_unit": "CPU_AND_NE"}),
    Runtime(id="coreml-all", module=f"{_HOME}.coreml", reads="coreml", options={"compute_unit": "ALL"}),
    Runtime(id="coreml-reference", module=f"{_HOME}.reference", reads="coreml", is_device=False, batch=100),
    Runtime(id="coreai", module=f"{_HOME}.coreai", reads="coreai", is_device=False, most_images=100),
    Runtime(id="null", module=f"{_HOME}.null", reads="torch", batch=250),
)  # fmt: skip
RUNTIMES = {runtime.id: runtime for runtime in _TABLE}


def find(runtime_id: str) -> Runtime:
    """The runtime of that id. Raises ToolkitError listing the ids there are."""
    if runtime_id not in RUNTIMES:
        raise ToolkitError(f"there is no runtime {runtime_id!r}; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime_id]


def select(ids: Iterable[str] | None) -> list[Runtime]:
    """The named runtimes; without names all but `null`, which computes nothing and measures the harness."""
    if ids:
        return [find(each) for each in dict.fromkeys(ids)]
    return [runtime for runtime in RUNTIMES.values() if runtime.id != "null"]
