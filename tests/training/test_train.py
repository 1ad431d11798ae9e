"""Training: that it learns, that the seed decides everything, that the figures are true, that faults are said."""

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.signal import correlate2d

from toolkit.checkpoint import Checkpoint
from toolkit.data import load
from toolkit.devices import BACKENDS
from toolkit.errors import DeviceError, ToolkitError
from toolkit.networks import build
from toolkit.recipe import Recipe, Train
from toolkit.training.evaluate import count_correct
from toolkit.training.loop import Run, steps_per_epoch
from toolkit.training.schedule import make_optimizer
from toolkit.workspace import Workspace


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def records(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in workspace.metrics.read_text(encoding="utf-8").splitlines()]


def test_64_images_are_learnt_by_heart(fresh, short):
    short(fresh, "train.epochs=30", "train.shift=0", "train.lr=0.1")
    data = load("digits")
    model = build(Recipe.read(fresh.recipe), 10)
    model.load_state_dict(Checkpoint.open(fresh.checkpoint).weights())
    assert count_correct(model, data.train_images[:64], data.train_labels[:64], BACKENDS["cpu"], "test") == 64


def test_the_seed_decides_the_weights(fresh, short, weights_of):
    short(fresh)
    first = weights_of(fresh)
    short(fresh)
    assert same(first, weights_of(fresh))
    short(fresh, "train.seed=1")
    assert not same(first, weights_of(fresh))


def test_random_state_of_the_process_decides_nothing(fresh, short, weights_of):
    torch.manual_seed(1)
    short(fresh)
    first = weights_of(fresh)
    torch.manual_seed(2)
    torch.rand(5)
    short(fresh)
    assert same(first, weights_of(fresh))


@pytest.mark.parametrize(("warmup", "steps"), [(0.3, 101), (0.5, 41)])
def test_one_cycle_is_its_closed_form(warmup, steps):
    """Cosine from lr/25 to lr over `warmup` of the steps, then to lr/25/10,000 (arXiv 1708.07120, torch's defaults)."""
    plan = Train(schedule="one-cycle", lr=0.4, warmup=warmup)
    optimizer, schedule = make_optimizer(torch.nn.Linear(1, 1), plan, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(seen) < steps else None
    peak = warmup * steps - 1

    def closed(step: int) -> float:
        low, high, at = (0.4 / 25, 0.4, step / peak) if step <= peak else (0.4, 0.4 / 25e4, (step - peak) / (steps - 1 - peak))
        return high + (low - high) / 2 * (1 + math.cos(math.pi * at))

    assert seen == pytest.approx([closed(step) for step in range(steps)], rel=1e-9)
    assert (seen[0], seen[-1]) == pytest.approx((0.016, 0.4 / 25e4))
    assert max(seen) <= 0.4
    assert optimizer.param_groups[0]["momentum"] == 0.9  # the schedule leaves it alone


def test_a_one_cycle_run_uses_the_whole_schedule(fresh, short):
    short(fresh, 'train.schedule="one-cycle"', "train.lr=0.1")
    steps = [record for record in records(fresh) if "lr" in record]
    assert steps[-1]["lr"] == pytest.approx(0.1 / 25e4)


def test_a_constant_schedule_stays(fresh, short):
    short(fresh, 'train.schedule="constant"', "train.lr=0.05")
    assert {record["lr"] for record in records(fresh) if "lr" in record} == {0.05}


def test_figures_are_the_means_over_the_epoch():
    """At learning rate (almost) 0 and without augmentation the epoch's figures are those of the untrained network."""
    data = load("digits")
    images, labels = data.train_images[:50], data.train_labels[:50]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with torch.no_grad():
        logits = model(images.float()).double().numpy()
    plan = Train(epochs=1, batch_size=16, lr=1e-30, label_smoothing=0.1, momentum=0.0, weight_decay=0.0)
    first, figures = Run(model, images, labels, plan, BACKENDS["cpu"]).figures()
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = 0.9 * np.eye(10)[labels.numpy()] + 0.01
    assert (first.step, first.images, first.epoch_ended) == (1, 16, False)
    assert figures.epoch_ended
    assert figures.images == 50
    assert figures.loss == pytest.approx(float(-(target * log_p).sum(1).mean()), rel=1e-5)
    assert figures.accuracy == pytest.approx(float((logits.argmax(1) == labels.numpy()).mean()), abs=1e-7)


def test_every_image_once_an_epoch_in_another_order_each_time():
    seen: list[int] = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(1, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.extend(image[:, 0, 0, 0].int().tolist())
            return self.head(image[:, 0, 0])  # type: ignore[no-any-return]

    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None]
    plan = Train(epochs=2, batch_size=16, lr=1e-9)
    list(Run(Spy(), images, torch.zeros(40, dtype=torch.int64), plan, BACKENDS["cpu"]).figures())
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]
    assert seen[:40] != list(range(40))


@pytest.mark.parametrize(("images", "batch", "steps"), [(64, 16, 4), (65, 16, 4), (66, 16, 5), (17, 64, 1), (2, 2, 1)])
def test_a_last_batch_of_one_image_is_dropped(images, batch, steps):
    assert steps_per_epoch(images, batch) == steps


def test_a_run_that_drops_an_image_still_ends(fresh, short):
    """65 images in batches of 16: batch-norm is never given one image, and the run is finished all the same."""
    assert short(fresh, "train.subset=65", "train.epochs=2").finished
    card = Checkpoint.open(fresh.checkpoint).card
    assert (card.finished, card.epochs_done) == (True, 2.0)
    assert [record["images"] for record in records(fresh) if record.get("epoch_ended")] == [64, 64]


def test_subset_trains_on_the_first_images_only(fresh, short, monkeypatch):
    seen = []
    module = sys.modules["toolkit.training.fit"]
    monkeypatch.setattr(module, "Run", lambda model, images, *rest: seen.append(len(images)) or Run(model, images, *rest))
    short(fresh, "train.subset=48", "train.epochs=1")
    assert seen == [48]
    assert records(fresh)[-1]["images"] == 48


def test_the_card_says_what_was_trained(fresh, short):
    short(fresh, "train.seed=7", "train.epochs=1")
    card = Checkpoint.open(fresh.checkpoint).card
    assert (card.seed, card.device, card.finished, card.epochs_done) == (7, "cpu", True, 1.0)
    assert card.input_shape == (1, 28, 28)
    assert card.class_labels == list("0123456789")
    assert card.recipe["train"]["seed"] == 7
    assert card.versions["torch"] == torch.__version__
    assert card.metrics["test_images"] == 360


def numpy_small_cnn(weights: dict[str, np.ndarray], images: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The tiny model, written a second time in NumPy and SciPy, float64. (N, 28, 28) → (N, 10)."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    size = recipe.preprocess.size
    at = np.clip((np.arange(size) + 0.5) * 28 / size - 0.5, 0, 27)  # half-pixel centres, edges clamped
    low = np.minimum(at.astype(int), 26)
    matrix = np.zeros((size, 28))
    matrix[np.arange(size), low], matrix[np.arange(size), low + 1] = 1 - (at - low), at - low
    logits = []
    for image in images.astype(np.float64):
        x = ((matrix @ image @ matrix.T / 255 - recipe.preprocess.mean) / recipe.preprocess.std)[None]
        for conv, norm in ((0, 1), (3, 4)):
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            kernels, bias = w[f"network.{conv}.weight"], w[f"network.{conv}.bias"]
            x = np.stack([sum(correlate2d(c, k, "valid") for c, k in zip(padded, kernel, strict=True))[::2, ::2] for kernel in kernels])
            mean, var = w[f"network.{norm}.running_mean"], w[f"network.{norm}.running_var"]
            x = (x + (bias - mean)[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
            x = np.maximum(x * w[f"network.{norm}.weight"][:, None, None] + w[f"network.{norm}.bias"][:, None, None], 0)
        pooled = x.reshape(32, 2, x.shape[1] // 2, 2, x.shape[2] // 2).mean((2, 4)).ravel()
        logits.append(w["network.8.weight"] @ pooled + w["network.8.bias"])
    return np.array(logits)


def test_the_accuracy_is_that_of_the_saved_file(trained):
    """Recomputed from model.safetensors by an implementation that shares no code with PyTorch."""
    card = Checkpoint.open(trained.checkpoint).card
    data = load("digits")
    logits = numpy_small_cnn(
        load_file(trained.checkpoint / "model.safetensors"), data.test_images[:, 0].numpy(), Recipe.read(trained.recipe)
    )
    correct = int((logits.argmax(1) == data.test_labels.numpy()).sum())
    assert (card.metrics["test_correct"], card.metrics["test_images"]) == (correct, 360)
    assert card.metrics["test_accuracy"] == correct / 360
    assert correct > 0.9 * 360


def test_counting_leaves_the_mode_and_the_statistics_as_they_were(trained):
    data = load("digits")
    model = build(Recipe.read(trained.recipe), 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    count_correct(model, data.test_images[:20], data.test_labels[:20], BACKENDS["cpu"], "test")
    assert model.training
    assert same(before, model.state_dict())


def test_divergence_is_said_and_the_older_checkpoint_stays(fresh, short, weights_of):
    short(fresh, "train.epochs=1")
    before = weights_of(fresh)
    with pytest.raises(ToolkitError, match=r"training diverged: .*--set train\.lr=1\b"):
        short(fresh, "train.lr=10", "train.weight_decay=1", "train.subset=512", "train.batch_size=2", "train.epochs=1")
    assert same(before, weights_of(fresh))
    assert [path.name for path in fresh.folder.iterdir() if path.name.startswith(".")] == []


def test_weights_that_break_after_a_finite_loss_are_not_saved(fresh, short, weights_of, monkeypatch):
    short(fresh, "train.epochs=1")
    before = weights_of(fresh)
    real = torch.optim.SGD.step

    def break_one(self: torch.optim.SGD, *arguments: Any) -> Any:
        out = real(self, *arguments)
        self.taken = getattr(self, "taken", 0) + 1  # type: ignore[attr-defined]
        if self.taken == 4:  # type: ignore[attr-defined]  # the epoch's last
            self.param_groups[0]["params"][0].data.view(-1)[0] = float("inf")
        return out

    monkeypatch.setattr(torch.optim.SGD, "step", break_one)
    with pytest.raises(ToolkitError, match=r"training diverged: NaN or Inf in network\.0\.weight"):
        short(fresh, "train.epochs=1")
    assert same(before, weights_of(fresh))


def test_a_device_that_is_not_there_is_an_error(fresh, short, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(BACKENDS, "mps", replace(BACKENDS["mps"], why_not=lambda: "there is no Metal here"))
    with pytest.raises(DeviceError, match="--device mps was asked for, but there is no Metal here"):
        short(fresh, device="mps")
    assert not fresh.checkpoint.exists()


def test_bf16_trains(fresh, short, weights_of):
    """Weights stay fp32, and the run is not the fp32 run."""
    short(fresh, "train.epochs=1")
    plain = weights_of(fresh)
    short(fresh, "train.epochs=1", 'train.autocast="bf16"')
    assert {tensor.dtype for name, tensor in weights_of(fresh).items() if "num_batches" not in name} == {torch.float32}
    assert not same(plain, weights_of(fresh))
