"""Mutators of what is in a file: bytes, JSON, TOML, archives, safetensors, protobufs, words of strangers."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fuzz import damage_bytes, damage_field
from benchmarks.hostile.places import everything
from benchmarks.hostile.scene import Scene

ESCAPES = (
    "\x1b[2J\x1b[H\x1b[1;32mPASSED\x1b[0m", "\u202e", "a\nb\r", "\x00", "\x07", "\ud800", "<script>alert(1)</script>", "[bold]x[/]",
    "]]>", "x" * 100_000, "`|*", "", "\u2028", "../../home/Documents", "{model}", "nan", "{" * 2000,
)  # fmt: skip
VALUES = (
    "1e400", "-1e400", "NaN", "Infinity", "1" * 5000, "-1", "0", "null", "true", '""', "[]", "{}", "1e308", "0.5", "[" * 5000,
    "[" * 100_000 + "]" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, str(2**63), str(2**31), "9" * 400 + "." + "9" * 400,
)  # fmt: skip
BOMBS: dict[str, Callable[[], str]] = {
    "dotted keys": lambda: ".".join("a" * 30_000) + " = 1\n",
    "nested arrays": lambda: "a = " + "[" * 30_000 + "]" * 30_000,
    "nested tables": lambda: "a = " + "{a=" * 5_000 + "1" + "}" * 5_000,
    "many keys": lambda: "".join(f"[t{k}]\nx = {k}\n" for k in range(50_000)),
    "many values": lambda: "\n".join(f"k{k} = {k}" for k in range(100_000)),
    "long string": lambda: 'name = "' + "x" * 3_000_000 + '"',
    "long number": lambda: "a = " + "9" * 100_000,
    "large": lambda: "#" * (80 << 20),
}
KEYS = (
    "train.epochs", "train.batch_size", "train.lr", "train.seed", "train.subset", "train.warmup", "train.schedule", "preprocess.size",
    "preprocess.mean", "preprocess.std", "data.set", "network.builder", "name", "gates.fp32.max_abs_logit",
)  # fmt: skip
TOML_VALUES = (
    "1e400", "nan", "inf", "-1", "0", "1e-320", "999999999999999999999", '"\\u001b[2J"', '"mnist"', '"../../x"', "true", "[]", "{}",
    "1979-05-27", "1_000_000", "0x10", '"' + "x" * 5000 + '"', "2147483648", '"\\u202e"', "1e300", '"resnet18"',
)  # fmt: skip


def any_bytes(scene: Scene) -> str:
    """Bits flipped, bytes spliced in or cut out, of any file."""
    path = scene.rng.choice(everything(scene.model, files_only=True))
    path.write_bytes(damage_bytes(path.read_bytes(), scene.rng))
    return _of(scene, path)


def _of(scene: Scene, path: Path) -> str:
    return str(path.relative_to(scene.model))


def _one(scene: Scene, *patterns: str) -> Path:
    """A file of those kinds, or the recipe."""
    found = [path for path in everything(scene.model, files_only=True) if any(path.match(pattern) for pattern in patterns)]
    return scene.rng.choice(found) if found else scene.model / "recipe.toml"


def json_values(scene: Scene) -> str:
    """Some values of a JSON file become numbers, words or nesting that nobody expects."""
    path = _one(scene, "*.json", "*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
    at = scene.rng.randrange(len(lines)) if lines else 0
    changed = []
    try:
        content = json.loads(lines[at])
    except (ValueError, IndexError, RecursionError):
        return any_bytes(scene)
    slots = list(_slots(content))
    raw: dict[str, str] = {}
    for _ in range(scene.rng.choice((1, 1, 2, 3))):
        if not slots:
            break
        holder, key = scene.rng.choice(slots)
        mark = f"@@{len(raw)}@@"
        if scene.rng.random() < 0.5:
            raw[f'"{mark}"'] = scene.rng.choice(VALUES)
        else:
            raw[f'"{mark}"'] = json.dumps(scene.rng.choice(ESCAPES))
        holder[key] = mark
        changed.append(f"{key} = {raw[f'{chr(34)}{mark}{chr(34)}'][:40]}")
    text = json.dumps(content)
    for mark, value in raw.items():
        text = text.replace(mark, value)
    lines[at] = text
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"{_of(scene, path)}: {', '.join(changed)}"


def _slots(value: Any) -> Any:
    """Every (holder, key) of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 50)) if isinstance(value, list) else ():
        yield value, key
        yield from _slots(value[key])


def json_shape(scene: Scene) -> str:
    """A byte order mark, duplicate keys, a key less, a key more, NUL, nothing but brackets."""
    path, rng = _one(scene, "*.json", "*.jsonl"), scene.rng
    data = path.read_bytes()
    how = rng.choice(["mark", "duplicate", "less", "more", "nul", "brackets", "utf-16", "latin-1", "scalar", "huge"])
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if how == "mark":
        data = b"\xef\xbb\xbf" + data
    elif how == "duplicate":
        data = data.replace(b"{", b'{"schema_version": 9, "name": "twice", ', 1)
    elif how in ("less", "more") and isinstance(content, dict) and content:
        if how == "less":
            del content[rng.choice(list(content))]
        else:
            content[rng.choice(ESCAPES)] = 1
        data = json.dumps(content).encode()
    elif how == "brackets":
        data = b"[" * 200_000
    elif how == "utf-16":
        data = data.decode("utf-8", "replace").encode("utf-16")
    elif how == "latin-1":
        data += b"\xe9\xff"
    elif how == "scalar":
        data = rng.choice([b"null", b"1", b'"x"', b"[]", b"{}", b"NaN"])
    elif how == "huge":
        data += b" " * (rng.choice([1, 20, 300]) << 20)
    else:
        data = data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]
    path.write_bytes(data)
    return f"{_of(scene, path)}: {how}"


def recipe_values(scene: Scene) -> str:
    """A recipe with one value that nobody expects."""
    key, value = scene.rng.choice(KEYS), scene.rng.choice(TOML_VALUES)
    path = scene.model / "recipe.toml"
    section, _, name = key.rpartition(".")
    text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(f"{name} ="))
    if section and f"[{section}]" in text:
        text = text.replace(f"[{section}]", f"[{section}]\n{name} = {value}", 1)
    else:
        text = f"{text}\n[{section}]\n{name} = {value}\n" if section else f"{name} = {value}\n{text}"
    path.write_text(text, encoding="utf-8")
    return f"{key} = {value[:40]}"


def recipe_bomb(scene: Scene) -> str:
    name = scene.rng.choice(list(BOMBS))
    path = scene.model / "recipe.toml"
    path.write_text(BOMBS[name]() if scene.rng.random() < 0.5 else path.read_text(encoding="utf-8") + BOMBS[name](), encoding="utf-8")
    return name


def archive(scene: Scene) -> str:
    """golden.npz or resume.pt: an entry that unpacks to much, of another name or type, twice, missing, or an object array."""
    path, rng = _one(scene, "golden.npz", "resume.pt"), scene.rng
    how = rng.choice(["bomb", "name", "twice", "less", "object", "shape", "bytes"])
    try:
        with zipfile.ZipFile(path) as old:
            entries = {name: old.read(name) for name in old.namelist()}
    except (zipfile.BadZipFile, OSError):
        return any_bytes(scene)
    name = rng.choice(list(entries))
    if how == "bomb":
        entries[name] = entries[name][:128] + bytes(rng.choice([64, 300, 600]) << 20)
    elif how == "name":
        entries[rng.choice(["../../x", "/tmp/x", "a\0b", "images.npy", "\x1b[2J"])] = entries.pop(name)
    elif how == "less":
        del entries[name]
    elif how == "object":
        entries[name] = _npy("|O", (2,), b"\x80\x04N.")
    elif how == "shape":
        entries[name] = _npy(
            rng.choice(["<f4", "<f8", "<U1000000", "<M8[s]"]), rng.choice([(2**40,), (0, 1), (2**33, 2**33), (-1,), ()]), b""
        )
    else:
        entries[name] = damage_bytes(entries[name], rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry, data in entries.items():
            new.writestr(entry, data)
            if how == "twice":
                new.writestr(entry, data[: len(data) // 2])
    return f"{_of(scene, path)}: {how} {name}"


def _npy(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def tensors(scene: Scene) -> str:
    """The header of model.safetensors, or numbers in it."""
    path, rng = _one(scene, "*.safetensors"), scene.rng
    data = path.read_bytes()
    if path.suffix != ".safetensors" or len(data) < 16:
        return any_bytes(scene)
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    how = rng.choice(["length", "shape", "dtype", "offsets", "name", "nan", "metadata", "less"])
    name = rng.choice([each for each in header if each != "__metadata__"])
    if how == "length":
        path.write_bytes(struct.pack("<Q", rng.choice([0, 1, 2**63, 2**40, length + 1])) + data[8:])
        return "the header's length"
    if how == "nan":
        body[:4096] = struct.pack("<f", rng.choice([float("nan"), float("inf"), 1e38, -1e38])) * (len(body[:4096]) // 4)
    elif how == "shape":
        header[name]["shape"] = rng.choice([[2**40], [0], [], [-1], [1] * 5000, [2**31, 2**31, 4]])
    elif how == "dtype":
        header[name]["dtype"] = rng.choice(["F64", "I8", "BOOL", "F8_E4M3", "X"])
    elif how == "offsets":
        header[name]["data_offsets"] = rng.choice([[0, 2**40], [4, 0], [0, 0], [-4, 4]])
    elif how == "name":
        header[rng.choice(ESCAPES)] = header.pop(name)
    elif how == "less":
        del header[name]
    else:
        header["__metadata__"] = {"format": rng.choice(ESCAPES)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return f"{how} of {name}"


def protobuf(scene: Scene) -> str:
    """Fields of an ONNX or Core ML model: other numbers, names, enumerations, one element less or twice."""
    path = _one(scene, "model.onnx", "*.mlmodel")
    data = path.read_bytes()
    try:
        message = _message(path.suffix)
        message.ParseFromString(data)
    except Exception:  # damaged before: only bytes are left to change
        return any_bytes(scene)
    for _ in range(scene.rng.choice((1, 1, 1, 2, 4))):
        damage_field(message if path.suffix == ".mlmodel" else _Message(message), scene.rng)
    path.write_bytes(message.SerializeToString())
    return _of(scene, path)


class _Message:
    """An ONNX model as `damage_field` takes it, which looks for names in `mlProgram`."""

    def __init__(self, message: Any) -> None:
        self.mlProgram = message
        self.ListFields = message.ListFields


def _message(suffix: str) -> Any:
    if suffix == ".onnx":
        import onnx

        return onnx.ModelProto()
    from toolkit.mil._proto import model_pb2

    return model_pb2().Model()


def onnx_wide(scene: Scene) -> str:
    """An ONNX whose graph asks for much memory, many rounds, or has a type, a name or metadata that nobody expects."""
    import onnx
    from onnx import TensorProto, helper

    path, rng = scene.model / "exports/onnx-fp32/model.onnx", scene.rng
    if not path.is_file():
        return any_bytes(scene)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception:  # damaged before
        return any_bytes(scene)
    graph = model.graph
    how = rng.choice(["type 999", "brackets", "no weights", "64 GiB", "wide", "scalar", "nan", "string", "external", "3-D", "doc", "empty"])
    output = graph.output[0].name if graph.output else "logits"
    if how == "type 999" and graph.initializer:
        graph.initializer[0].data_type = 999
    elif how == "brackets":
        entry = model.metadata_props.add()
        entry.key, entry.value = "class_labels", "[" * 100_000
    elif how == "no weights":
        for each in graph.initializer:
            each.dims[:] = [0]
            each.raw_data = b""
    elif how == "empty":
        path.write_bytes(b"\x0a\x00" * rng.choice([1000, 5_000_000]))
        return "many empty messages"
    elif how == "external" and graph.initializer:
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].data_location = TensorProto.EXTERNAL
        entry = graph.initializer[0].external_data.add()
        entry.key, entry.value = "location", rng.choice(["../../../../home/.profile", "/dev/zero", "golden.npz", "../x"])
    elif how == "doc":
        model.producer_name = rng.choice(ESCAPES[:4])
        graph.doc_string = rng.choice(ESCAPES[:3]) * 1000
    else:
        size = {"64 GiB": [1 << 34], "wide": [1, 1 << 24], "scalar": [], "3-D": [1, 10, 3]}.get(how, [1, 10])
        kind = TensorProto.STRING if how == "string" else TensorProto.FLOAT
        if how == "string":
            constant = helper.make_tensor("hostile", kind, [1, 10], [b"\x1b[2J"] * 10)
            node = helper.make_node("Constant", [], ["hostile_out"], value=constant)
        else:
            graph.initializer.append(helper.make_tensor("hostile_shape", TensorProto.INT64, [len(size)], size))
            value = helper.make_tensor("v", kind, [1], [float("nan") if how == "nan" else 0.5])
            node = helper.make_node("ConstantOfShape", ["hostile_shape"], ["hostile_out"], value=value)
        for each in graph.node:
            each.output[:] = ["unused_" + name if name == output else name for name in each.output]
        node.output[0] = output
        graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    return how


def coreai_words(scene: Scene) -> str:
    """metadata.json and main.hash of an .aimodel."""
    folder, rng = scene.model / "exports/coreai-fp32/model.aimodel", scene.rng
    if not folder.is_dir():
        return any_bytes(scene)
    path = folder / rng.choice(["metadata.json", "main.hash", "main.mlirb"])
    data = {
        "metadata.json": rng.choice([b"[" * 100_000, b'{"a":' * 50_000, b"{}", b'{"x": "\\u001b[2J"}', b"null"]),
        "main.hash": rng.choice([b"\0" * 32, b"", b"x" * 1000]),
        "main.mlirb": damage_bytes(path.read_bytes(), rng) if path.is_file() else b"",
    }[path.name]
    path.write_bytes(data)
    return f"{path.name}: {data[:20]!r}"


def swapped(scene: Scene) -> str:
    """Two files of the model change places: each is a good file, of another kind."""
    first, second = scene.rng.sample(everything(scene.model, files_only=True), 2)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return f"{_of(scene, first)} and {_of(scene, second)}"


def spliced(scene: Scene) -> str:
    """The start of one file and the end of another."""
    first, second = scene.rng.sample(everything(scene.model, files_only=True), 2)
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2] + second.read_bytes()[: 1 << 20])
    return f"{_of(scene, first)} and {_of(scene, second)}"
