"""The augmentation `acme/cutout`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class Cutout:
    """Empty a square of every image; emptied pixels have the data set's mean colour.

    The square's middle is anywhere in the image, all places equally likely; what lies outside is cut off.

    Source: DeVries & Taylor 2017; uoguelph-mlrg/Cutout, util/cutout.py. Deviation: there, a square of an odd
    size is one smaller.
    """

    size: int = parameter("side of the square in pixels", default=8, minimum=1)

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images` [B, C, H, W] with a square of 0 in each, at a place of its own."""
        rows = self._covered(images, images.shape[2], randomness)
        columns = self._covered(images, images.shape[3], randomness)
        return Augmented(images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0))

    def _covered(self, images: Tensor, side: int, randomness: Randomness) -> Tensor:
        """Return which positions along one side the squares cover: bool [B, side]."""
        import torch

        middle = torch.randint(side, (len(images), 1), generator=randomness.device, device=images.device)
        offset = torch.arange(side, device=images.device) - (middle - self.size // 2)
        return (offset >= 0) & (offset < self.size)
