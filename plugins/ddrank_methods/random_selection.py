"""Random selection: real images as they are, the baseline of every distillation method."""

from __future__ import annotations

from collections.abc import Callable

from ddrank_core import Architecture, DataError, DistilledSet, ImageSpace, RealData, component
from ddrank_methods.real_classes import RealClasses


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
        if real.smallest() < ipc:
            raise DataError(
                f"{data.source}: a class has only {real.smallest()} training images, too few to draw "
                f"{ipc} different ones; lower ipc"
            )
        drawn = real.draw(ipc, torch.Generator().manual_seed(seed))
        report(1, 1)
        return DistilledSet(
            images=torch.cat(drawn),
            labels=torch.arange(data.num_classes).repeat_interleave(ipc),
            space=ImageSpace(kind="normalised", mean=data.mean, std=data.std),
            num_classes=data.num_classes,
            info={"method": "random", "seed": seed, "source": data.source},
        )
