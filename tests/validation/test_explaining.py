"""What explaining costs, and that what is said is borne out by every image."""

import copy

import numpy as np
import pytest
import torch

from tests.validation.conftest import cli, failed, path_of, spoil_onnx
from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.golden import golden
from toolkit.networks import from_checkpoint
from toolkit.validation import hypotheses

GATE = 1e-3


@pytest.fixture(scope="module")
def classifier(trained):
    return from_checkpoint(Checkpoint.open(trained.checkpoint))


@pytest.fixture(scope="module")
def known(classifier):
    return golden(classifier, load("digits"))


def few(images):
    """Those that a mistake is tried on first."""
    return np.linspace(0, len(images) - 1, hypotheses.FEW).astype(int)


def with_mean(classifier, images, mean):
    """Logits of the same network with another mean."""
    other = copy.deepcopy(classifier)
    other.mean = torch.tensor(255 * mean)
    with torch.inference_mode():
        return other(torch.from_numpy(images)).numpy()


def test_one_answer_is_explained_once_for_all_checks_and_runtimes(quick, exported_copy, monkeypatch):
    calls, real = [], hypotheses.name
    monkeypatch.setattr(hypotheses, "name", lambda *given: calls.append(given) or real(*given))
    spoil_onnx(exported_copy, lambda kernels: kernels[::-1].copy())
    found = quick(exported_copy, runtimes=["onnxruntime-cpu", "onnx-reference"], limit=20)
    assert {"golden logits", "golden logits, as a whole"} <= set(failed(found))
    assert len(calls) == 1


def test_what_does_not_fit_a_few_images_is_not_made_of_all(classifier, known, monkeypatch):
    images, truth = known
    seen, real = [], type(classifier).forward
    monkeypatch.setattr(type(classifier), "forward", lambda self, x: seen.append(len(x)) or real(self, x))
    noise = np.random.default_rng(0).normal(size=truth.shape)
    assert hypotheses.name(classifier, images, truth + noise, truth, GATE, False) == ""
    assert 0 < sum(seen) <= len(images) * 2


def test_where_the_few_are_right_no_constants_are_called_wrong(classifier, known):
    """The few are right with PyTorch's own constants, and others are wrong: no constants explain that."""
    images, truth = known
    found = truth.copy()
    found[10:13] += 1.0
    assert not set(range(10, 13)) & set(few(images))
    assert "(PyTorch:" not in hypotheses.name(classifier, images, found, truth, GATE)


def test_a_fit_is_believed_where_all_images_bear_it_out(classifier, known):
    """The few are those of other constants, and the rest is not: what fits the few is said of all where all agree, and only there."""
    images, truth = known
    found = with_mean(classifier, images, 0.25)
    assert "mean 0.2500" in hypotheses.name(classifier, images, found, truth, GATE)
    rest = np.setdiff1d(np.arange(len(images)), few(images))
    found[rest[::4]] += 1.0
    assert "(PyTorch:" not in hypotheses.name(classifier, images, found, truth, GATE)


def test_constants_that_are_right_are_not_called_wrong(classifier, known):
    images, truth = known
    found = truth + 1.5 * GATE * np.sign(np.random.default_rng(1).normal(size=truth.shape))
    assert "(PyTorch:" not in hypotheses.name(classifier, images, found, truth, GATE)


def test_other_constants_are_still_found(classifier, known):
    images, truth = known
    found = with_mean(classifier, images, 0.25)
    assert "mean 0.2500" in hypotheses.name(classifier, images, found, truth, GATE)
    assert hypotheses.name(classifier, images, found, truth, GATE, False) == ""


def test_single_faults_can_be_asked_for(exported, capsys):
    words = ("validate", path_of(exported), "--self-test", "--artifact", "onnx-fp32", "--limit", "10", "--fault", "golden-rolled")
    assert cli(*words) == 0
    assert "1 of 1 faults caught" in capsys.readouterr().out
    assert cli("validate", path_of(exported), "--fault", "golden-rolled") == 2
