"""Mutators of model files: archives, safetensors, protobufs of ONNX and Core ML, an .aimodel."""

import json
import struct
import zipfile
from typing import Any

from benchmarks.fuzz import damage_bytes, damage_field
from benchmarks.hostile.contents import ESCAPES, any_bytes, named, one_of
from benchmarks.hostile.scene import Scene


def archive(scene: Scene) -> str:
    """golden.npz or resume.pt: an entry that unpacks to much, of another name or type, twice, missing, or an object array."""
    path, rng = one_of(scene, "golden.npz", "resume.pt"), scene.rng
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
    return f"{named(scene, path)}: {how} {name}"


def _npy(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def tensors(scene: Scene) -> str:
    """The header of model.safetensors, or numbers in it."""
    path, rng = one_of(scene, "*.safetensors"), scene.rng
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
    path = one_of(scene, "model.onnx", "*.mlmodel")
    data = path.read_bytes()
    try:
        message = _message(path.suffix)
        message.ParseFromString(data)
    except Exception:  # damaged before: only bytes are left to change
        return any_bytes(scene)
    for _ in range(scene.rng.choice((1, 1, 1, 2, 4))):
        damage_field(message, scene.rng)
    path.write_bytes(message.SerializeToString())
    return named(scene, path)


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
