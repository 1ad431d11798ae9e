"""How a constant differs, in the words that help: each change made by hand is described as what it is."""

import numpy as np
import pytest

from toolkit.debug.explain import described, differences
from toolkit.debug.program import Op

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3))


def swapped(w):
    w[[1, 2]] = w[[2, 1]]
    return w


def one(w):
    w[2, 0, 0, 0] += 1
    return w


def nan(w):
    w[0, 0, 0, :2] = np.nan
    return w


CHANGES = {
    "is multiplied by 1.01": lambda w: w * 1.01,
    "has the other sign": lambda w: -w,
    "is transposed (last two axes)": lambda w: w.swapaxes(2, 3),
    "is flipped along its last two axes": lambda w: w[..., ::-1, ::-1],
    "is in reverse order": lambda w: w[::-1],
    "is rolled by one along its first axis": lambda w: np.roll(w, 1, 0),
    "is all zeros": lambda w: w * 0,
    "holds 2 NaN or Inf of 108 values": nan,
    "has output channels 1 and 2 swapped": swapped,
    "differs in output channel 2 alone, by up to 1 (1 values)": one,
    "has shape [3, 4, 3, 3], not [4, 3, 3, 3]": lambda w: w.swapaxes(0, 1),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_known_change_is_described_as_what_it_is(words):
    assert described(CHANGES[words](WEIGHT.copy()), WEIGHT, 1e-6) == words


@pytest.mark.parametrize(("noise", "same", "silent"), [(1e-4, 1e-3, True), (1e-4, 1e-6, False), (0.0, 1e-6, True)])
def test_rounding_of_the_format_is_no_difference(noise, same, silent):
    assert (described(WEIGHT + noise * np.sign(WEIGHT), WEIGHT, same) == "") is silent


def test_a_scalar_is_described_as_well():
    assert described(np.array(0.5), np.array(0.25), 1e-6) == "is multiplied by 2"


def test_ops_that_differ_are_told_with_both_values():
    good = [Op(0, "conv", "a", ("x",), {"pad": [1, 1]}, {"weight": WEIGHT}), Op(1, "relu", "b", ("a",))]
    bad = [
        Op(0, "conv", "a", ("y",), {"pad": [0, 2]}, {"weight": WEIGHT}),
        Op(1, "clip", "b", ("a",)),
        Op(2, "mul", "c", ("b",), {"y": 2.0}),
    ]
    found = {(each.op, each.kind): each.text for each in differences(bad, good, "fp32")}
    assert found == {
        ("a", "operation"): "pad is [0, 2], the converter writes [1, 1]", ("a", "wiring"): "it reads y, the converter wires x",
        ("b", "operation"): "it is clip, the converter writes relu", ("c", "operation"): "mul is inserted: y 2",
    }  # fmt: skip
    assert [each.text for each in differences(good[:1], good, "fp32")] == ["relu is missing"]
    assert differences(good, good, "fp32") == []
