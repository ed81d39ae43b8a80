"""Optimisers and schedules against torch's own."""

import math
from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler

from ddrank_core.engine.optimizers import SGD, Adam, AdamW
from ddrank_core.engine.schedules import Constant, Cosine, HalfCosine, MultiStep, Step
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer

EPOCHS = 30

PAIRS = [
    (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    (Step(step_size=7, gamma=0.5), lambda o: lr_scheduler.StepLR(o, step_size=7, gamma=0.5)),
    (MultiStep(milestones=(5, 20)), lambda o: lr_scheduler.MultiStepLR(o, milestones=[5, 20], gamma=0.1)),
    (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS)),
]


@pytest.mark.parametrize(("ours", "make"), PAIRS, ids=lambda value: type(value).__name__)
def test_a_schedule_gives_the_rates_of_torchs(ours, make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = make(optimizer)
    for epoch in range(EPOCHS):
        assert 0.3 * ours.factor(epoch, EPOCHS) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_the_cosine_reaches_zero_only_at_the_end():
    assert Cosine().factor(0, 100) == 1.0
    assert Cosine().factor(50, 100) == pytest.approx(0.5)
    assert Cosine().factor(99, 100) == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert Cosine().factor(100, 100) == pytest.approx(0.0)


def step_once(optimizer_of, gradient, steps=3):
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_of([weight])
    for _ in range(steps):
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_sgd_is_momentum_sgd_with_l2_by_hand():
    gradient = torch.tensor([0.5, 0.25], dtype=torch.float64)
    weight, velocity = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(3):
        velocity = 0.9 * velocity + gradient + 0.01 * weight
        weight = weight - 0.1 * velocity

    found = step_once(lambda p: SGD(momentum=0.9, weight_decay=0.01).build(p, 0.1), gradient)

    assert torch.allclose(weight, found, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(nesterov=True), lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=5e-4, nesterov=True)),
        (Adam(), lambda p: torch.optim.Adam(p, 0.1, weight_decay=5e-4)),
        (AdamW(), lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01)),
    ],
    ids=["sgd-nesterov", "adam", "adamw"],
)
def test_an_optimizer_steps_like_torchs_reference_loop(ours, theirs):
    gradient = torch.tensor([0.5, -0.25], dtype=torch.float64)
    assert torch.allclose(
        step_once(theirs, gradient), step_once(lambda p: ours.build(p, 0.1), gradient), atol=1e-12
    )


def test_faulty_parameters_say_what_is_wrong():
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        SGD(momentum=0.0, nesterov=True)
    with pytest.raises(ValueError, match=r"milestones must rise from 0 on, got \[5, 5\]"):
        MultiStep(milestones=(5, 5))
    with pytest.raises(ValueError, match="must be less than 1, got 1"):
        SGD(momentum=1.0)


def test_the_half_cosine_ends_at_a_half():
    """RDED's own expression, written out."""
    for epoch in range(300):
        expected = 0.5 * (1 + math.cos(math.pi * epoch / 300 / 2))
        assert expected == pytest.approx(HalfCosine().factor(epoch, 300), abs=1e-12)
    assert 0.5 == pytest.approx(HalfCosine().factor(300, 300))
    assert Cosine().factor(70, 300) == HalfCosine(stretch=1.0).factor(70, 300)


def warmup(schedule, **parameters):
    values = {"use": "warmup", **parameters, "then": schedule}
    return Structurer(default_registry(), Path()).chosen("schedule", values).component


def test_a_warmup_is_torchs_linear_one_in_front_of_another_schedule():
    ours = warmup({"use": "multi-step", "milestones": [6, 11]}, epochs=5, start=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    then = lr_scheduler.MultiStepLR(optimizer, milestones=[6, 11], gamma=0.1)
    theirs = lr_scheduler.SequentialLR(optimizer, [rise, then], milestones=[5])
    for epoch in range(EPOCHS):
        expected = optimizer.param_groups[0]["lr"]
        assert expected == pytest.approx(0.3 * ours.factor(epoch, EPOCHS), abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_cosine_after_a_warmup_still_reaches_zero_at_the_end():
    ours = warmup("cosine", epochs=10)
    assert 1.0 == ours.factor(10, 110)
    assert Cosine().factor(99, 100) == ours.factor(109, 110)


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="a warmup of 10 epochs needs a longer training, got 10 epochs"):
        warmup("constant", epochs=10).factor(0, 10)


@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
def test_decay_on_weights_spares_biases_and_norms(optimizer):
    """SRe2L's get_parameters, restated: no decay for any bias, nor for the weights of a norm."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    spared = {id(network[0].bias), id(network[1].weight), id(network[1].bias), id(network[3].bias)}
    built = optimizer(weight_decay=0.1, decay_on="weights").build(network.parameters(), 0.01)
    decays = {id(w): group["weight_decay"] for group in built.param_groups for w in group["params"]}
    assert {id(w): 0.0 if id(w) in spared else 0.1 for w in network.parameters()} == decays
    whole = optimizer(weight_decay=0.1).build(network.parameters(), 0.01)
    assert [0.1] == [group["weight_decay"] for group in whole.param_groups]
