"""Write model files of a stranger into a folder: harmless ones, a pickle that runs code, graphs that ask for much memory.

python -m benchmarks.hostile.foreign FOLDER
"""

import os
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

PWNED = "pwned"  # what a file makes, in the folder that it is run in, if its code is run: the canary sees it


class Payload:
    """A pickle that makes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {PWNED} $HOME/{PWNED}",)


def make(folder: Path) -> None:
    import torch
    from torch import nn

    warnings.simplefilter("ignore")
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    example = torch.zeros(1, 1, 8, 8)
    torch.export.save(torch.export.export(network, (example,)), folder / "good.pt2")
    torch.jit.trace(network, example).save(str(folder / "script.pt"))
    torch.save(network.state_dict(), folder / "state.pt")
    _pickled(folder / "good.pt2", folder / "evil.pt2")
    (folder / "pickle.pt").write_bytes(pickle.dumps(Payload()))
    (folder / "pickle.pt2").write_bytes(pickle.dumps(Payload()))
    for name in ("empty.onnx", "empty.pt2", "empty.mlmodel"):
        (folder / name).write_bytes(b"")
    (folder / "zero.onnx").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.onnx")
    (folder / "folder.onnx").mkdir()
    (folder / "empty.mlpackage").mkdir()
    _graphs(folder)


def _pickled(source: Path, target: Path) -> None:
    """The same archive, with a pickle in place of each payload that is not text."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if "weight" in entry.filename and not entry.filename.endswith(".json"):
                data = pickle.dumps(Payload())
            elif entry.filename.endswith(".json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true').replace(b'"use_pickle":false', b'"use_pickle":true')
            elif "sample_inputs" in entry.filename or "constants" in entry.filename:
                data = pickle.dumps(Payload())
            new.writestr(entry, data)


def _graphs(folder: Path) -> None:
    """ONNX files of a few hundred bytes that ask for 64 GiB, many wide inputs, or a loop without an end."""
    import onnx
    from onnx import TensorProto, helper

    def save(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: list[Any] = []) -> None:  # noqa: B006
        graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        (folder / name).write_bytes(onnx.ModelProto.SerializeToString(model))

    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    x, y = helper.make_tensor_value_info("x", float32, [1, 4]), helper.make_tensor_value_info("y", float32, None)
    size = helper.make_tensor("size", int64, [1], [1 << 34])
    save("expand.onnx", [helper.make_node("ConstantOfShape", ["size"], ["z"]), helper.make_node("Add", ["z", "x1"], ["y"])],
         [helper.make_tensor_value_info("x1", float32, [1])], [y], [size])  # fmt: skip
    wide = [helper.make_tensor_value_info(f"x{k}", float32, [1 << 26]) for k in range(16)]
    save("wide.onnx", [helper.make_node("Sum", [f"x{k}" for k in range(16)], ["y"])], wide, [y])
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])], "body",
        [helper.make_tensor_value_info("i", int64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", float32, [1, 4])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", float32, [1, 4])])  # fmt: skip
    rounds, go = helper.make_tensor("n", int64, [], [1 << 62]), helper.make_tensor("go", TensorProto.BOOL, [], [True])
    save("loop.onnx", [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)], [x], [y], [rounds, go])
    save("good.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], [y])


if __name__ == "__main__":
    make(Path(sys.argv[1]))
