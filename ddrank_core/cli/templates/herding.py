"""Herding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ddrank_core import Architecture, DataError, DistilledSet, ImageSpace, RealData, component

if TYPE_CHECKING:
    from torch import Tensor


@component
class Herding:
    """Choose, in each class, the real images whose mean stays closest to the mean of the class.

    Source: Welling, "Herding Dynamical Weights to Learn", ICML 2009; Rebuffi et al., "iCaRL", CVPR 2017,
    algorithm 4. Deviation: distances are those of pixels and not of a network's features.
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
        """Return `ipc` images per class, in class order, float32 in [0, 1]; nothing is drawn.

        Raises:
            DataError: if a class has too few training images.
        """
        import torch

        kept = []
        for label, name in enumerate(data.class_names):
            images = data.train_images[data.train_labels == label]
            if len(images) < ipc:
                raise DataError(f"{data.source}: class '{name}' has only {len(images)} images; lower ipc")
            unit = images if images.is_floating_point() else images.float() / 255
            kept.append(unit[herded(unit.flatten(1), ipc)])
            report(label + 1, data.num_classes)
        return DistilledSet(
            images=torch.cat(kept),
            labels=torch.arange(data.num_classes).repeat_interleave(ipc),
            space=ImageSpace(kind="unit"),
            num_classes=data.num_classes,
            info={"method": "herding", "source": data.source},
        )


def herded(points: Tensor, count: int) -> list[int]:
    """Return `count` different rows of `points` [N, D], each the best to add to those before it."""
    centre, total = points.mean(dim=0), points.new_zeros(points.shape[1])
    rows: list[int] = []
    for step in range(1, count + 1):
        distance = (centre - (total + points) / step).norm(dim=1)
        distance[rows] = float("inf")
        rows.append(int(distance.argmin()))
        total = total + points[rows[-1]]
    return rows
