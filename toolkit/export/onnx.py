"""ONNX: one file, any batch size, checked by onnx.checker; labels and preprocessing in its metadata."""

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch

from toolkit.artifact import describe_preprocessing, image_spec, output_specs
from toolkit.errors import ExportError
from toolkit.export.formats import Converted, Source
from toolkit.export.noise import known_noise
from toolkit.export.program import DESCRIPTIONS, description
from toolkit.tensors import IMAGE, LOGITS, PROBABILITIES

ENTRY = "model.onnx"
OPSET = 20  # written with IR version 10, which every onnxruntime since 1.18 reads


def convert(source: Source, route: str, folder: Path) -> Converted:
    """Writes model.onnx into `folder` by one of torch's two exporters: `dynamo` or `torchscript`."""
    try:
        with known_noise():
            model = ROUTES[route](source)
        _describe(model, source)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # both exporters and the checker raise many types
        raise ExportError(f"torch.onnx.export ({route}, torch {torch.__version__}) failed: {error}") from error
    onnx.save(model, folder / ENTRY)
    classes = len(source.checkpoint.card.class_labels)
    return Converted(entry=ENTRY, inputs=(image_spec(source.checkpoint.card.input_shape),), outputs=output_specs(classes))


def _dynamo(source: Source) -> Any:
    example = torch.zeros(2, *source.checkpoint.card.input_shape)  # two: a batch of one is taken for a constant
    program = torch.onnx.export(
        source.model, (example,), dynamo=True, verbose=False, external_data=False, opset_version=OPSET,
        input_names=[IMAGE], output_names=[LOGITS, PROBABILITIES],
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
    )  # fmt: skip
    assert program is not None  # it is only where a file name is given
    return program.model_proto


def _torchscript(source: Source) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ENTRY
        torch.onnx.export(
            source.model, (torch.zeros(2, *source.checkpoint.card.input_shape),), path, dynamo=False, opset_version=OPSET,
            input_names=[IMAGE], output_names=[LOGITS, PROBABILITIES],
            dynamic_axes={name: {0: "batch"} for name in (IMAGE, LOGITS, PROBABILITIES)},
        )  # fmt: skip
        return onnx.load(path)


ROUTES = {"dynamo": _dynamo, "torchscript": _torchscript}


def _describe(model: Any, source: Source) -> None:
    about = description(source)
    model.doc_string = about.pop("description")
    model.producer_name = f"toolkit, from {model.producer_name} {model.producer_version}".strip()
    about["class_labels"] = json.dumps(source.checkpoint.card.class_labels)
    about["preprocessing"] = describe_preprocessing(source.checkpoint)
    onnx.helper.set_model_props(model, about)
    for value in [*model.graph.input, *model.graph.output]:
        value.doc_string = DESCRIPTIONS[value.name]
    for node in model.graph.node:  # stack traces of the machine that exported
        del node.metadata_props[:]
        node.doc_string = ""
