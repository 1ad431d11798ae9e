"""Which images train, and which judge on the way."""

from dataclasses import dataclass

from torch import Tensor

from toolkit.data import Dataset, held_out
from toolkit.errors import RecipeError
from toolkit.recipe import Train


@dataclass(frozen=True)
class Split:
    """What is trained on, and what the model is judged by on the way: held-out images, or the test set where none were asked for."""

    images: Tensor
    labels: Tensor
    judged: Tensor
    judged_labels: Tensor
    judge: str

    @classmethod
    def of(cls, data: Dataset, plan: Train) -> "Split":
        """Raises RecipeError where more than half would be held out."""
        images, labels = data.train_images[: plan.subset], data.train_labels[: plan.subset]
        count = plan.holdout or (len(images) // 12 if plan.until_accuracy else 0)
        if not count:
            return cls(images, labels, data.test_images, data.test_labels, "test")
        if count > len(images) // 2:
            raise RecipeError(f"train.holdout={count} is more than half of the {len(images):,} training images. Hold out fewer")
        rest, kept_out = held_out(labels, count)
        return cls(images[rest], labels[rest], images[kept_out], labels[kept_out], "held-out")
