"""Schedule, optimizers and the average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worker.train.average import Average
from worker.train.optimizer import Muon, make_optimizers, orthogonal, rate_factor, scale_rates
from worker.train.settings import Settings


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [rate_factor(step / 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert rate_factor(0.0, 0.0) == 1.0


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_a_muon_step_has_the_rates_size_whatever_the_gradients() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 4, 3, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.9)
    for scale in (1.0, 1e6):
        weight.grad = torch.randn_like(weight) * scale
        before = weight.detach() * (8**0.5 / weight.detach().norm())
        optimizer.step()
        assert (weight.detach() - before).norm() == pytest.approx(0.1 * 8**0.5, rel=0.3)


def test_every_parameter_has_one_optimizer_and_biases_no_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    for name, count in (("sgd", 1), ("muon", 2)):
        optimizers = make_optimizers(model, Settings(optimizer=name))
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        owned = [p for group in groups for p in group["params"]]
        assert len(optimizers) == count
        assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
        for group in groups:
            assert all(p.ndim == 1 for p in group["params"]) == (group.get("weight_decay") == 0.0)


def test_rates_scale_from_their_peak_each_time() -> None:
    optimizers = make_optimizers(nn.Linear(2, 2), Settings(learning_rate=0.4))
    for factor in (0.5, 0.5, 0.25):
        scale_rates(optimizers, factor)
        assert [group["lr"] for group in optimizers[0].param_groups] == [0.4 * factor] * 2


def test_the_average_follows_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, decay=0.5)
    average.steps = 1000
    nn.init.ones_(model.weight)
    average.update(model)
    average.update(model)
    assert average.model.weight.item() == pytest.approx(0.75)


def test_a_young_average_forgets_its_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = Average(model, decay=0.999)
    nn.init.zeros_(model.weight)
    for _ in range(60):
        average.update(model)
    assert average.model.weight.item() < 0.01


def test_settling_measures_statistics_under_the_averaged_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = Average(model, decay=0.9)
    nn.init.constant_(average.model[1].running_mean, 50.0)
    batches = [torch.randn(8, 3, 5, 5) + 2 for _ in range(4)]
    average.settle(batches)
    with torch.no_grad():
        outputs = average.model[0](torch.cat(batches))
    norm = average.model[1]
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3)), rtol=0.05, atol=0.01)
    assert not norm.training
    assert norm.momentum == 0.1
