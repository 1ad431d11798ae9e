"""Core AI: Apple's .aimodel through coreai-torch. Beta: the format has changed incompatibly once."""

from importlib.util import find_spec
from pathlib import Path

from toolkit.artifact import image_spec, output_specs
from toolkit.errors import ExportError
from toolkit.export.formats import Converted, Source
from toolkit.export.noise import known_noise
from toolkit.export.program import description, exported
from toolkit.tensors import IMAGE, LOGITS, PROBABILITIES

ENTRY = "model.aimodel"


def require() -> None:
    """Raises ExportError where coreai-torch is not installed."""
    if find_spec("coreai_torch") is None:
        raise ExportError("coreai-torch is not installed. Install it with: pip install 'apple-deployment-toolkit[coreai]'")


def convert(source: Source, route: str, folder: Path) -> Converted:
    """Write model.aimodel into `folder`, for batches of one image. Raises ExportError."""
    require()
    with known_noise():
        import coreai_torch
        from coreai.runtime import AIModelAssetMetadata

        program = exported(source, coreai_torch.get_decomp_table())
        try:
            converter = coreai_torch.TorchConverter().add_exported_program(
                program, input_names=[IMAGE], output_names=[LOGITS, PROBABILITIES]
            )
            about = description(source)
            metadata = AIModelAssetMetadata()
            metadata.author, metadata.license = about.pop("author"), about.pop("license")
            metadata.model_description = about.pop("description")
            for key, value in about.items():
                metadata.set_custom(key, value)
            converter.to_coreai().save_asset(folder / ENTRY, metadata)
        except Exception as error:  # a beta: whatever it raises is its refusal
            raise ExportError(f"coreai-torch cannot convert this model: {error}") from error
    classes = len(source.checkpoint.card.class_labels)
    return Converted(entry=ENTRY, inputs=(image_spec(source.checkpoint.card.input_shape),), outputs=output_specs(classes))
