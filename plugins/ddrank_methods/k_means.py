"""k-means: each class by the centres of its clusters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ddrank_core import Architecture, DistilledSet, RealData, component, parameter
from ddrank_methods.real_classes import RealClasses
from ddrank_methods.selected import in_class_order

if TYPE_CHECKING:
    from torch import Tensor

STARTS = 10
"""Times that a class is clustered, each from another start; the tightest clustering counts."""


@component
class KMeans:
    """Cluster the pixels of each class, and take the real image nearest to each centre, or the centres.

    An image is taken once: where it is the nearest to two centres, each centre gets an image of its own so
    that the sum of the squared distances is the smallest. A class with fewer different images than clusters
    has centres that coincide. The network is not used.

    Source: scikit-learn's KMeans (k-means++, Lloyd), class by class; the baseline "k-means" of Cui et al.,
        "DC-BENCH", NeurIPS 2022. Deviation: it clusters a trained network's features, this clusters pixels.
    """

    take: Literal["nearest", "centre"] = parameter(
        "the real image nearest to each centre, or the centre itself: a mean of real images",
        default="nearest",
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
        """Return `ipc` images per class, in class order, float32 in normalised space.

        The same seed gives the same images, on every device: clusters are found on the CPU.

        Raises:
            DataError: if a class has too few training images.
        """
        import torch

        real = RealClasses(data, torch.device("cpu"))
        real.check_enough(ipc)
        draws = torch.Generator().manual_seed(seed)
        taken = []
        for label in range(data.num_classes):
            images = real.all_of(label)
            centres = cluster(
                images.flatten(start_dim=1), ipc, int(torch.randint(2**31, (), generator=draws))
            )
            if self.take == "nearest":
                taken.append(images[nearest_of_their_own(centres, images.flatten(start_dim=1))])
            else:
                taken.append(centres.view(ipc, *data.image_shape))
            report(label + 1, data.num_classes)
        return in_class_order(torch.cat(taken).view(-1, *data.image_shape), data, ipc, "k-means", seed)


def cluster(rows: Tensor, many: int, seed: int) -> Tensor:
    """Return the centres [many, F] of clusters of rows [N, F], float32 on the CPU; N >= `many`."""
    import torch
    from sklearn.cluster import KMeans as Clusters
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    clusters = Clusters(many, n_init=STARTS, random_state=seed)
    # Sums over several threads differ in their last bits from time to time.
    with threadpool_limits(1), warnings.catch_warnings():
        # It warns where centres coincide, which the class's documentation tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters.fit(rows.numpy())
    return torch.from_numpy(clusters.cluster_centers_).to(rows.dtype)


def nearest_of_their_own(centres: Tensor, rows: Tensor) -> list[int]:
    """Return for each centre [M, F] its nearest of the rows [N, F], no row twice; N >= M.

    Where two centres would share one, the sum of squared distances is the smallest that there is.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    _, chosen = linear_sum_assignment(cdist(centres.numpy(), rows.numpy(), "sqeuclidean"))
    return [int(row) for row in chosen]
