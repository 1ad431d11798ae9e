"""The trained classifier as an ExportedProgram, preprocessing inside: what Core ML and Core AI are made from."""

from typing import Any, cast

import torch

from toolkit.errors import ExportError
from toolkit.export.formats import Source
from toolkit.export.noise import known_noise


def exported(source: Source, decompositions: Any) -> torch.export.ExportedProgram:
    """For one image (1, C, H, W) float32 0..255. Raises ExportError with PyTorch's reason."""
    example = torch.zeros(1, *source.checkpoint.card.input_shape)
    try:
        with known_noise():
            program = torch.export.export(source.model, (example,)).run_decompositions(decompositions)
            return cast(torch.export.ExportedProgram, program)
    except Exception as error:  # torch.export raises a different type for every way in which a graph can break
        raise ExportError(f"PyTorch cannot export {source.checkpoint.recipe.network.builder} as a graph: {error}") from error


def description(source: Source) -> dict[str, str]:
    """The sentences that every format's metadata carries."""
    recipe, card = source.checkpoint.recipe, source.checkpoint.card
    accuracy = card.metrics.get("test_accuracy")
    measured = "not measured" if accuracy is None else f"{100 * accuracy:.2f} % of {int(card.metrics['test_images'])} test images"
    return {
        "author": recipe.publish.author, "license": recipe.publish.license, "version": recipe.publish.version,
        "description": recipe.description, "test_accuracy": measured, "recipe": recipe.name,
        "recipe_hash": card.recipe_hash, "checkpoint_sha256": card.weights_sha256, "precision": source.precision,
    }  # fmt: skip


DESCRIPTIONS = {
    "image": "The raw gray picture, light strokes on black, 0..255; resize and normalisation happen inside",
    "logits": "One score a class, before softmax",
    "probabilities": "One probability a class; they add up to 1",
    "classLabel": "The class with the largest probability",
}
