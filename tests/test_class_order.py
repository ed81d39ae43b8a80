"""Permuted labels are caught; images that are only hard to tell apart are not."""

from __future__ import annotations

import gzip
import os
from itertools import permutations
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from ddrank_datasets.digits import Digits
from test_audit import grid

from ddrank_core.data.distilled import to_unit
from ddrank_core.data.importers import ImportOptions, read_source
from ddrank_core.leaderboard.class_order import ClassOrder, _standard, class_order
from ddrank_core.leaderboard.findings import Findings
from ddrank_core.leaderboard.set_check import Loaded, check_class_order
from ddrank_core.leaderboard.types import Finding
from ddrank_core.types import DistilledSet, ImageSpace, RealData

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
def test_noise_is_neither_called_permuted_nor_confirmed(real, ipc):
    labels, confirmed = torch.arange(CLASSES).repeat_interleave(ipc), 0
    for seed in range(5):
        images = torch.rand(len(labels), 1, 12, 12, generator=torch.Generator().manual_seed(seed))
        found = class_order(images, labels, real)
        assert not found.permuted
        confirmed += found.confirmed
    assert confirmed <= 1


def test_the_fit_is_the_deviation_of_the_labels_among_all_their_orders():
    """Against all 720 orders of six labels."""
    matrix = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).double()
    sums = np.array([sum(matrix[k, order[k]] for k in range(6)) for order in permutations(range(6))])
    assert pytest.approx((sums[0] - sums.mean()) / sums.std()) == float(_standard(matrix).diagonal().sum())


@pytest.mark.parametrize(
    ("moved", "best", "fit", "by_chance", "gain", "permuted"),
    [
        (0, 8.0, 8.0, 5.0, 0.0, False),
        (2, 8.0, 7.3, 5.0, 0.3, True),
        # 0.3 for each label that moves.
        (2, 8.0, 7.5, 5.0, 0.2, False),
        (10, 6.0, 3.1, 5.0, 0.3, False),
        # 1.05 times what images of no class reach.
        (10, 5.2, 0.0, 5.0, 0.6, False),
        (10, 5.3, 0.0, 5.0, 0.6, True),
        # Of few classes, chance may do anything; but not with every image.
        (3, 2.0, -1.0, 2.0, 0.94, False),
        (3, 2.0, -1.0, 2.0, 0.96, True),
    ],
)
def test_how_clear_another_order_must_be(moved, best, fit, by_chance, gain, permuted):
    order = (*((k + 1) % moved for k in range(moved)), *range(moved, 10))
    found = ClassOrder(agreement=0.3, looks_like=order, gain=gain, fit=fit, best=best, by_chance=by_chance)
    assert moved == len(found.moved)
    assert permuted == found.permuted


@pytest.mark.parametrize(
    ("agreement", "classes", "fit", "confirmed"),
    [
        (0.3, 10, 2.4, False),
        (0.3, 10, 2.6, True),
        # Halfway from a tenth to one is 0.55.
        (0.54, 10, 0.0, False),
        (0.56, 10, 0.0, True),
        # Of two classes, no order fits better than 1.
        (0.74, 2, 1.0, False),
        (0.76, 2, 1.0, True),
    ],
)
def test_how_well_labels_must_fit_to_be_confirmed(agreement, classes, fit, confirmed):
    found = ClassOrder(agreement=agreement, looks_like=tuple(range(classes)), gain=0.0, fit=fit, best=fit)
    assert confirmed == found.confirmed


def finding_of(images: torch.Tensor, labels: torch.Tensor, real: RealData) -> Finding:
    space = ImageSpace(kind="unit")
    distilled = DistilledSet(images=images, labels=labels, space=space, num_classes=real.num_classes)
    findings = Findings()
    loaded = Loaded(path=Path("set.safetensors"), distilled=distilled, sha256="0" * 64)
    check_class_order(loaded, images, real, findings)
    (finding,) = findings.all
    assert "class order" == finding.check
    return finding


def test_the_check_confirms_refuses_or_says_that_it_cannot_tell(real):
    images, labels = blobs(5, 1, 0.5)
    noise = torch.rand(len(labels), 1, 12, 12, generator=torch.Generator().manual_seed(0))
    right, wrong = finding_of(images, labels, real), finding_of(images, (labels + 1) % CLASSES, real)
    assert ("info", "error") == (right.level, wrong.level)
    assert right.text.startswith(
        "as a whole, the labels are in the data set's order: linear classifiers confirm 100.0%"
    )
    assert "6 of 6 labels are permuted: images of 0 look like 5, 1 look like 0" in wrong.text
    untold = finding_of(noise, labels, real)
    assert "warning" == untold.level
    assert "labels: whether they are permuted cannot be told from these images" in untold.text


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


def drawn(real: RealData, ipc: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, RealData]:
    """Return random real images as a distilled set, and the real data without them."""
    order = torch.randperm(len(real.train_labels), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([order[real.train_labels[order] == label][:ipc] for label in range(10)])
    rest = torch.ones(len(order), dtype=torch.bool)
    rest[rows] = False
    images = real.train_images[rows].float() / (1 if real.train_images.is_floating_point() else 255)
    others = attrs.evolve(real, train_images=real.train_images[rest], train_labels=real.train_labels[rest])
    return images, real.train_labels[rows], others


@pytest.mark.parametrize("ipc", [1, 10])
def test_real_images_as_a_distilled_set_are_hard_but_not_permuted(cifar10, ipc):
    for seed in range(2):
        found = class_order(*drawn(cifar10, ipc, seed))
        assert (False, True) == (found.permuted, found.confirmed)


@pytest.mark.parametrize("ipc", [1, 10])
def test_permuted_labels_of_photographs_are_caught_or_cannot_be_told(cifar10, ipc):
    images, labels, others = drawn(cifar10, ipc, 0)
    assert not class_order(images, (labels + 1) % 10, others).confirmed


def test_permuted_labels_of_one_digit_a_class_are_caught():
    real, caught = Digits().load(), 0
    for seed in range(20):
        images, labels, others = drawn(real, 1, seed)
        swapped = torch.tensor([1, 0, *range(2, 10)])[labels]
        assert class_order(images, labels, others).confirmed
        caught += class_order(images, swapped, others).permuted
        moved = class_order(images, (labels + 1) % 10, others)
        caught += moved.permuted
        assert not moved.confirmed
    assert caught >= 38
