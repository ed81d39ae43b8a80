"""Herding: real images whose mean follows that of their class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ddrank_core import Architecture, DistilledSet, RealData, component, parameter
from ddrank_methods.embedding import Embedding
from ddrank_methods.real_classes import RealClasses
from ddrank_methods.selected import in_class_order

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IMAGES_AT_ONCE = 1024
"""Images per forward pass, to bound its memory."""


@component
class Herding:
    """Pick real images of each class, one after another, so that their mean feature stays near the class's.

    Each time the image is taken, of those not taken yet, that brings the mean of all taken nearest to the
    mean of the class; of equal ones the first. Features are those of a freshly initialised network, or
    pixels: nothing is trained.

    Source: Welling, "Herding dynamical weights to learn", ICML 2009, in the form of Rebuffi et al., "iCaRL",
        CVPR 2017, algorithm 4: the form behind the rows "herding" of papers on dataset condensation since
        Zhao, Mopuri & Bilen, ICLR 2021. Deviations: an image is taken once, which algorithm 4 leaves open;
        features are not scaled to length 1; and the network whose features they are is not trained.
        PatrickZH/DeepCore's herding takes the farthest image where this takes the nearest.
    """

    space: Literal["embedding", "pixels"] = parameter(
        "whose mean is followed: the features before the classifier of the network, initialised from the "
        "seed, or the pixels themselves",
        default="embedding",
    )

    def distill(
        self,
        data: RealData,
        architecture: Architecture,
        ipc: int,
        device: str,
        seed: int,
        report: Callable[[int, int], None],
    ) -> DistilledSet:
        """Return `ipc` images per class, in class order and as they were taken, float32 in normalised space.

        The seed makes the network; pixels need none, and give the same images for every seed.

        Raises:
            ConfigError: if the network does not end in a linear classifier.
            DataError: if a class has too few training images.
        """
        import torch

        place = torch.device(device)
        real = RealClasses(data, place)
        real.check_enough(ipc)
        embed = self._features(architecture, data, place, seed)
        picked = []
        for label in range(data.num_classes):
            images = real.all_of(label)
            picked.append(images[herd(embed(images), ipc)].cpu())
            report(label + 1, data.num_classes)
        return in_class_order(torch.cat(picked), data, ipc, "herding", seed)

    def _features(
        self, architecture: Architecture, data: RealData, place: torch.device, seed: int
    ) -> Callable[[Tensor], Tensor]:
        import torch

        if self.space == "pixels":
            return lambda images: images.flatten(start_dim=1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = architecture.build(data.num_classes, data.image_shape)
        # In evaluation no image's features depend on another's, and nothing is drawn.
        embed = Embedding(network.to(place), data.num_classes, training=False)

        def features(images: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([embed(part) for part in images.split(IMAGES_AT_ONCE)])

        return features


def herd(features: Tensor, many: int) -> list[int]:
    """Return which rows of features [N, F], in the order in which they are taken; N >= `many`.

    The k-th is the row x that makes |mean - (sum of the taken + x) / k| smallest; of equal ones the first.
    """
    import torch

    rows = features.double()
    mean, sum_of_taken = rows.mean(dim=0), torch.zeros_like(rows[0])
    taken: list[int] = []
    for k in range(1, many + 1):
        distances = (k * mean - sum_of_taken - rows).square().sum(dim=1)
        distances[taken] = torch.inf
        # torch.argmin may name any of several equal ones.
        taken.append(int((distances == distances.min()).nonzero()[0]))
        sum_of_taken = sum_of_taken + rows[taken[-1]]
    return taken
