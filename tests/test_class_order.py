"""Permuted labels are caught; images that are only hard to tell apart are not."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from test_audit import grid

from ddrank_core.data.distilled import to_unit
from ddrank_core.data.importers import ImportOptions, read_source
from ddrank_core.leaderboard.class_order import ClassOrder, class_order
from ddrank_core.types import RealData

CLASSES = 6


def blobs(per_class: int, seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures with a bright bar where their class has it, float32 [N, 1, 12, 12], and labels."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    images = noise * torch.rand(len(labels), 1, 12, 12, generator=source)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label : 2 * label + 2] += 0.5
    return images, labels


def real_of(images: torch.Tensor, labels: torch.Tensor, classes: int) -> RealData:
    return RealData(
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        class_names=tuple(map(str, range(classes))),
        mean=(0.5,) * images.shape[1],
        std=(0.25,) * images.shape[1],
        source="made up",
    )


@pytest.fixture(scope="module")
def real() -> RealData:
    return real_of(*blobs(50, 0, 1.0), CLASSES)


def test_right_labels_are_confirmed(real):
    found = class_order(*blobs(5, 1, 0.5), real)
    assert (tuple(range(CLASSES)), (), False) == (found.looks_like, found.moved, found.permuted)
    assert found.agreement > 0.95


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5, 0), (5, 4, 3, 2, 1, 0), (0, 2, 1, 3, 4, 5)])
def test_permuted_labels_are_caught_and_the_permutation_is_named(real, order):
    images, labels = blobs(5, 1, 0.5)
    found = class_order(images, torch.tensor(order)[labels], real)
    assert found.permuted
    assert list(range(CLASSES)) == [found.looks_like[label] for label in order]


@pytest.mark.parametrize("ipc", [1, 5])
def test_noise_is_not_called_permuted(real, ipc):
    labels = torch.arange(CLASSES).repeat_interleave(ipc)
    for seed in range(10):
        images = torch.rand(len(labels), 1, 12, 12, generator=torch.Generator().manual_seed(seed))
        assert not class_order(images, labels, real).permuted


@pytest.mark.parametrize(
    ("gain", "by_chance", "moved", "permuted"),
    [
        (0.0, 0.0, 0, False),
        (0.14, 0.0, 2, False),
        (0.16, 0.0, 2, True),
        # 1.15 times what is gained by chance.
        (0.45, 0.4, 10, False),
        (0.47, 0.4, 10, True),
        # Of few classes, chance may do anything; but not with every image.
        (0.94, 1.0, 3, False),
        (0.96, 1.0, 3, True),
    ],
)
def test_how_clear_another_order_must_be(gain, by_chance, moved, permuted):
    order = (*((k + 1) % moved for k in range(moved)), *range(moved, 10))
    found = ClassOrder(agreement=0.5, looks_like=order, gain=gain, by_chance=by_chance)
    assert moved == len(found.moved)
    assert permuted == found.permuted


# -- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Path:
    if not os.environ.get("DDRANK_TEST_DATA"):
        pytest.skip("DDRANK_TEST_DATA is not set")
    return Path(os.environ["DDRANK_TEST_DATA"])


@pytest.fixture(scope="module")
def cifar10(data) -> RealData:
    found = np.load(data / "real/cifar10-subset/cifar10_lossless_subset.npz")
    images = torch.from_numpy(np.ascontiguousarray(found["x_train"].transpose(0, 3, 1, 2)))
    return real_of(images, torch.from_numpy(found["y_train"].astype("int64")), 10)


@pytest.fixture(scope="module")
def mnist(data) -> RealData:
    def values(name: str, offset: int) -> np.ndarray:
        raw = gzip.decompress((data / f"real/mnist/train-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=offset)

    images = torch.from_numpy(values("images-idx3", 16).reshape(-1, 1, 28, 28).copy())
    return real_of(images, torch.from_numpy(values("labels-idx1", 8).astype("int64")), 10)


@pytest.fixture(scope="module")
def published(data, cifar10, mnist) -> dict[str, tuple[torch.Tensor, torch.Tensor, RealData]]:
    def imported(name: str, dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
        (path,) = (data / "distilled" / name).glob("*.pt")
        found = read_source(
            path, ImportOptions(dataset=dataset, experiment=0 if dataset == "mnist" else None)
        )
        return to_unit(found.images, found.space), found.labels

    (picture,) = (data / "distilled/cifar10-ipc10-dsa-png").glob("*.png")
    inverse = torch.load(data / "distilled/cifar10-ipc1-mtt-zca/images_zca_5000.pt", weights_only=True)
    return {
        "CAMDM": (*imported("cifar10-ipc10-camdm", "cifar10"), cifar10),
        "DSA": (grid(picture), torch.arange(100) // 10, cifar10),
        "MTT": (inverse.float(), torch.arange(10), cifar10),
        "DC": (*imported("mnist-ipc1-dc", "mnist"), mnist),
    }


@pytest.mark.parametrize("name", ["CAMDM", "DSA", "MTT", "DC"])
def test_published_sets_pass_and_are_caught_when_their_labels_are_permuted(name, published):
    images, labels, real = published[name]
    assert not class_order(images, labels, real).permuted
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    found = class_order(images, order[labels], real)
    assert found.permuted
    assert list(range(10)) == [found.looks_like[label] for label in order.tolist()]


@pytest.mark.parametrize("ipc", [1, 10])
def test_real_images_as_a_distilled_set_are_hard_but_not_permuted(cifar10, ipc):
    for seed in range(2):
        source = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(cifar10.train_labels), generator=source)
        rows = torch.cat([drawn[cifar10.train_labels[drawn] == label][:ipc] for label in range(10)])
        rest = torch.ones(len(drawn), dtype=torch.bool)
        rest[rows] = False
        images, labels = cifar10.train_images[rows].float() / 255, cifar10.train_labels[rows]
        others = attrs.evolve(
            cifar10, train_images=cifar10.train_images[rest], train_labels=cifar10.train_labels[rest]
        )
        assert not class_order(images, labels, others).permuted
