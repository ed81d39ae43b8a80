"""No augmentation, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Augmented, Randomness, component

if TYPE_CHECKING:
    from torch import Tensor


@component
class NoAugmentation:
    """Leave the images as they are."""

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images` [B, C, H, W] themselves; draws nothing."""
        return Augmented(images)
