"""The networks are those of the experiment, and the classifier computes what is written on paper."""

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.errors import RecipeError
from toolkit.networks import NETWORKS, Classifier, WithProbabilities, build, parameter_counts
from toolkit.recipe import Recipe
from toolkit.workspace import shipped_folder


def recipe(builder: str) -> Recipe:
    return Recipe.from_values({"name": "a", "description": "b", "data": {"set": "digits"}, "network": {"builder": builder}}, "here")


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    torch.manual_seed(0)
    return build(Recipe.read(shipped_folder() / "resnet18-mnist-paper" / "recipe.toml"), 10).eval()


def test_resnet18_has_the_reported_number_of_parameters_all_trainable(resnet: Classifier):
    assert parameter_counts(resnet) == {"total": 11_172_810, "trainable": 11_172_810, "non-trainable": 0}


def test_the_number_of_parameters_follows_from_the_paper():
    """Stem; four stages of two blocks of two 3×3 convolutions, the first block of 2–4 with a 1×1 shortcut; linear."""
    stem, total, before = 9 * 64 + 2 * 64, 0, 64
    for width in (64, 128, 256, 512):
        total += 9 * before * width + 3 * 9 * width * width + 4 * 2 * width
        total += 0 if before == width else before * width + 2 * width
        before = width
    assert stem + total + 512 * 10 + 10 == 11_172_810


def test_the_small_network_has_the_number_of_parameters_that_is_documented():
    assert parameter_counts(build(recipe("small-cnn"), 10))["total"] == 6186
    assert "6,186 parameters" in NETWORKS["small-cnn"].__doc__


def test_frozen_parameters_are_counted_apart():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    assert parameter_counts(module) == {"total": 13, "trainable": 4, "non-trainable": 9}


def test_the_stem_keeps_the_size_and_nothing_pools_before_the_first_stage(resnet: Classifier):
    seen = {}
    hooks = [
        getattr(resnet.network, name).register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: tuple(inputs[0].shape)}))
        for name in ("conv1", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
    ]
    with torch.inference_mode():
        resnet(torch.zeros(2, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    assert seen == {
        "conv1": (2, 1, 32, 32), "layer1": (2, 64, 32, 32), "layer2": (2, 64, 32, 32), "layer3": (2, 128, 16, 16),
        "layer4": (2, 256, 8, 8), "avgpool": (2, 512, 4, 4), "fc": (2, 512),
    }  # fmt: skip
    stem = resnet.network.conv1
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (1, 1), (1, 1), None)
    assert not [module for module in resnet.modules() if isinstance(module, nn.MaxPool2d)]


@pytest.mark.parametrize("builder", NETWORKS)
@pytest.mark.parametrize(("classes", "channels"), [(10, 1), (7, 3)])
def test_every_network_takes_raw_images_and_gives_logits(builder: str, classes: int, channels: int):
    classifier = build(recipe(builder), classes, channels).eval()
    with torch.inference_mode():
        for size in (28, 32, 8):
            assert classifier(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_an_unknown_network_lists_those_there_are():
    with pytest.raises(RecipeError, match=r"network\.builder 'vgg' is not known; there are resnet18, small-cnn"):
        build(recipe("vgg"), 10)


def half_pixel(size: int, target: int) -> np.ndarray:
    """(target, size): bilinear weights for half-pixel centres, edges repeated. source = (i + ½)·size/target − ½."""
    matrix = np.zeros((target, size))
    for i in range(target):
        source = min(max((i + 0.5) * size / target - 0.5, 0.0), size - 1.0)
        low = int(np.floor(source))
        high = min(low + 1, size - 1)
        matrix[i, low] += 1 - (source - low)
        matrix[i, high] += source - low
    return matrix


@pytest.mark.parametrize(("size", "target"), [(2, 3), (3, 2), (4, 4), (28, 32), (28, 17)])
def test_the_classifier_resizes_and_normalises_as_written_on_paper(size: int, target: int):
    image = np.random.default_rng(0).integers(0, 256, (3, 1, size, size)).astype(np.float64)
    weights = half_pixel(size, target)
    expected = ((weights @ image @ weights.T) / 255 - 0.25) / 0.5
    found = Classifier(nn.Identity(), target, mean=0.25, std=0.5).double()(torch.from_numpy(image))
    assert found.shape == (3, 1, target, target)
    assert np.abs(found.numpy() - expected).max() < 1e-6  # the buffers were made in fp32


def test_a_case_small_enough_to_do_by_hand():
    """2 → 3: the middle of three new pixels lies between the two old ones, the outer ones on or beyond them."""
    found = Classifier(nn.Identity(), 3, mean=0.0, std=1.0)(torch.tensor([[[[0.0, 255.0], [0.0, 255.0]]]]))
    assert torch.allclose(found[0, 0, 1], torch.tensor([0.0, 0.5, 1.0]))


def test_black_and_white_are_normalised_as_torchvision_does_it():
    black_and_white = Classifier(nn.Identity(), 8, mean=0.1307, std=0.3081)(
        torch.tensor([0.0, 255.0]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
    )
    assert black_and_white[:, 0, 0, 0].tolist() == pytest.approx([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081], rel=1e-6)


def test_the_whole_classifier_is_the_network_after_the_preprocessing(resnet: Classifier):
    image = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28)).astype(np.float64)
    weights = half_pixel(28, 32)
    prepared = torch.from_numpy(((weights @ image @ weights.T) / 255 - 0.1307) / 0.3081).float()
    with torch.inference_mode():
        expected, found = resnet.network(prepared), resnet(torch.from_numpy(image).float())
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_preprocessing_is_not_in_the_weights_file_but_moves_with_the_module(resnet: Classifier):
    assert not {"mean", "scale"} & set(resnet.state_dict())
    assert {name for name, _ in resnet.named_buffers()} >= {"mean", "scale"}


def test_the_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    classifier = build(recipe("small-cnn"), 10)
    classifier(torch.rand(8, 1, 28, 28) * 255).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in classifier.parameters())


def test_probabilities_are_the_softmax_of_the_logits(resnet: Classifier):
    with torch.inference_mode():
        logits, probabilities = WithProbabilities(resnet)(torch.rand(3, 1, 28, 28) * 255)
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    assert np.abs(probabilities.numpy() - powers / powers.sum(axis=1, keepdims=True)).max() < 1e-6


def test_the_shortcuts_and_batch_norms_are_torchvisions(resnet: Classifier):
    from torchvision.models import resnet18

    theirs = {name: tuple(tensor.shape) for name, tensor in resnet18(num_classes=10).state_dict().items() if name != "conv1.weight"}
    ours = {name: tuple(tensor.shape) for name, tensor in resnet.network.state_dict().items() if name != "conv1.weight"}
    assert ours == theirs


def test_the_stem_is_initialised_as_torchvision_initialises_its_own():
    """Kaiming normal, fan out: standard deviation √(2 / (64·9))."""
    torch.manual_seed(0)
    weights = torch.cat([NETWORKS["resnet18"](10, 1).conv1.weight.detach().flatten() for _ in range(4)])
    assert float(weights.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.06)  # four standard errors of 2,304 draws
