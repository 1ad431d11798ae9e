"""Damaged and hostile packages: each ends in an ArtifactError that says what is wrong, never in a crash or a guess."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import ArtifactError
from toolkit.mil import ReferenceEvaluator

Copy = Callable[..., Path]
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def edit_manifest(package: Path, path: str) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def link_outside(package: Path) -> None:
    outside = package.parent / "outside.mlmodel"
    (package / MODEL).rename(outside)
    (package / MODEL).symlink_to(outside)


DAMAGED_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "not a .mlpackage folder"),
    "manifest is no JSON": (lambda p: (p / "Manifest.json").write_text("{"), "is no JSON"),
    "manifest without root": (lambda p: (p / "Manifest.json").write_text("{}"), "names no root model"),
    "manifest is a list": (lambda p: (p / "Manifest.json").write_text("[]"), "names no root model"),
    "manifest too large": (lambda p: (p / "Manifest.json").write_text(" " * 2**21), "at most 1,048,576 are read"),
    "manifest climbs out": (lambda p: edit_manifest(p, "../../../x"), "points outside the package"),
    "manifest is absolute": (lambda p: edit_manifest(p, "/etc/hostname"), "points outside the package"),
    "manifest with a NUL": (lambda p: edit_manifest(p, "a\0b"), "no usable path"),
    "manifest names nothing": (lambda p: edit_manifest(p, "com.apple.CoreML/none"), "is missing"),
    "link out of the package": (link_outside, "points outside the package"),
    "program cut": (lambda p: truncate(p / MODEL, 1000), "no Core ML protobuf: damaged at byte"),
    "program empty": (lambda p: truncate(p / MODEL, 0), "no model at all, which is another format"),
    "program is noise": (lambda p: (p / MODEL).write_bytes(b"\xff" * 500), "no Core ML protobuf: damaged at byte"),
    "weights missing": (lambda p: (p / WEIGHTS).unlink(), "weight.bin' is missing"),
    "weights empty": (lambda p: truncate(p / WEIGHTS, 0), "less than its header"),
    "weights cut": (lambda p: truncate(p / WEIGHTS, 300), "in a file of 300 bytes|outside the file of 300"),
    "weights zeroed": (lambda p: (p / WEIGHTS).write_bytes(struct.pack("<II", 1, 2) + b"\0" * 9000), "starts with 0x00000000"),
    "weights of another version": (lambda p: (p / WEIGHTS).write_bytes(b"\1" * 9000), "storage version"),
}


@pytest.mark.parametrize("damage", DAMAGED_FILES)
def test_damaged_file(damage: str, copy_of: Copy) -> None:
    package = copy_of()
    act, message = DAMAGED_FILES[damage]
    act(package)
    with pytest.raises(ArtifactError, match=message):
        ReferenceEvaluator(package)


def block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def first(spec: Any, kind: str) -> Any:
    return next(op for op in block(spec).operations if op.type == kind)


def consts(spec: Any) -> Any:
    """Reading `attributes["val"]` of another op would create it: protobuf maps do."""
    return (op for op in block(spec).operations if op.type == "const")


def first_blob(spec: Any) -> Any:
    return next(op for op in consts(spec) if op.attributes["val"].WhichOneof("value") == "blobFileValue")


def blob(spec: Any) -> Any:
    return first_blob(spec).attributes["val"].blobFileValue


def resize(spec: Any, size: int, axis: int = 1) -> None:
    op = first(spec, "relu")
    op.outputs[0].type.tensorType.dimensions[axis].constant.size = size


def cycle(spec: Any) -> None:
    first(spec, "relu").inputs["x"].arguments[0].name = first(spec, "linear").outputs[0].name


def bad_shape_constant(spec: Any) -> None:
    values = first_blob(spec).attributes["val"].type.tensorType.dimensions
    values[0].constant.size += 1
    first_blob(spec).outputs[0].type.tensorType.dimensions[0].constant.size += 1


DAMAGED_PROGRAMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "neural network": (lambda s: s.neuralNetwork.SetInParent(), "holds neuralNetwork, which is another format"),
    "no such opset": (lambda s: setattr(s.mlProgram.functions["main"], "opset", "CoreML99"), "opset 'CoreML99'; known are CoreML5"),
    "cycle": (cycle, "only defined by op .*a cycle, or out of order"),
    "undefined name": (lambda s: setattr(first(s, "relu").inputs["x"].arguments[0], "name", "ghost"), "'ghost'.*defined nowhere"),
    "defined twice": (lambda s: setattr(first(s, "relu").outputs[0], "name", "image"), "'image' is defined twice"),
    "undefined output": (lambda s: block(s).outputs.append("ghost"), "output 'ghost' is defined nowhere"),
    "wrong shape": (lambda s: resize(s, 5), r"computes shape \[1, 8, 16, 16\], the program declares fp32\[1, 5, 16, 16\]"),
    "absurd shape": (lambda s: resize(s, 2**60), "at most 8 axes"),
    "absurd shape of nothing": (lambda s: (resize(s, 2**60), resize(s, 0, 0)), "at most 8 axes"),
    "weight of another shape": (bad_shape_constant, "the program's shape needs"),
    "weight outside the file": (lambda s: setattr(blob(s), "offset", 2**40), "lies outside the file"),
    "weight in no record": (lambda s: setattr(blob(s), "offset", 65), "starts with 0x"),
    "weight file elsewhere": (lambda s: setattr(blob(s), "fileName", "@model_path/../../../../x"), "points outside"),
    "weight file absolute": (lambda s: setattr(blob(s), "fileName", "/etc/hostname"), "does not start with '@model_path/'"),
    "unbound argument": (lambda s: first(s, "relu").inputs["x"].arguments[0].Clear(), "bound to nothing"),
    "missing argument": (lambda s: first(s, "relu").inputs.pop("x"), "required parameters are missing: x"),
    "unknown parameter": (lambda s: first(s, "relu").inputs["z"].CopyFrom(first(s, "relu").inputs["x"]), "does not take: z"),
    "nested block": (lambda s: first(s, "relu").blocks.add(), "nested blocks"),
    "wrong type": (lambda s: setattr(first(s, "relu").outputs[0].type.tensorType, "dataType", 10), "declares output fp16.*gives fp32"),
    "8-bit float": (lambda s: setattr(first(s, "relu").outputs[0].type.tensorType, "dataType", 40), "number 40 of MIL.proto"),
    "other input names": (lambda s: setattr(s.description.input[0], "name", "other"), "description names inputs"),
    "op without an output": (lambda s: first(s, "relu").ClearField("outputs"), "has 0 outputs, its function gives"),
    "text for a tensor": (lambda s: text_for_tensor(s), "input 'x' is string"),
    "text as input": (lambda s: setattr(s.mlProgram.functions["main"].inputs[0].type.tensorType, "dataType", 2), "not numbers"),
    "short constant": (lambda s: shorten(s), "holds 0 values"),
}


def text_for_tensor(spec: Any) -> None:
    """The name of a constant text, the padding type of the first convolution, in place of a tensor."""
    text = next(op for op in consts(spec) if op.attributes["val"].immediateValue.tensor.strings.values)
    first(spec, "relu").inputs["x"].arguments[0].name = text.outputs[0].name


def shorten(spec: Any) -> None:
    op = next(op for op in consts(spec) if op.attributes["val"].immediateValue.tensor.ints.values)
    del op.attributes["val"].immediateValue.tensor.ints.values[:]


@pytest.mark.parametrize("damage", DAMAGED_PROGRAMS)
def test_damaged_program(damage: str, copy_of: Copy) -> None:
    from coremltools.proto import Model_pb2

    package = copy_of()
    act, message = DAMAGED_PROGRAMS[damage]
    spec = Model_pb2.Model.FromString((package / MODEL).read_bytes())
    act(spec)
    (package / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(ArtifactError, match=message):
        ReferenceEvaluator(package)


def test_unknown_function_names_those_there_are(packages: dict[str, Path]) -> None:
    with pytest.raises(ArtifactError, match="no function 'other'; the program has main"):
        ReferenceEvaluator(packages["FLOAT32-tensor"], function="other")


def test_every_cut_of_the_program_is_an_artifact_error(copy_of: Copy) -> None:
    """Cut anywhere, the protobuf either fails to parse or lacks something that is named."""
    package = copy_of()
    whole = (package / MODEL).read_bytes()
    for size in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (package / MODEL).write_bytes(whole[:size])
        with pytest.raises(ArtifactError):
            ReferenceEvaluator(package)
