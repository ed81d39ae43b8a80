"""The augmentation `horizontal-flip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_augmentations.draws import happens
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class HorizontalFlip:
    """Mirror each image from left to right, or not.

    Source: torchvision.transforms.v2.RandomHorizontalFlip.
    """

    p: float = parameter("probability that an image is mirrored", default=0.5, minimum=0, maximum=1)

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images` [B, C, H, W], some of them mirrored, each by its own draw."""
        import torch

        chosen = happens(self.p, images, randomness)
        return Augmented(torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images))
