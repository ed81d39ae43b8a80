"""Whether the labels of a distilled set number the classes as the real data set does.

Two linear classifiers say which class the images of each label look like: one is trained on real images and
asked about the distilled ones, the other the other way round. Labels count as permuted where another
assignment is far better, and better than any is for images of no class at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ddrank_core.types import RealData

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 16
"""Pictures are reduced to this: what a linear classifier knows of a class is coarse."""
MAX_REAL = 20_000
"""Real training images that are learned from and asked about, evenly spread."""
RIDGE = 0.1
"""Of the mean square of a feature."""
BLENDS, BLENDED = 30, 10
"""Sets of as many images without any class, and of how many random real images each of them is the mean."""
CLEAR, ABOVE_BLENDS = 0.15, 1.15
"""Labels are permuted where that gains CLEAR for each label that moves, and ABOVE_BLENDS times the most that
it gains in sets of blends: of few images, or of many classes, some assignment is good by chance."""
CERTAIN = 0.95
"""Or this much: nearly every image is taken for one of another class by both classifiers."""


@attrs.frozen(kw_only=True)
class ClassOrder:
    """Which real class the images of each label look like, and how clearly."""

    agreement: float
    """Share of images whose label the classifiers confirm: the mean over both of them and all labels."""
    looks_like: tuple[int, ...]
    """Label -> real class: the assignment that they confirm best."""
    gain: float
    """By how much that share grows, for each label that moves."""
    by_chance: float = 0.0
    """The most that it grows in sets of blends."""

    @property
    def moved(self) -> tuple[int, ...]:
        """The labels whose images look like another class."""
        return tuple(label for label, found in enumerate(self.looks_like) if label != found)

    @property
    def permuted(self) -> bool:
        """Whether the labels number the classes in another order than the real ones do."""
        least = min(max(CLEAR, ABOVE_BLENDS * self.by_chance), CERTAIN)
        return bool(self.moved) and self.gain >= least


def class_order(images_unit: Tensor, labels: Tensor, real: RealData) -> ClassOrder:
    """Return which real class the images of each label look like.

    `images_unit` is float32 [N, C, H, W] of any range, `labels` int64 [N], with an image of every class.
    """
    import torch

    step = -(-len(real.train_labels) // MAX_REAL)
    images, truth = _small(real.train_images[::step]), real.train_labels[::step]
    theirs = _features(images)
    weights = _ridge(theirs, truth, real.num_classes)
    found = _order(_features(_small(images_unit)), labels, theirs, truth, weights)
    source, by_chance = torch.Generator().manual_seed(0), 0.0
    for _ in range(BLENDS if found.gain >= CLEAR else 0):
        rows = torch.randint(len(images), (len(labels), BLENDED), generator=source)
        blend = torch.stack([images[row].mean(dim=0) for row in rows])
        by_chance = max(by_chance, _order(_features(blend), labels, theirs, truth, weights).gain)
    return attrs.evolve(found, by_chance=by_chance)


def _order(ours: Tensor, labels: Tensor, theirs: Tensor, truth: Tensor, weights: Tensor) -> ClassOrder:
    """Return what two classifiers say: `weights`, of the real images, and one that is trained on `ours`."""
    from scipy.optimize import linear_sum_assignment

    classes = weights.shape[1]
    asked = _shares(labels, (ours @ weights).argmax(dim=1), classes)
    answered = _shares(truth, (theirs @ _ridge(ours, labels, classes)).argmax(dim=1), classes).T
    found = (asked + answered) / 2
    _, best = linear_sum_assignment(found.numpy(), maximize=True)
    looks_like = tuple(map(int, best))
    moved = [(label, other) for label, other in enumerate(looks_like) if label != other]
    gains = [float(found[label, other] - found[label, label]) for label, other in moved]
    return ClassOrder(
        agreement=float(found.diagonal().mean()),
        looks_like=looks_like,
        gain=sum(gains) / len(gains) if gains else 0.0,
    )


def _small(images: Tensor) -> Tensor:
    from torch.nn.functional import adaptive_avg_pool2d

    images = images.float()
    return adaptive_avg_pool2d(images, SIDE) if max(images.shape[2:]) > SIDE else images


def _features(images: Tensor) -> Tensor:
    """Return images as float64 vectors [N, D] of mean 0 and length 1, and a constant."""
    import torch

    flat = images.flatten(1).double()
    flat = flat - flat.mean(dim=1, keepdim=True)
    length: Tensor = flat.norm(dim=1, keepdim=True)
    return torch.cat([flat / length.clamp(min=1e-6), flat.new_ones(len(flat), 1)], dim=1)


def _ridge(known: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the weights float64 [D, K] of ridge regression on one-hot labels."""
    import torch
    from torch.nn.functional import one_hot

    targets = one_hot(labels, classes).double()
    # Classes of different size weigh the same.
    targets = targets / targets.sum(dim=0).clamp(min=1) - 1 / len(labels)
    strength = RIDGE * known.square().sum() / known.shape[1]
    # Of few images their own products are the smaller matrix; the weights are the same.
    few = len(known) < known.shape[1]
    gram = known @ known.T if few else known.T @ known
    gram = gram + strength * torch.eye(len(gram), dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(gram, targets if few else known.T @ targets)
    return known.T @ weights if few else weights


def _shares(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Return float64 [K, K]: of the images of each label, the share that is taken for each class."""
    counts = (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes).double()
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
