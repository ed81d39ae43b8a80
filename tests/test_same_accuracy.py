"""In float32 trials in a cohort, or compiled, reach the accuracies that they reach alone, up to rounding.

The case is one in which rounding shows: after 25 epochs at a high rate, two trainings that differ in nothing
but the order of their sums have gone so far apart that most seeds' accuracies differ, by a per cent or so.
"""

from __future__ import annotations

import copy
import shutil
from functools import cache
from typing import NamedTuple

import attrs
import pytest
import torch
from test_cohort import CPU, chosen, training_of
from torch import nn

from ddrank_core.engine.bench.choose import COMPILED
from ddrank_core.engine.cohort import train_cohort
from ddrank_core.engine.execution import Resident
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.train import Setting, accuracy, build, predict, train

SEEDS = tuple(range(20))
CLASSES, SHAPE, PER_CLASS = 10, (1, 8, 8), 2
# Of two blocks, most students come out with the very same accuracy in any order of sums.
STUDENT = {"use": "convnet", "depth": 3, "width": 16}
RATE = 0.2
TRAINING = training_of(epochs=25, batch_size=CLASSES * PER_CLASS)

PERMUTATIONS = 9_999
LEVEL = 0.001
MARGIN = 2.5


# -- the check ---------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """How the accuracies of `other` lie to those of the trainings that only sum in another order."""

    shift: float
    """Mean over seeds of other - the mean of the rest."""
    shift_by_chance: float
    """How often one that is picked at random in each seed is shifted as far."""
    spread: float
    """Mean over seeds of |other - the mean of the rest|."""
    spread_by_chance: float
    usual_spread: float
    """The same of each of the rest among themselves, in the mean."""


def compare(alone, other, reordered):
    """Return how `other` lies to the rest; `alone` and `other` are [S], and `reordered` is [R, S]."""
    rest = torch.tensor([[*alone], *map(list, reordered)], dtype=torch.float64).T
    everyone = torch.cat([torch.tensor([*other], dtype=torch.float64).unsqueeze(1), rest], dim=1)
    deviations = from_the_rest(everyone)
    seeds, members = everyone.shape
    draws = torch.Generator().manual_seed(0)
    picked = torch.randint(members, (PERMUTATIONS, seeds), generator=draws)
    chance = deviations[torch.arange(seeds), picked]
    shift, spread = deviations[:, 0].mean(), deviations[:, 0].abs().mean()
    return Comparison(
        shift=shift.item(),
        shift_by_chance=share_as_large(chance.mean(dim=1).abs(), shift.abs()),
        spread=spread.item(),
        spread_by_chance=share_as_large(chance.abs().mean(dim=1), spread),
        usual_spread=from_the_rest(rest).abs().mean().item(),
    )


def from_the_rest(values):
    """Return how far each of the values [S, M] is from the mean of the M - 1 others of its row."""
    members = values.shape[1]
    return (values * members - values.sum(dim=1, keepdim=True)) / (members - 1)


def share_as_large(by_chance, found):
    """Return the p-value of a permutation test; what was found counts as one of the permutations."""
    return (1 + (by_chance >= found - 1e-12).sum().item()) / (1 + len(by_chance))


def assert_same_accuracies(alone, other, reordered):
    """Hold that `other` differs from `alone` by no more than trainings do that only sum in another order.

    `alone` and `other` are [S]: the final accuracy of each seed, trained alone and in the other way.
    `reordered` is [R, S], R >= 2: trained alone, in R other orders of sums.

    If rounding is all that `other` differs in, then which of a seed's R + 2 accuracies is called `other` is
    a matter of chance. So the paired differences from the mean of the rest are held against those of one
    that is picked at random in each seed: a permutation test, which asks for no normal distribution, in
    9,999 draws of a fixed seed. Rejected at 0.1 % are a shift of the mean over seeds; and a spread that is
    larger than by chance, if it is more than 2.5 times the usual one too. That margin is for kernels that
    also round more: first weights changed by 1e-6, ten times what rounding does, give 1.2 to 2.4 times the
    usual spread (three sets of 20 seeds), cohorts 0.6 to 0.9 times, and those of the test below at least 4.

    Raises:
        AssertionError: with the numbers.
    """
    found = compare(alone, other, reordered)
    assert found.shift_by_chance > LEVEL, f"the mean is shifted: {found}"
    wide = found.spread > MARGIN * found.usual_spread
    assert not (wide and found.spread_by_chance <= LEVEL), f"seeds differ by too much: {found}"


# -- the case ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def digits():
    return chosen("dataset", "digits").component.load()


@cache
def setting():
    space = normaliser(digits().mean, digits().std, CPU)
    return Setting(device=CPU, precision="fp32", space=space, teachers=lambda images: ())


def image_set(images, labels):
    return ImageSet(images=setting().space.normalise(images), labels=labels, num_classes=CLASSES)


@cache
def pictures(seed):
    """Return a seed's own pictures, two of each digit. The test part gives them: few are needed."""
    draws = torch.Generator().manual_seed(seed)
    labels = digits().test_labels
    shuffled = torch.randperm(len(labels), generator=draws)
    index = torch.cat([shuffled[labels[shuffled] == digit][:PER_CLASS] for digit in range(CLASSES)])
    return image_set(digits().test_images[index], labels[index])


def accuracies(networks):
    """Return each network's accuracy on the train part's 1,437 pictures, which tell small differences."""
    many = image_set(digits().train_images, digits().train_labels)
    return [accuracy(predict(network, many, setting()), many.labels) for network in networks]


def students():
    component = chosen("architecture", STUDENT).component
    return [build(component, CLASSES, SHAPE, seed) for seed in SEEDS]


def trained_alone(networks):
    """Return the accuracies of networks that `train` trains one after another."""
    for network, seed in zip(networks, SEEDS, strict=True):
        assert train(network, pictures(seed), TRAINING, RATE, seed, setting(), lambda epoch: None)
    return accuracies(networks)


def trained_compiled():
    """Return the accuracies of networks that are trained one after another in one compiled student."""
    resident = Resident(COMPILED.ready(students()[0]))
    compiled, found = attrs.evolve(setting(), execution=COMPILED), []
    for network, seed in zip(students(), SEEDS, strict=True):
        student = resident.become(COMPILED.ready(network))
        assert train(student, pictures(seed), TRAINING, RATE, seed, compiled, lambda epoch: None)
        network.load_state_dict(student.state_dict())
        found += accuracies([network])
    return found


def trained_together(folded, rate=RATE, seeds=SEEDS):
    """Return the accuracies of a cohort; `seeds` draw the orders and the views, not weights or pictures."""
    networks, data = students(), [pictures(seed) for seed in SEEDS]
    rates = [rate] * len(SEEDS)
    finite = train_cohort(
        networks, data, TRAINING, rates, seeds, setting(), lambda epoch: None, folded=folded
    )
    assert [True] * len(SEEDS) == finite
    return accuracies(networks)


class Reordered(nn.Module):
    """The same network but for the order of its sums.

    It sees batches in another order and mirrored, through mirrored kernels, and each block's channels are
    in another order: sums over images, pixels and channels all come differently.
    """

    def __init__(self, network, seed):
        super().__init__()
        self._draws = torch.Generator().manual_seed(seed)
        self._network = copy.deepcopy(network)
        before = torch.arange(SHAPE[0])
        with torch.no_grad():
            for layer in self._network.features:
                if isinstance(layer, nn.Conv2d):
                    order = torch.randperm(layer.out_channels, generator=self._draws)
                    layer.weight.copy_(layer.weight[order][:, before].flip(3))
                    layer.bias.copy_(layer.bias[order])
                    before = order
            # The last feature map is one pixel, and norms begin with the same weights in every channel.
            self._network.classifier.weight.copy_(self._network.classifier.weight[:, before])

    def forward(self, images):
        order = torch.randperm(len(images), generator=self._draws)
        return self._network(images[order].flip(3))[order.argsort()]


@pytest.fixture(scope="module")
def alone():
    return trained_alone(students())


@pytest.fixture(scope="module")
def reordered():
    return [
        trained_alone([Reordered(network, seed) for seed, network in enumerate(students())]),
        # Other kernels, which sum over channels first.
        trained_alone([network.to(memory_format=torch.channels_last) for network in students()]),
    ]


# -- the same accuracies -----------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True], ids=["vmapped", "folded"])
def test_a_cohort_reaches_the_accuracies_of_its_trials_alone(alone, reordered, folded):
    assert_same_accuracies(alone, trained_together(folded), reordered)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_trials_reach_the_accuracies_that_they_reach_as_they_are(alone, reordered):
    assert_same_accuracies(alone, trained_compiled(), reordered)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 1.25 * RATE},
        {"rate": 0.75 * RATE},
        {"seeds": [seed + 1 for seed in SEEDS]},
        {"seeds": [SEEDS[0]] * len(SEEDS)},
    ],
    ids=["larger rate", "smaller rate", "another seed's draws", "the first seed's draws"],
)
def test_a_cohort_that_trains_otherwise_is_found_out(alone, reordered, change):
    with pytest.raises(AssertionError, match=r"shifted|too much"):
        assert_same_accuracies(alone, trained_together(folded=True, **change), reordered)


# -- the orders are another, and the networks are not -------------------------------------------


def test_another_order_of_sums_alone_changes_many_accuracies(alone, reordered):
    """Or else there is nothing to hold a cohort against."""
    for order in reordered:
        assert sum(one != other for one, other in zip(alone, order, strict=True)) > len(SEEDS) / 4


def test_a_reordered_network_is_trained_to_be_the_same():
    """In float64, for five steps, on which rounding does not show."""
    images = image_set(digits().train_images[:50].double(), digits().train_labels[:50])
    network = students()[0].double()
    same, training = Reordered(network, 1), training_of(epochs=5, batch_size=50)
    untrained = network(images.images)
    for one in (network, same):
        train(one, images, training, RATE, 0, setting(), lambda epoch: None)
    expected, actual = network(images.images), same(images.images)
    assert torch.allclose(expected, actual, rtol=0, atol=1e-9)
    assert not torch.allclose(untrained, expected, rtol=0, atol=1e-2)


# -- the check, on made-up accuracies -----------------------------------------------------------


def made_up(draws, shift=0.0, spread=1.0):
    """Return 20 accuracies alone, in another way and in two other orders; seeds differ more than these."""
    base = 0.5 + 0.08 * torch.randn(20, generator=draws)
    # Mostly small, sometimes large, as differences of long trainings are.
    rounding = 0.01 * torch.randn(4, 20, generator=draws) * torch.rand(4, 20, generator=draws) ** 2
    return base + rounding[0], base + shift + spread * rounding[1], base + rounding[2:]


def test_chance_is_given_its_due_share():
    """5 % of 200 p-values lie below 5 %: ten, with a standard deviation of three."""
    draws = torch.Generator().manual_seed(0)
    found = [compare(*made_up(draws)) for _ in range(200)]
    assert 1 <= sum(one.shift_by_chance <= 0.05 for one in found) <= 20
    assert 1 <= sum(one.spread_by_chance <= 0.05 for one in found) <= 20


def test_equal_accuracies_are_the_same():
    alone, _, reordered = made_up(torch.Generator().manual_seed(0))
    assert_same_accuracies(alone, alone, reordered)
    assert_same_accuracies(alone, alone, [alone, alone])


@pytest.mark.parametrize(("change", "fault"), [({"shift": 0.01}, "shifted"), ({"spread": 10}, "too much")])
def test_a_shift_and_a_spread_are_told_apart(change, fault):
    with pytest.raises(AssertionError, match=fault):
        assert_same_accuracies(*made_up(torch.Generator().manual_seed(0), **change))
