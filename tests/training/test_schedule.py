"""What the optimiser is given, and what the average of the weights is: closed forms in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.recipe import Train
from toolkit.training.schedule import averaged, make_optimizer


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
    average = averaged(model, decay)
    assert average is not None
    names = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
    expected: dict[str, np.ndarray] = {}
    for updates in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        model(torch.randn(4, 1, 4, 4))  # moves the running statistics
        average.update_parameters(model)
        share = 1 - min(decay, (1 + updates) / (10 + updates))
        for name in names:
            now = model.state_dict()[name].double().numpy()
            expected[name] = now if updates == 0 else expected[name] + share * (now - expected[name])
    for name in names:
        np.testing.assert_allclose(average.module.state_dict()[name].numpy(), expected[name], rtol=2e-5, atol=2e-6)
    assert int(average.module.state_dict()["1.num_batches_tracked"]) == 30


def test_no_average_where_none_is_asked_for():
    assert averaged(net(), 0.0) is None


def test_a_run_of_one_step_has_a_schedule():
    optimizer, schedule = make_optimizer(net(), Train(schedule="one-cycle"), 1)
    optimizer.step()
    schedule.step()
