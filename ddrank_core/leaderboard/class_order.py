"""Whether the labels of a distilled set number the classes as the real data set does.

Two linear classifiers say which class the images of each label look like: one is trained on real images and
asked about the distilled ones, the other the other way round. What they say of each label and class is one
matrix, and an order of the labels fits as well as its sum over that order. Labels count as permuted where
another order fits far better, and better than any does for images of no class at all; as confirmed where they
fit as next to no random order would. Of a few images, or very hard ones, neither can be told.
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
BLENDS, LEAST_BLENDS, BLENDED = 2000, 20, 10
"""Images without any class, at least in how many sets of one per label, and of how many random real images
each of them is the mean."""
ABOVE_BLENDS = 1.05
"""Labels are permuted where another order fits this many times as well as any does for those sets."""
# Measured with 40 draws of digits and 20 of CIFAR-10 images, all labels moved on by one or two exchanged.
# Of one digit a class either is caught in 39, of two and of ten in 40. Of one photograph a class neither is
# caught; all moved are never confirmed, two exchanged are in ten. Of ten a class either is caught in 14;
# all moved are never confirmed, two exchanged are in six. No right labels and no noise are called permuted,
# and right ones are confirmed but for two draws of one photograph a class.
EACH = 0.3
"""And by this much better than theirs for each label that it moves. Were every image clearly of its
class, a wrong label would cost 1; cats for dogs of ten images a class cost 0.3 at most."""
CERTAIN = 0.95
"""Or by this share of the images: nearly every one is taken for one of another class by both classifiers."""
CONFIRMED = 2.5
"""Labels that fit this well are confirmed: fewer than one of a hundred random orders do."""


@attrs.frozen(kw_only=True)
class ClassOrder:
    """Which real class the images of each label look like, and how clearly."""

    agreement: float
    """Share of images whose label the classifiers confirm: the mean over both of them and all labels."""
    looks_like: tuple[int, ...]
    """Label -> real class: the order that fits best."""
    gain: float
    """By how much that share grows with it, for each label that moves."""
    fit: float
    """How well the labels fit: random orders have mean 0 and deviation 1."""
    best: float
    """How well `looks_like` fits."""
    by_chance: float = 0.0
    """The most that any order fits for sets of blends."""

    @property
    def moved(self) -> tuple[int, ...]:
        """The labels whose images look like another class."""
        return tuple(label for label, found in enumerate(self.looks_like) if label != found)

    @property
    def is_better(self) -> bool:
        """Whether another order fits far better, by chance or not."""
        return bool(self.moved) and self.best - self.fit >= EACH * len(self.moved)

    @property
    def permuted(self) -> bool:
        """Whether the labels number the classes in another order than the real ones do."""
        clear = self.is_better and self.best > ABOVE_BLENDS * self.by_chance
        return clear or (bool(self.moved) and self.gain >= CERTAIN)

    @property
    def confirmed(self) -> bool:
        """Whether the labels as a whole are in order, beyond what permuted ones show by chance."""
        # Few classes have so few orders that one in a hundred is none of them.
        halfway = (1 + 1 / len(self.looks_like)) / 2
        return not self.permuted and (self.fit >= CONFIRMED or self.agreement >= halfway)


def class_order(images_unit: Tensor, labels: Tensor, real: RealData) -> ClassOrder:
    """Return which real class the images of each label look like.

    `images_unit` is float32 [N, C, H, W] of any range, `labels` int64 [N], with an image of every class.
    """
    step = -(-len(real.train_labels) // MAX_REAL)
    images, truth = _small(real.train_images[::step]), real.train_labels[::step]
    theirs, classes = _features(images), real.num_classes
    weights, means = _ridge(theirs, truth, classes), _means(theirs, truth, classes)
    ours = _features(_small(images_unit))
    matrix = _evidence(ours, labels, weights, means)
    looks_like, best = _best_order(matrix)
    asked = _shares(labels, (ours @ weights).argmax(dim=1), classes)
    answered = _shares(truth, (theirs @ _ridge(ours, labels, classes)).argmax(dim=1), classes).T
    shares = (asked + answered) / 2
    gains = [float(shares[k, other] - shares[k, k]) for k, other in enumerate(looks_like) if k != other]
    found = ClassOrder(
        agreement=float(shares.diagonal().mean()),
        looks_like=looks_like,
        gain=sum(gains) / len(gains) if gains else 0.0,
        fit=float(matrix.diagonal().sum()),
        best=best,
    )
    if not found.is_better:
        return found
    return attrs.evolve(found, by_chance=_by_chance(images, weights, means))


def _by_chance(images: Tensor, weights: Tensor, means: Tensor) -> float:
    """Return how well the best order fits for sets of images without any class, at most."""
    import torch

    classes, source, most = len(means), torch.Generator().manual_seed(0), 0.0
    for _ in range(max(LEAST_BLENDS, BLENDS // classes)):
        rows = torch.randint(len(images), (classes, BLENDED), generator=source)
        blends = _features(images[rows].float().mean(dim=1))
        most = max(most, _best_order(_evidence(blends, torch.arange(classes), weights, means))[1])
    return most


def _evidence(ours: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """Return float64 [K, K]: how much the images of each label look like each class, by both classifiers.

    `weights` are the classifier's of the real images, `means` their mean features. The sum of one entry per
    label and class has mean 0 and deviation 1 over all orders of the labels.
    """
    classes = len(means)
    asked = _means(ours, labels, classes) @ weights
    answered = (means @ _ridge(ours, labels, classes)).T
    return _standard(_standard(asked) + _standard(answered))


def _standard(matrix: Tensor) -> Tensor:
    """Return a matrix [K, K] less its rows' and columns' means, scaled as the variance of such sums says.

    Source: Hoeffding, "A combinatorial central limit theorem" (1951), theorem 2.
    """
    centred = matrix - matrix.mean(dim=0) - matrix.mean(dim=1, keepdim=True) + matrix.mean()
    deviation = (centred.square().sum() / (len(matrix) - 1)).sqrt()
    return centred / deviation.clamp(min=1e-12)


def _best_order(matrix: Tensor) -> tuple[tuple[int, ...], float]:
    """Return the order of the labels with the largest sum, and that sum."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(matrix.numpy(), maximize=True)
    return tuple(map(int, columns)), float(matrix[rows, columns].sum())


def _means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean features float64 [K, D] of each class."""
    import torch

    total = torch.zeros(classes, features.shape[1], dtype=features.dtype)
    counts = labels.bincount(minlength=classes).clamp(min=1)
    return total.index_add_(0, labels, features) / counts.unsqueeze(1)


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
