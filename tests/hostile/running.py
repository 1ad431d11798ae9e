"""Kind 2: model files that run code when a library reads them. Each would write `canary` beside the user's own files."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.attack import Attack

BENCH = "bench {model}/evil.%s --quick --runtime torch-cpu --out {out}/bench.json"


class Touch:
    """A pickle of it creates the canary when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return exec, (f"__import__('pathlib').Path({str(self.path)!r}).write_text('ran')",)


def canary(model: Path) -> Path:
    return model.parents[1] / "canary"


def honest(path: Path) -> dict[str, bytes]:
    """Saves y = 2·x + w with an open batch, and returns the members of the archive."""
    import torch

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x + self.w

    program = torch.export.export(Twice(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], top: str = "evil/", compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(top + name, content)


def unpickled(model: Path) -> bytes:
    """What torch.load(weights_only=False) runs: first what touches the canary, then it raises or not."""
    import torch

    buffer = io.BytesIO()
    torch.save(Touch(canary(model)), buffer)
    return buffer.getvalue()


def program(
    change: Callable[[Path, dict[str, bytes]], object], text: Callable[[Path, Any], object] | None = None
) -> Callable[[Path], None]:
    """evil.pt2: an honest one, with its members changed by `change`, and models/model.json (as an object) by `text`."""

    def plant(model: Path) -> None:
        path = model / "evil.pt2"
        members = honest(path)
        if text is not None:
            parsed = json.loads(members["models/model.json"])
            text(model, parsed)
            members["models/model.json"] = json.dumps(parsed).encode()
        change(model, members)
        write(path, members)

    return plant


def says(text: Callable[[Path, Any], object]) -> Callable[[Path], None]:
    return program(lambda model, members: None, text)


def _payload(config: str, name: str, content: Callable[[Path], bytes], **meta: object) -> Callable[[Path, dict[str, bytes]], None]:
    """An entry of a payload's table, whose file holds a pickle."""

    def change(model: Path, members: dict[str, bytes]) -> None:
        folder = f"data/{config}/"
        table = json.loads(members[f"{folder}model_{config}_config.json"])
        entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None} | meta
        table["config"] |= {"evil": entry}
        members[f"{folder}model_{config}_config.json"] = json.dumps(table).encode()
        members[folder + name] = content(model)

    return change


def _member(name: str, content: Callable[[Path], bytes]) -> Callable[[Path, dict[str, bytes]], None]:
    return lambda model, members: members.update({name: content(model)})


def _graph(parsed: Any) -> Any:
    return parsed["graph_module"]["graph"]


def _code(model: Path) -> str:
    return f"__import__('pathlib').Path({str(canary(model))!r}).write_text('ran')"


def _target(target: str, *arguments: Callable[[Path], dict[str, Any]]) -> Callable[[Path, Any], None]:
    """The first node calls that function, with these arguments."""

    def change(model: Path, parsed: Any) -> None:
        node = _graph(parsed)["nodes"][0]
        node["target"] = target
        node["inputs"] = [{"name": "", "arg": argument(model), "kind": 1} for argument in arguments]

    return change


def _expression(text: Callable[[Path], str]) -> Callable[[Path, Any], None]:
    def change(model: Path, parsed: Any) -> None:
        _graph(parsed)["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": text(model), "hint": {"as_int": 2}}}

    return change


def _input_spec(kind: str, context: str) -> Callable[[Path, Any], None]:
    def change(model: Path, parsed: Any) -> None:
        leaf = {"type": None, "context": None, "children_spec": []}
        tree = {"type": kind, "context": context.replace("CANARY", str(canary(model))), "children_spec": [leaf]}
        parsed["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, tree])

    return change


def _renamed(old: str, new: Callable[[Path], str]) -> Callable[[Path], None]:
    """A name that torch writes into the code of the module."""

    def change(model: Path, members: dict[str, bytes]) -> None:
        members["models/model.json"] = members["models/model.json"].replace(json.dumps(old).encode(), json.dumps(new(model)).encode())

    return program(change)


def _old_archive(model: Path) -> None:
    """As torch 2.7 wrote it: no folder, and pickles for weights, constants and inputs."""
    members = honest(model / "evil.pt2")
    names = ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt")
    pickles = dict.fromkeys(names, unpickled(model))
    write(model / "evil.pt2", {"version": b"8.8", "serialized_exported_program.json": members["models/model.json"], **pickles}, top="")


def _scripted(suffix: str, body: str) -> Callable[[Path], None]:
    def plant(model: Path) -> None:
        import torch

        source = f"def forward(self, x: Tensor) -> Tensor:\n    {body.replace('CANARY', str(canary(model)))}\n    return x\n"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = type(f"Evil_{suffix}", (torch.jit.ScriptModule,), {})()  # each class compiles `forward` once
            module.define(source)
            module.save(str(model / f"evil.{suffix}"))

    return plant


def _pickled(suffix: str, old: bool) -> Callable[[Path], None]:
    def plant(model: Path) -> None:
        content = pickle.dumps(Touch(canary(model))) if old else unpickled(model)
        (model / f"evil.{suffix}").write_bytes(content)

    return plant


def _archive(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def plant(model: Path) -> None:
        path = model / "evil.pt2"
        honest(path)
        path.write_bytes(change(path.read_bytes()))

    return plant


def _twice(model: Path) -> None:
    """Two members of one name: readers differ in which of them they take."""
    members = honest(model / "evil.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        write(model / "evil.pt2", members)
        with zipfile.ZipFile(model / "evil.pt2", "a") as archive:
            archive.writestr("evil/models/model.json", b"{}")


def _compressed(model: Path) -> None:
    members = honest(model / "evil.pt2")
    write(model / "evil.pt2", members | {"extra/zeros": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED)


def _string(text: str) -> Callable[[Path], dict[str, Any]]:
    return lambda model: {"as_string": text.replace("CANARY", str(canary(model)))}


PROGRAMS: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    ("a weight that is a pickle", program(_payload("weights", "weight_9", unpickled)), "weights_config.json: .*stored as a pickle"),
    ("a constant that is a pickle", program(_payload("constants", "tensor_9", unpickled)), "constants_config.json: .*stored as a pickle"),
    ("a custom object", program(_payload("constants", "custom_obj_0", unpickled)), "a pickle"),
    ("an opaque object", program(_payload("constants", "opaque_obj_0", lambda model: pickle.dumps(Touch(canary(model))))), "a pickle"),
    (
        "a custom object that says it is none",
        program(_payload("constants", "opaque_obj_0", lambda model: pickle.dumps(Touch(canary(model))), use_pickle=False)),
        "custom object, which is a pickle",
    ),
    ("weights of torch 2.8", program(_member("data/weights/model.pt", unpickled)), "model.pt is a pickle of weights"),
    ("constants of torch 2.8", program(_member("data/constants/model.pt", unpickled)), "model.pt is a pickle of weights"),
    ("an archive of torch 2.7", _old_archive, "one of torch 2.7 or earlier, whose weights are a pickle"),
    ("compiled code", program(_member("data/aotinductor/model/evil.so", lambda model: b"\x7fELF")), "evil.so is compiled code"),
    ("a second program", program(_member("models/other.json", lambda model: b"{}")), "other.json is a second program"),
    ("a member that nobody knows", program(_member("data/executorch/x", lambda model: b"")), "is nothing known"),
    ("guards with code in an input's name", _renamed("x", lambda model: f"x, y={_code(model)}"), "no name of a value"),
    ("an op's name with code in it", _renamed("add", lambda model: f"add = {_code(model)}; add"), "no name of a value"),
    ("a parameter's name with code in it", _renamed("w", lambda model: f'w") or {_code(model)}  #'), "no name of a parameter|w_config"),
    ("an op that is os.system", says(_target("torch.os.system", _string("touch CANARY"))), "no op that only computes"),
    ("an op that is torch.load", says(_target("torch.load", _string("CANARY"))), "no op that only computes"),
    ("an op that is eval", says(_target("torch.serialization.os.system", _string("touch CANARY"))), "no op that only computes"),
    ("an op that is __import__", says(_target("_operator.__builtins__.exec", _string("open('CANARY','w')"))), "no op that only computes"),
    ("an op that writes a file", says(_target("torch.ops.aten.save.default", _string("CANARY"))), "no op that only computes"),
    (
        "an op that maps a file",
        says(_target("torch.ops.aten.from_file.default", _string("CANARY"), lambda model: {"as_bool": True}, lambda model: {"as_int": 9})),
        "no op that only computes",
    ),
    ("an op as an argument", says(_target("torch.ops.aten.add.Tensor", lambda model: {"as_operator": "torch.os.system"})), "as_operator"),
    ("a custom op", says(_target("torch.ops.mylib.evil.default")), "no op that only computes"),
    ("an extension's op", says(_target("#mylib:evil")), "no op that only computes"),
    ("a size that is Python", says(_expression(lambda model: f"__import__('os').system('touch {canary(model)}')")), "no plain arithmetic"),
    ("a size that is open()", says(_expression(_code)), "no plain arithmetic"),
    ("a size that takes for ever", says(_expression(lambda model: "Pow(Integer(9), Pow(Integer(9), Integer(9)))")), "no plain arithmetic"),
    ("a size of 9**9**9", says(_expression(lambda model: "9**9**9")), "no plain arithmetic"),
    ("a size that is a class's inside", says(_expression(lambda model: "Symbol('s0').__class__")), "no plain arithmetic"),
    ("a size that is nested", says(_expression(lambda model: "(" * 1900 + "s0" + ")" * 1900)), "no plain arithmetic"),
    ("outputs that import a module", says(_input_spec("builtins.list", '{"__enum__":1,"fqn":"this:x","name":"y"}')), "names .*look up"),
    (
        "outputs that import a factory",
        says(
            _input_spec(
                "collections.defaultdict",
                '{"default_factory_module":"antigravity","default_factory_name":"x","dict_context":[]}',
            )
        ),
        "names 'collections.defaultdict'",
    ),
    ("a graph of brackets", program(_member("models/model.json", lambda model: b"[" * 500_000)), "models/model.json"),
    ("a program of 17 MiB", program(_member("models/model.json", lambda model: b" " * (17 << 20))), "at most 16,777,216 are read"),
    ("two members of one name", _twice, "twice or in a way that torch does not"),
    ("a compressed archive", _compressed, "is compressed or encrypted"),
    ("a program after another file", _archive(lambda content: b"#!/bin/sh\nexit\n" + content), "does not begin as a zip file"),
    ("a program cut short", _archive(lambda content: content[: len(content) // 2]), "is no exported program"),
)
OTHERS: tuple[tuple[str, str, Callable[[Path], None], str], ...] = (
    ("TorchScript that writes a file", "pt", _scripted("pt", "torch.save(x, 'CANARY')"), "is TorchScript.*give --trust"),
    ("TorchScript of another name", "ts", _scripted("ts", "torch.save(x, 'CANARY')"), "is TorchScript.*runs code from the file"),
    ("TorchScript as a program", "pt2", _scripted("pt2", "torch.save(x, 'CANARY')"), "it is TorchScript, or a pickle"),
    ("a pickle as TorchScript", "pt", _pickled("pt", old=False), "is a pickle .torch.save.: weights, or a module"),
    ("an old pickle as TorchScript", "torchscript", _pickled("torchscript", old=True), "is a pickle .torch.save.: weights, or a module"),
    ("an old pickle as a program", "pt2", _pickled("pt2", old=True), "is no exported program"),
    ("a pickle as a program", "pt2", _pickled("pt2", old=False), "it is TorchScript, or a pickle"),
)
THROUGH_THE_COMMAND = ("a weight that is a pickle", "a size that is open()")
ATTACKS = (
    *(
        Attack(f"bench: {name}", plant, BENCH % "pt2", says=f"(?s){words}")
        for name, plant, words in PROGRAMS  # the others in test_admitting.py, without a process each
        if name in THROUGH_THE_COMMAND
    ),
    *(
        Attack(f"bench: {name}", _scripted("pt", body), BENCH % "pt", says="(?s)is TorchScript, a program .*give --trust")
        for name, body in (("TorchScript that writes a file", "torch.save(x, 'CANARY')"),)
    ),
    Attack("bench --trust: a pickle", _pickled("pt", old=False), f"{BENCH % 'pt'} --trust", says="is a pickle .torch.save.: weights"),
    Attack("bench --trust of a model", lambda model: None, "bench {model} --trust", says="--trust is for model files"),
)
