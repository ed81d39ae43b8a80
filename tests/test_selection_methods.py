"""The methods that choose or make images without training: noise, herding, k-means."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ddrank_methods.herding import Herding, herd
from ddrank_methods.k_means import KMeans, cluster, nearest_of_their_own
from ddrank_methods.noise import Noise
from ddrank_methods.random_selection import RandomSelection
from ddrank_networks.convnet import ConvNet

from ddrank_core import ConfigError, DataError, DistilledSet, RealData
from ddrank_core.cli.distill import command
from ddrank_core.data.distilled import load

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "distill"
NETWORK = ConvNet(depth=1, width=8)
SELECTIONS = [
    pytest.param(RandomSelection(), id="random"),
    pytest.param(Herding(), id="herding"),
    pytest.param(Herding(space="pixels"), id="herding of pixels"),
    pytest.param(KMeans(), id="k-means"),
]
METHODS = [*SELECTIONS, pytest.param(KMeans(take="centre"), id="centres"), pytest.param(Noise(), id="noise")]


def _data(per_class: int = 12, shape: tuple[int, int, int] = (2, 4, 4)) -> RealData:
    """Three classes of random images, in mixed order."""
    draws = torch.Generator().manual_seed(3)
    many = 3 * per_class
    return RealData(
        train_images=torch.randint(256, (many, *shape), generator=draws, dtype=torch.uint8),
        train_labels=torch.arange(many)[torch.randperm(many, generator=draws)] % 3,
        test_images=torch.zeros(0, *shape, dtype=torch.uint8),
        test_labels=torch.zeros(0, dtype=torch.int64),
        class_names=("a", "b", "c"),
        mean=(0.25, 0.6)[: shape[0]],
        std=(0.5, 0.2)[: shape[0]],
        source="made up",
    )


def _distil(method, data: RealData | None = None, ipc: int = 3, seed: int = 0) -> DistilledSet:
    return method.distill(data or _data(), NETWORK, ipc, "cpu", seed, lambda step, steps: None)


def _stored(distilled: DistilledSet, data: RealData) -> torch.Tensor:
    """Return the images [N, C, H, W] in the units of a byte."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    return (distilled.images * std + mean) * 255


def _indices(distilled: DistilledSet, data: RealData) -> list[int]:
    """Return which training image each image is."""
    bytes_of = _stored(distilled, data).round().to(torch.uint8)
    return [
        int((data.train_images == one).flatten(start_dim=1).all(dim=1).nonzero().item()) for one in bytes_of
    ]


# What all of them keep to


@pytest.mark.parametrize("method", SELECTIONS)
@pytest.mark.parametrize("ipc", [1, 5, 12])
def test_what_is_chosen_are_different_real_images_of_the_class_that_the_label_says(method, ipc):
    data = _data()
    chosen = _distil(method, data, ipc)
    indices = _indices(chosen, data)
    assert [0] * ipc + [1] * ipc + [2] * ipc == chosen.labels.tolist()
    assert chosen.labels.tolist() == data.train_labels[indices].tolist()
    assert 3 * ipc == len(set(indices))


@pytest.mark.parametrize("method", SELECTIONS)
def test_copies_of_an_image_are_each_chosen_once(method):
    same = torch.full((9, 1, 4, 4), 7, dtype=torch.uint8)
    data = _data(3, (1, 4, 4))
    chosen = _distil(method, RealData(**{**_fields(data), "train_images": same}), ipc=3)
    assert torch.full((9, 1, 4, 4), 7.0).allclose(_stored(chosen, data), atol=1e-4)


def _fields(data: RealData) -> dict[str, object]:
    return {name: getattr(data, name) for name in data.__slots__ if not name.startswith("__")}


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_and_what_the_process_drew_before_does_not_matter(method):
    first = _distil(method, seed=7)
    torch.rand(5)
    np.random.rand(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert torch.equal(first.images, _distil(method, seed=7).images)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == np.random.get_state()[1].tolist()


@pytest.mark.parametrize(
    "method", [param.values[0] for param in METHODS if param.values[0] != Noise()], ids=repr
)
def test_more_images_than_the_smallest_class_has_are_refused(method):
    with pytest.raises(DataError, match="made up: a class has only 12 training images, too few to draw 13"):
        _distil(method, ipc=13)


@pytest.mark.parametrize("method", METHODS)
def test_every_step_is_reported(method):
    steps = []
    method.distill(_data(), NETWORK, 2, "cpu", 0, lambda step, total: steps.append((step, total)))
    assert [(step, len(steps)) for step in range(1, len(steps) + 1)] == steps


# Noise


def test_noise_has_the_mean_and_spread_of_a_clipped_normal_distribution():
    data = _data(shape=(2, 16, 16))
    unit = _stored(_distil(Noise(), data, ipc=60), data) / 255
    assert -1e-6 <= unit.min() <= unit.max() <= 1 + 1e-6
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        # By numerical integration of the normal density, its tails put at 0 and 1.
        grid = np.linspace(mean - 8 * std, mean + 8 * std, 200_001)
        density = np.exp(-(((grid - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
        step, clipped = grid[1] - grid[0], np.clip(grid, 0, 1)
        expected = float((clipped * density).sum() * step)
        spread = math.sqrt(float((clipped**2 * density).sum() * step) - expected**2)
        pixels = unit[:, channel]
        # 46,080 pixels: the standard error of the mean is below 0.5 / sqrt(46,080) = 0.0024.
        assert expected == pytest.approx(pixels.mean().item(), abs=0.01)
        assert spread == pytest.approx(pixels.std().item(), abs=0.01)


def test_noise_needs_no_image_of_a_class_and_differs_between_seeds_and_images():
    first, second = _distil(Noise(), ipc=20, seed=1), _distil(Noise(), ipc=20, seed=2)
    assert (60, 2, 4, 4) == tuple(first.images.shape)
    assert 60 == len({tuple(image.flatten().tolist()) for image in first.images})
    assert not torch.equal(first.images, second.images)


# Herding


def _herd_by_force(features: np.ndarray, many: int) -> list[int]:
    """iCaRL, algorithm 4, word for word: p_k = argmin_x |mu - (phi(x) + sum_j phi(p_j)) / k|."""
    mu, taken = features.mean(axis=0), []
    for k in range(1, many + 1):
        sums = [
            (math.dist(mu, (features[x] + sum(features[p] for p in taken)) / k), x)
            for x in range(len(features))
            if x not in taken
        ]
        taken.append(min(sums)[1])
    return taken


@pytest.mark.parametrize("seed", range(5))
def test_herding_takes_what_algorithm_4_of_icarl_takes(seed):
    features = np.random.default_rng(seed).normal(size=(15, 4))
    assert _herd_by_force(features, 15) == herd(torch.from_numpy(features), 15)


def test_herding_by_hand():
    # The mean is 3: first the nearest, 2. Then x nearest to 2 * 3 - 2 = 4: a 6, of equal ones the first.
    # Then x nearest to 3 * 3 - 2 - 6 = 1.
    assert [2, 3, 1] == herd(torch.tensor([[0.0], [1.0], [2.0], [6.0], [6.0]]), 3)


def test_of_equal_images_herding_takes_the_first():
    assert [0, 1, 2] == herd(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]), 3)


def test_herding_of_pixels_follows_the_mean_of_the_pixels():
    data = _data()
    expected = []
    for label in range(3):
        rows = (data.train_labels == label).nonzero().flatten()
        mean, std = (np.array(values).reshape(1, 2, 1, 1) for values in (data.mean, data.std))
        pixels = (data.train_images[rows].numpy() / 255 - mean) / std
        expected += [int(rows[index]) for index in _herd_by_force(pixels.reshape(len(rows), -1), 4)]
    assert expected == _indices(_distil(Herding(space="pixels"), data, ipc=4), data)


def test_herding_follows_the_features_before_the_classifier_of_the_network_that_the_seed_makes():
    data = _data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = NETWORK.build(3, (2, 4, 4)).eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    expected = []
    for label in range(3):
        rows = (data.train_labels == label).nonzero().flatten()
        with torch.no_grad():
            features = network.features((data.train_images[rows].float() / 255 - mean) / std).flatten(1)
        expected += [int(rows[index]) for index in _herd_by_force(features.double().numpy(), 4)]
    assert expected == _indices(_distil(Herding(), data, ipc=4, seed=5), data)
    assert expected != _indices(_distil(Herding(), data, ipc=4, seed=6), data)


def test_herding_comes_nearer_to_the_mean_of_a_class_than_random_images_do():
    data = _data(60)

    def distance(method, seed):
        chosen = _distil(method, data, ipc=6, seed=seed).images[:6].flatten(start_dim=1).mean(dim=0)
        whole = _distil(Herding(space="pixels"), data, ipc=60).images[:60].flatten(start_dim=1).mean(dim=0)
        return (chosen - whole).norm().item()

    herded = distance(Herding(space="pixels"), 0)
    assert all(herded < distance(RandomSelection(), seed) for seed in range(10))


def test_a_network_without_a_linear_classifier_is_refused_for_its_features_alone():
    class Pools:
        def build(self, num_classes, image_shape):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, num_classes + 1))

    def distil(method):
        return method.distill(_data(), Pools(), 2, "cpu", 0, lambda step, steps: None)

    with pytest.raises(ConfigError, match=r"has no nn\.Linear with 3 outputs"):
        distil(Herding())
    assert 6 == len(distil(Herding(space="pixels")).images)


# k-means


def test_each_cluster_that_lies_apart_gives_the_image_nearest_to_its_mean():
    # By hand: two groups, around 20 and 200, whose means are 20 and 200.67; nearest are 20 and 200.
    values = [10, 20, 30, 190, 200, 212]
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    fields = {**_fields(_data(2, (1, 4, 4))), "train_images": images, "class_names": ("a",)}
    data = RealData(**{**fields, "train_labels": torch.zeros(6, dtype=torch.int64)})
    assert {1, 4} == set(_indices(_distil(KMeans(), data, ipc=2), data))
    centres = _stored(_distil(KMeans(take="centre"), data, ipc=2), data)[:, 0, 0, 0]
    assert [20, 602 / 3] == pytest.approx(sorted(centres.tolist()), abs=1e-3)


def test_centres_are_nearly_as_tight_as_the_best_partition_and_of_a_few_seeds_as_tight():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 2)))
    found = [
        torch.cdist(rows, cluster(rows, 3, seed)).min(dim=1).values.square().sum().item() for seed in range(5)
    ]

    def inertia(groups: list[int]) -> float:
        parts = [rows[[i for i, g in enumerate(groups) if g == group]] for group in set(groups)]
        return sum((part - part.mean(dim=0)).square().sum().item() for part in parts)

    # Every partition of nine points into at most three groups: 3^8, the first point in group 0.
    best = min(inertia([0, *(code // 3**i % 3 for i in range(8))]) for code in range(3**8))
    assert best == pytest.approx(min(found), rel=1e-9)
    assert max(found) < 1.1 * best


def test_one_image_per_class_is_the_one_nearest_to_the_mean():
    data = _data()
    chosen = _indices(_distil(KMeans(), data, ipc=1), data)
    for label, index in enumerate(chosen):
        rows = (data.train_labels == label).nonzero().flatten()
        # Distances are those of normalised images: a channel counts by its spread.
        pixels = data.train_images[rows].double() / 255 / torch.tensor(data.std).view(1, -1, 1, 1)
        distances = (pixels - pixels.mean(dim=0)).square().sum(dim=(1, 2, 3))
        assert index == int(rows[distances.argmin()])


@pytest.mark.parametrize("seed", range(5))
def test_centres_that_share_their_nearest_image_each_get_one_of_their_own(seed):
    draws = np.random.default_rng(seed)
    # All centres in one corner, so that they do share it.
    centres, rows = draws.normal(size=(3, 2)) * 0.1, draws.normal(size=(6, 2))
    distances = ((centres[:, None] - rows[None]) ** 2).sum(axis=2)
    best = min(permutations(range(6), 3), key=lambda chosen: distances[range(3), chosen].sum())
    assert list(best) == nearest_of_their_own(torch.from_numpy(centres), torch.from_numpy(rows))


def test_clusters_that_stay_empty_cost_no_image():
    # Two different images, three times each, and four clusters.
    images = torch.tensor([5, 5, 5, 90, 90, 90], dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    fields = {**_fields(_data(2, (1, 4, 4))), "train_images": images.contiguous(), "class_names": ("a",)}
    data = RealData(**{**fields, "train_labels": torch.zeros(6, dtype=torch.int64)})
    chosen = _stored(_distil(KMeans(), data, ipc=4), data)[:, 0, 0, 0].round()
    assert 4 == len(chosen)
    assert {5.0, 90.0} == set(chosen.tolist())
    assert max(chosen.tolist().count(5.0), chosen.tolist().count(90.0)) <= 3


# From the launcher


@pytest.mark.parametrize("name", ["noise", "herding", "k-means", "random"])
def test_the_configs_in_the_repository_make_a_set_of_digits(name, tmp_path):
    output = tmp_path / "set.safetensors"
    result = CliRunner().invoke(
        command, [str(CONFIGS / f"digits-{name}-ipc10.yaml"), "--device", "cpu", "--set", f"output={output}"]
    )
    assert result.exception is None, result.output
    made = load(output)
    assert (100, 1, 8, 8) == tuple(made.images.shape)
    assert ("digits", name, 0) == (made.info["dataset"], made.info["method"], made.info["seed"])
