"""Non-maximum suppression of detection boxes."""

import math

import torch

from toolkit.errors import ArtifactError
from toolkit.mil.limits import PER_ELEMENT, PER_KERNEL, current
from toolkit.mil.ops.types import Tensor


def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_boxes: int,
    ios: int,
    score_threshold: float = -math.inf,
    per_class_suppression: bool = False,
) -> tuple[Tensor, ...]:
    """The best boxes that do not overlap a better one by IoU > iou_threshold, best first. iOS15|17/tensor_operation.py

    boxes [n, B, 4] as (x, y, width, height) around the centre, scores [n, B, K]; from iOS17 [n, 4, B] and [n, K, B]. A box
    counts with its largest score, and only if that exceeds score_threshold; per_class_suppression: only boxes of its own
    class suppress it. If none is left, the best box alone (Apple's test). Returns boxes, scores, indices and, up to iOS16,
    how many; max_boxes of each, filled up with zeros, indices with -1.
    """
    if not 1 <= max_boxes <= 1 << 20:
        raise ArtifactError(f"max_boxes {max_boxes} is not 1..{1 << 20}")
    if ios >= 17:
        boxes, scores = boxes.mT, scores.mT
    batch, _, classes = scores.shape
    if batch * max_boxes * (4 + classes) > (most := current().budget.elements):
        raise ArtifactError(f"{max_boxes} boxes with {classes} scores for each of {batch} images: more than {most} numbers")
    kept_boxes, kept_scores = boxes.new_zeros(batch, max_boxes, 4), scores.new_zeros(batch, max_boxes, classes)
    indices, counts = torch.full((batch, max_boxes), -1), torch.zeros(batch, dtype=torch.int64)
    for image in range(batch):
        best, label = scores[image].max(dim=1)
        kept = _kept(boxes[image], best, label if per_class_suppression else None, iou_threshold, score_threshold, max_boxes)
        count = counts[image] = len(kept)
        kept_boxes[image, :count], kept_scores[image, :count] = boxes[image, kept], scores[image, kept]
        indices[image, :count] = kept
    if ios >= 17:
        return kept_boxes.mT, kept_scores.mT, indices
    return kept_boxes, kept_scores, indices, counts


def _kept(boxes: Tensor, best: Tensor, label: Tensor | None, iou_threshold: float, score_threshold: float, most: int) -> Tensor:
    """Indices of the boxes of one image that stay, in order of their score."""
    order = torch.argsort(best, descending=True, stable=True)
    half = boxes[:, 2:] / 2
    low, high, area = boxes[:, :2] - half, boxes[:, :2] + half, boxes[:, 2] * boxes[:, 3]
    kept: list[int] = []
    work = current()
    for index in order.tolist():
        if best[index] <= score_threshold or len(kept) == most:
            break
        work.spend(PER_KERNEL + PER_ELEMENT * len(kept))
        others = torch.tensor(kept, dtype=torch.int64)
        if label is not None:
            others = others[label[others] == label[index]]
        sides = (torch.minimum(high[index], high[others]) - torch.maximum(low[index], low[others])).clamp(min=0)
        shared = sides.prod(dim=1)
        union = area[index] + area[others] - shared
        if not bool((shared > iou_threshold * union).any()):
            kept.append(index)
    return torch.tensor(kept or order[:1].tolist(), dtype=torch.int64)
