"""Gaussian noise: images that know nothing of the data but its mean and spread."""

from __future__ import annotations

from collections.abc import Callable

from ddrank_core import Architecture, DistilledSet, RealData, component
from ddrank_methods.selected import in_class_order


@component
class Noise:
    """Draw every pixel from a normal distribution with its channel's mean and standard deviation.

    Pixels are clipped to [0, 1], so that a channel with a large spread ends up with a somewhat smaller one.
    The labels carry nothing: what a network learns from such a set, its recipe and its teacher bring. The
    network is not used.
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
        """
        import torch

        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
        draws = torch.Generator().manual_seed(seed)
        noise = torch.randn(data.num_classes * ipc, *data.image_shape, generator=draws)
        unit = (mean + std * noise).clamp(0, 1)
        report(1, 1)
        return in_class_order((unit - mean) / std, data, ipc, "noise", seed)
