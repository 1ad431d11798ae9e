"""Faults of what is promised about a file: manifest, labels, names, shapes, types, metadata."""

from collections.abc import Callable
from typing import Any

from toolkit.checkpoint import Checkpoint
from toolkit.faults.fault import Plant, Planted, in_file, in_manifest
from toolkit.faults.surgery import NotApplicable, Surgery
from toolkit.tensors import LOGITS

Values = dict[str, Any]
ANOTHER = "5eed" * 16  # a sha256 of nothing that there is
STATISTICS = {"mnist": (0.1307, 0.3081), "digits": (0.1558, 0.2774), "other": (0.4734, 0.2516)}  # mean and std; the last: CIFAR10, gray


def another_data_set(checkpoint: Checkpoint) -> tuple[str, float, float]:
    """(name, mean, std) of a data set that the model was not trained on."""
    part = checkpoint.recipe.preprocess
    name = next(name for name, found in STATISTICS.items() if abs(found[0] - part.mean) > 0.01 and name != checkpoint.recipe.data.set)
    return (name, *STATISTICS[name])


def swap_two(labels: list[str]) -> list[str]:
    """The second and the last but one."""
    if len(labels) < 4:
        raise NotApplicable("too few labels")
    swapped = list(labels)
    swapped[1], swapped[-2] = swapped[-2], swapped[1]
    return swapped


def roll_by_one(labels: list[str]) -> list[str]:
    return [*labels[1:], labels[0]]


def one_more(labels: list[str]) -> list[str]:
    """As for a data set with a background class."""
    return [*labels, "background"]


def manifest_labels(change: Callable[[list[str]], list[str]]) -> Plant:
    @in_manifest
    def plant(values: Values, checkpoint: Checkpoint) -> Planted:
        values["class_labels"] = change(values["class_labels"])
        return Planted.at("labels", "labels", "class_labels", "label")

    return plant


def file_labels(change: Callable[[list[str]], list[str]]) -> Plant:
    @in_file
    def plant(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
        surgery.set_labels(change(surgery.labels()))
        return Planted.at("labels", "labels", "class_labels", "label")

    return plant


def manifest_field(name: str, value: Any, *words: str) -> Plant:
    @in_manifest
    def plant(values: Values, checkpoint: Checkpoint) -> Planted:
        if values[name] == value:
            raise NotApplicable(f"the manifest's {name} is {value!r} already")
        values[name] = value
        return Planted.at(name, *words)

    return plant


def manifest_tensor(table: str, field: str, value: Any, *words: str) -> Plant:
    """A field of the first of the manifest's `inputs` or `outputs`."""

    @in_manifest
    def plant(values: Values, checkpoint: Checkpoint) -> Planted:
        values[table][0][field] = value
        return Planted.at(values[table][0]["name"], *words)

    return plant


@in_manifest
def claim_fp16(values: Values, checkpoint: Checkpoint) -> Planted:
    if values["precision"] != "fp32":
        raise NotApplicable(f"the artifact is {values['precision']}")
    values["precision"] = "fp16"
    return Planted.at("precision", "precision", "number format", "fp16")


@in_manifest
def claim_accuracy(values: Values, checkpoint: Checkpoint) -> Planted:
    values["test_accuracy"] = 0.9999
    return Planted.at("test_accuracy", "accuracy")


@in_manifest
def describe_another_preprocessing(values: Values, checkpoint: Checkpoint) -> Planted:
    _, mean, std = another_data_set(checkpoint)
    part = checkpoint.recipe.preprocess
    text = values["preprocessing"]
    values["preprocessing"] = text.replace(str(part.mean), str(mean)).replace(str(part.std), str(std))
    if values["preprocessing"] == text:
        raise NotApplicable("the manifest's sentence on preprocessing has no figures")
    return Planted.at("preprocessing", "preprocessing")


@in_file
def metadata_of_another_model(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.set_metadata("description", "Flowers in 102 kinds: MobileNetV3, trained on Oxford Flowers")
    surgery.set_metadata("recipe", "mobilenet-flowers")
    surgery.set_metadata("recipe_hash", ANOTHER)
    return Planted.at("metadata", "recipe", "recipe_hash", "mobilenet-flowers")


@in_file
def metadata_of_another_checkpoint(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.set_metadata("checkpoint_sha256", ANOTHER)
    return Planted.at("metadata", "checkpoint_sha256")


@in_file
def rename_logits(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.rename_output(LOGITS, "scores")
    return Planted.at(LOGITS, "scores")


@in_file
def freeze_batch(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.set_input_shape((1, *checkpoint.card.input_shape))
    return Planted.at("batch", "batch", "shape (1", "baked")


@in_file
def shrink_input(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    """One pixel less a side, in the file and not in the manifest."""
    channels, height, width = checkpoint.card.input_shape
    batch = surgery.shape("image")[0]
    surgery.set_input_shape((batch, channels, height - 1, width - 1))
    return Planted.at("image", f"{height - 1}, {width - 1}", f"{height - 1}×{width - 1}", f"{height - 1}x{width - 1}")


@in_file
def half_output(surgery: Surgery, checkpoint: Checkpoint) -> Planted:
    surgery.insert("half", LOGITS)
    return Planted.at(LOGITS, "float16", "dtype", "fp16")
