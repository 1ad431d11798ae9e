"""Non-maximum suppression against Apple's example and a plain greedy search in exact fractions."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ArtifactError
from toolkit.mil.ops.suppression import non_maximum_suppression

Box = tuple[int, int, int, int]
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)


def overlap(one: Box, other: Box) -> Fraction:
    """Intersection over union of boxes around a centre; 0 for two without area."""
    sides = [
        max(Fraction(0), min(a + Fraction(m, 2), b + Fraction(n, 2)) - max(a - Fraction(m, 2), b - Fraction(n, 2)))
        for a, b, m, n in zip(one[:2], other[:2], one[2:], other[2:], strict=True)
    ]
    shared = sides[0] * sides[1]
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union else Fraction(0)


def chosen(boxes: list[Box], scores: list[list[int]], most: int, iou: float, least: float, per_class: bool) -> list[int]:
    best = [max(row) for row in scores]
    left = sorted((number for number, score in enumerate(best) if score > least), key=lambda number: (-best[number], number))
    kept: list[int] = []
    while left:
        kept.append(left.pop(0))
        rivals = {n for n in left if not per_class or scores[n].index(best[n]) == scores[kept[-1]].index(best[kept[-1]])}
        left = [n for n in left if n not in rivals or overlap(boxes[n], boxes[kept[-1]]) <= Fraction(iou)]
    return kept[:most] or [best.index(max(best))]


@st.composite
def images(draw: st.DrawFn) -> tuple[list[Box], list[list[int]]]:
    """Boxes that often overlap, some without area, and scores of which some are equal."""
    rng, count, classes = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    boxes = np.concatenate([rng.integers(0, 5, (count, 2)), rng.integers(0, 7, (count, 2))], axis=1)
    return [tuple(box) for box in boxes.tolist()], rng.integers(-9, 10, (count, classes)).tolist()


@pytest.mark.parametrize("ios", [16, 17])
@PROPERTY
@given(
    image=images(),
    most=st.integers(1, 6),
    iou=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]),
    least=st.sampled_from([-10.0, -1.0, 0.0, 3.0, 9.0]),
    per_class=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_each_box_kept_is_the_best_that_overlaps_none_kept(
    ios: int, image: Any, most: int, iou: float, least: float, per_class: bool, dtype: torch.dtype
) -> None:
    # a second image, its boxes the other way round, shows that images do not mix
    both = [image, (image[0][::-1], image[1][::-1])]
    boxes, scores = (torch.tensor([each[part] for each in both], dtype=dtype) for part in (0, 1))
    threshold = {"score_threshold": least} if ios < 17 else {}
    given_boxes, given_scores = (boxes, scores) if ios < 17 else (boxes.mT, scores.mT)
    results = non_maximum_suppression(given_boxes, given_scores, iou, most, ios, **threshold, per_class_suppression=per_class)
    assert len(results) == (4 if ios < 17 else 3)
    kept_boxes, kept_scores = (each if ios < 17 else each.mT for each in results[:2])
    assert kept_boxes.dtype == kept_scores.dtype == dtype
    assert kept_boxes.shape == (2, most, 4)
    assert kept_scores.shape == (2, most, scores.shape[2])
    for number, (all_boxes, all_scores) in enumerate(both):
        kept = chosen(all_boxes, all_scores, most, iou, least if ios < 17 else float("-inf"), per_class)
        assert results[2][number].tolist() == kept + [-1] * (most - len(kept))
        assert kept_boxes[number].tolist() == [list(all_boxes[n]) for n in kept] + [[0] * 4] * (most - len(kept))
        assert kept_scores[number].tolist() == [all_scores[n] for n in kept] + [[0] * scores.shape[2]] * (most - len(kept))
        assert ios >= 17 or results[3][number] == len(kept)


def test_apples_example() -> None:
    boxes = torch.arange(4.0)[None, :, None].expand(1, 4, 4)
    scores = torch.tensor([[[-3.5], [9.4], [2.3], [0.7]]])
    results = non_maximum_suppression(boxes, scores, 0.2, 2, 15, 0.4, True)
    expected = [[[[1] * 4, [2] * 4]], [[[9.4], [2.3]]], [[1, 2]], [2]]
    for result, values in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), np.array(values), rtol=1e-6)


def test_a_score_equal_to_the_threshold_is_not_enough_but_the_best_box_always_stays() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [9.0, 9.0, 1.0, 1.0]]])
    scores = torch.tensor([[[1.0], [2.0]]])
    assert [non_maximum_suppression(boxes, scores, 0.5, 2, 15, least)[2].tolist() for least in (0.5, 1.0, 2.0)] == [
        [[1, 0]],
        [[1, -1]],
        [[1, -1]],
    ]


@pytest.mark.parametrize("most", [0, -1, 2**31])
def test_an_absurd_number_of_boxes_is_refused(most: int) -> None:
    with pytest.raises(ArtifactError, match=f"max_boxes {most}"):
        non_maximum_suppression(torch.zeros(1, 2, 4), torch.zeros(1, 2, 1), 0.5, most, 15)
