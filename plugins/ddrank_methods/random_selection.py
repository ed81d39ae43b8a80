"""Random selection: real images as they are, the baseline of every distillation method."""

from __future__ import annotations

from collections.abc import Callable

from ddrank_core import Architecture, DistilledSet, RealData, component
from ddrank_methods.real_classes import RealClasses
from ddrank_methods.selected import in_class_order


@component
class RandomSelection:
    """Draw real training images of each class, without replacement and uniformly.

    Every class gets as many, whatever its share of the training set. The network is not used.

    Source: the rows "random" of Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching",
        ICLR 2021, table 1, and of the papers that follow it; VICO-UoE/DatasetCondensation, main.py,
        get_images.
    """

    def distill(
        self,
        data: RealData,
        architecture: Architecture,
        ipc: int,
        device: str,
        seed: int,
        report: Callable[[int, int], None],
    ) -> DistilledSet:
        """Return `ipc` images per class, in class order, float32 in normalised space.

        The same seed draws the same images, on every device.

        Raises:
            DataError: if a class has too few training images.
        """
        import torch

        real = RealClasses(data, torch.device("cpu"))
        real.check_enough(ipc)
        drawn = real.draw(ipc, torch.Generator().manual_seed(seed))
        report(1, 1)
        return in_class_order(torch.cat(drawn), data, ipc, "random", seed)
