"""Images that live on the device, handed out by index without a round trip to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ddrank_core.types import SoftKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@attrs.frozen(eq=False)
class Normaliser:
    """Between [0, 1] and the data set's normalised space, both [B, C, H, W] on one device."""

    mean: Tensor
    """float32 [1, C, 1, 1]."""
    std: Tensor

    def normalise(self, unit: Tensor) -> Tensor:
        """Return (unit - mean) / std."""
        return (unit - self.mean) / self.std

    def to_unit(self, normalised: Tensor) -> Tensor:
        """Return normalised * std + mean; not clipped, since distilled images leave [0, 1]."""
        return normalised * self.std + self.mean


def normaliser(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Normaliser:
    """Return the normaliser of a data set's statistics."""
    import torch

    def shaped(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)

    return Normaliser(shaped(mean), shaped(std))


@attrs.frozen(eq=False, kw_only=True)
class ImageSet:
    """Labelled images on the device. uint8 or unit-range images are normalised as they are handed out."""

    images: Tensor
    """[N, C, H, W]: float32 already normalised, or uint8 / float32 in [0, 1] with `normaliser` set."""
    labels: Tensor
    """int64 [N]."""
    soft: Tensor | None = None
    """float32 [N, K]."""
    soft_kind: SoftKind = "logits"
    normaliser: Normaliser | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor | slice) -> Tensor:
        """Return the images at `index`, normalised float32."""
        images = self.images[index]
        if self.normaliser is None:
            return images
        unit = images.float() / 255 if not images.is_floating_point() else images
        return self.normaliser.normalise(unit)
