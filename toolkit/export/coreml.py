"""Core ML: an ML Program in an .mlpackage, with class labels, and an image (or a multi-array) as input."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.artifact import image_spec, output_specs
from toolkit.errors import ExportError
from toolkit.export.formats import Converted, Source
from toolkit.export.noise import known_noise, no_bars
from toolkit.export.program import DESCRIPTIONS, description, exported
from toolkit.mil._coremltools import import_coremltools
from toolkit.tensors import CLASS_LABEL, IMAGE, LOGITS, PROBABILITIES

ENTRY = "model.mlpackage"


def convert(source: Source, route: str, folder: Path) -> Converted:
    """Writes model.mlpackage into `folder`: `image` → `logits`, `probabilities` (label → float) and `classLabel`."""
    coremltools = import_coremltools()
    try:
        with known_noise(), no_bars():
            model = _convert(coremltools, source)
    except ExportError:
        raise
    except Exception as error:  # coremltools raises ValueError, RuntimeError, NotImplementedError, AssertionError …
        raise ExportError(f"coremltools {coremltools.__version__} cannot convert this model: {error}") from error
    spec = _with_metadata(coremltools, model.get_spec(), source)
    coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(folder / ENTRY))
    return Converted(
        entry=ENTRY, input_kind=source.options.input_kind, inputs=(image_spec(source.checkpoint.card.input_shape),),
        outputs=output_specs(len(source.checkpoint.card.class_labels), labels=True),
    )  # fmt: skip


def _convert(coremltools: Any, source: Source) -> Any:
    """In two steps, because coremltools 9.0 cannot give names and a classifier to a program of two outputs at once.

    (It indexes the names by position after the classifier has put two outputs in front: "list index out of range".)
    """
    card = source.checkpoint.card
    target = getattr(coremltools.target, source.options.minimum_target or source.checkpoint.recipe.publish.minimum_target)
    seen: set[str] = set()
    precision = _precision(coremltools, source, seen)
    program = coremltools.convert(
        exported(source, {}), convert_to="milinternal", compute_precision=precision, minimum_deployment_target=target,
        inputs=[_input_type(coremltools, source)],
        outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in (LOGITS, PROBABILITIES)],
    )  # fmt: skip
    if unknown := [name for name in source.options.keep_fp32 if name not in seen]:
        near = difflib.get_close_matches(unknown[0], seen, n=3, cutoff=0.3) or sorted(seen)[:5]
        raise ExportError(f"--keep-fp32 {unknown[0]}: the program has no op of that name; near it are {', '.join(near)}")
    program.functions["main"].output_types = None
    return coremltools.convert(
        program, convert_to="mlprogram", minimum_deployment_target=target, skip_model_load=True,
        compute_precision=coremltools.precision.FLOAT32,  # what is fp16 by now stays so; nothing is cast a second time
        classifier_config=coremltools.ClassifierConfig(
            card.class_labels, predicted_feature_name=CLASS_LABEL, predicted_probabilities_output=PROBABILITIES
        ),
    )  # fmt: skip


def _precision(coremltools: Any, source: Source, seen: set[str]) -> Any:
    """coremltools asks of each op whether to make it fp16; `seen` then has the names of all that it asked of."""
    if source.precision == "fp32":
        return coremltools.precision.FLOAT32

    def to_fp16(op: Any) -> bool:
        names = {op.name, *(output.name for output in op.outputs)}
        seen.update(names)
        return not names & set(source.options.keep_fp32)

    return coremltools.transform.FP16ComputePrecision(op_selector=to_fp16) if source.options.keep_fp32 else coremltools.precision.FLOAT16


def _input_type(coremltools: Any, source: Source) -> Any:
    shape = (1, *source.checkpoint.card.input_shape)
    if source.options.input_kind == "tensor":
        return coremltools.TensorType(name=IMAGE, shape=shape, dtype=np.float32)
    if shape[1] != 1:
        raise ExportError(f"an image input is gray here, and this model takes {shape[1]} channels. Use --input tensor")
    return coremltools.ImageType(name=IMAGE, shape=shape, color_layout=coremltools.colorlayout.GRAYSCALE)


def _with_metadata(coremltools: Any, spec: Any, source: Source) -> Any:
    coremltools.utils.rename_feature(spec, f"{CLASS_LABEL}_probs", PROBABILITIES)
    about = description(source)
    metadata = spec.description.metadata
    metadata.author, metadata.license = about.pop("author"), about.pop("license")
    metadata.versionString, metadata.shortDescription = about.pop("version"), about.pop("description")
    metadata.userDefined.update(about)
    for feature in [*spec.description.input, *spec.description.output]:
        feature.shortDescription = DESCRIPTIONS[feature.name]
    return spec
