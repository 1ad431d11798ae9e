"""What the optimiser is given, and what the average of the weights is: closed forms in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from toolkit.recipe import Train
from toolkit.training.schedule import Average, make_optimizer


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_without_decay_all_only_kernels_and_matrices_are_decayed():
    optimizer, _ = make_optimizer(net(), Train(weight_decay=0.01, decay_all=False), 10)
    decay = {tuple(parameter.shape): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decay == {(2, 1, 3, 3): 0.01, (3, 8): 0.01, (2,): 0.0, (3,): 0.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_by_default_all_is_decayed_in_one_group():
    optimizer, _ = make_optimizer(net(), Train(weight_decay=0.01), 10)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.998])
def test_the_average_is_its_recursion_statistics_of_batch_norm_included(decay: float):
    model = net()
    average = Average(model, decay)
    names = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
    expected: dict[str, np.ndarray] = {}
    for updates in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        model(torch.randn(4, 1, 4, 4))  # moves the running statistics
        average.update(model)
        share = 1 - min(decay, (1 + updates) / (10 + updates))
        for name in names:
            now = model.state_dict()[name].double().numpy()
            expected[name] = now if updates == 0 else expected[name] + share * (now - expected[name])
    for name in names:
        np.testing.assert_allclose(average.module.state_dict()[name].numpy(), expected[name], rtol=2e-5, atol=2e-6)
    assert int(average.module.state_dict()["1.num_batches_tracked"]) == 30


def test_the_average_is_that_of_torch():
    model = net()
    ours, theirs = Average(model, 0.9), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for updates in range(100):  # from here on the decay has grown to its value
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        ours.update(model)
        if updates == 80:
            theirs.module.load_state_dict(ours.module.state_dict())
            theirs.n_averaged.fill_(1)
        elif updates > 80:
            theirs.update_parameters(model)
    for parameter, expected in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.3), (1, 0.5), (2, 0.5), (5, 0.2), (10, 0.1), (3, 0.1)])
def test_however_short_a_run_has_a_schedule(steps: int, warmup: float):
    """Where the warm-up is one step long, torch's own would divide by zero."""
    optimizer, schedule = make_optimizer(net(), Train(schedule="one-cycle", warmup=warmup), steps)
    for _ in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= Train().lr * (1 + 1e-6)
        optimizer.step()
        schedule.step()
