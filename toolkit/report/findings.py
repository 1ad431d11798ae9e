"""What the figures show: intervals, the confusion matrix, wrong and changed predictions with their pictures, curves."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, ToolkitError
from toolkit.report.sources import JUDGED
from toolkit.report.tables import NONE, Table, plural, table

if TYPE_CHECKING:
    from toolkit.validation.result import ValidationResult

MOST_PICTURES = 48


@dataclass(frozen=True)
class Digit:
    """One test image. `picture` is a data: URI, None where the data set could not be read."""

    index: int
    true: str
    predicted: str
    picture: str | None


@dataclass(frozen=True)
class Gallery:
    caption: str
    arrow: str  # what the two labels are, in words
    digits: list[Digit]
    total: int

    @property
    def rest(self) -> int:
        return self.total - len(self.digits)


@dataclass(frozen=True)
class Curves:
    """Loss and accuracy (a share of 1) over steps since the start; and, at the end of epochs counted from 1, the accuracy on the
    images that the run is judged by: `judge` says which, held-out or test.
    """

    steps: list[float]
    loss: list[float]
    accuracy: list[float]
    judge: str
    judged_steps: list[float]
    judged_epochs: list[float]
    judged_accuracy: list[float]


def check(result: "ValidationResult") -> None:
    """A file that was edited by hand must not end in a traceback, nor in a wrong matrix. Raises ToolkitError."""
    images, classes = len(result.test_labels), len(result.class_labels)
    lengths = {len(result.test_indices), len(result.reference_predictions), images}
    labels = [*result.test_labels, *result.reference_predictions, *(label for row in result.rows for label in row.changed.values())]
    changed = {index for row in result.rows for index in row.changed}
    sound = all(0 <= label < classes for label in labels) and all(0 <= index < result.test_images for index in result.test_indices)
    if len(lengths) > 1 or not sound or not changed <= set(result.test_indices):
        raise ToolkitError(
            f"validation.json does not fit itself: {images} labels of {classes} classes, {len(result.test_indices)} indices, "
            f"{len(result.reference_predictions)} predictions of PyTorch. Make it again: toolkit validate"
        )


def confusion(result: "ValidationResult") -> Table:
    """Counts, one row for each true class; `heat` is the share of the row, without the diagonal, which would outshine it."""
    classes = range(len(result.class_labels))
    counts = [[0 for _ in classes] for _ in classes]
    for true, predicted in zip(result.test_labels, result.reference_predictions, strict=True):
        counts[true][predicted] += 1
    errors = [[0 if i == j else counts[i][j] for j in classes] for i in classes]
    most = max((max(row) for row in errors), default=0) or 1
    rows = [(name, *map(str, counts[i]), str(sum(counts[i]))) for i, name in enumerate(result.class_labels)]
    columns = ("true ↓ predicted →", *(f"{name}*" for name in result.class_labels), "images*")
    plain = table(f"Predictions of PyTorch fp32 on the CPU (torch-cpu), {plural(len(result.test_labels), 'test image')}", columns, rows)
    heat = tuple((0.0, *(count / most for count in row), 0.0) for row in errors)
    return Table(plain.caption, plain.columns, plain.rows, plain.numeric, heat)


def galleries(result: "ValidationResult", data_dir: Path | None) -> tuple[Gallery, list[Gallery], str | None]:
    """(PyTorch's mistakes, one gallery for each row that changed predictions, why there are no pictures)."""
    true = dict(zip(result.test_indices, result.test_labels, strict=True))
    reference = dict(zip(result.test_indices, result.reference_predictions, strict=True))
    wrong = [index for index in sorted(true) if true[index] != reference[index]]
    changing = [row for row in result.rows if row.changed]
    images, problem = _images(result, data_dir) if wrong or changing else (None, None)
    names = result.class_labels

    def digits(indices: Sequence[int], before: dict[int, int], after: dict[int, int] | None) -> list[Digit]:
        return [
            Digit(index, names[before[index]], names[after[index]] if after else NONE, None if images is None else _png(images[index]))
            for index in sorted(indices)[:MOST_PICTURES]
        ]

    mistakes = Gallery("Misclassified by PyTorch fp32 on the CPU", "true → predicted", digits(wrong, true, reference), len(wrong))
    changes = [
        Gallery(
            f"{row.artifact} on {row.runtime}",
            "PyTorch → this runtime",
            digits(list(row.changed), reference, row.changed),
            len(row.changed),
        )
        for row in changing
    ]
    return mistakes, changes, problem


def _images(result: "ValidationResult", data_dir: Path | None) -> tuple[Any, str | None]:
    """(test images (N, 1, H, W) uint8, None), or (None, the reason). Nothing is downloaded to decorate a report."""
    from toolkit.data import load

    try:
        images = load(result.dataset, data_dir, download=False).test_images.numpy()
    except DataError as error:
        return None, f"The pictures are missing: {error}"
    if len(images) != result.test_images:
        return None, f"The pictures are missing: {result.dataset} has {len(images)} test images here, validation saw {result.test_images}"
    return images, None


def _png(image: Any) -> str:
    """(1, H, W) or (3, H, W) uint8 → data: URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def curves(records: Sequence[dict[str, Any]], final: Mapping[str, float], epochs: float) -> Curves:
    """`final`: the figures of the finished checkpoint, after so many `epochs`: the last look. Empty while there is none."""
    steps = [record for record in records if "loss" in record]
    key = next((key for key in JUDGED if key in final or any(key in record for record in records)), JUDGED[-1])
    of_epoch = max((record["step"] for record in steps), default=1.0)  # `step` counts within the epoch
    at = [record["epoch"] * of_epoch + record["step"] for record in steps]
    ends = [((record["epoch"] + 1) * of_epoch, record["epoch"] + 1, record[key]) for record in records if key in record]
    if key in final and at:
        ends.append((at[-1], epochs, final[key]))
    return Curves(
        steps=at,
        loss=[record["loss"] for record in steps],
        accuracy=[record["accuracy"] for record in steps],
        judge=key.removesuffix("_accuracy").replace("_", "-"),
        judged_steps=[step for step, _, _ in ends],
        judged_epochs=[epoch for _, epoch, _ in ends],
        judged_accuracy=[accuracy for _, _, accuracy in ends],
    )
