"""One draw per image, on the images' device and from the trial's own generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ddrank_core import Randomness


def uniform(images: Tensor, randomness: Randomness, *more: int) -> Tensor:
    """Return draws of [0, 1): float32 [B, *more]."""
    import torch

    return torch.rand(len(images), *more, generator=randomness.device, device=images.device)


def integers(images: Tensor, randomness: Randomness, count: int) -> Tensor:
    """Return draws of 0 .. count - 1: int64 [B]."""
    import torch

    return torch.randint(count, (len(images),), generator=randomness.device, device=images.device)


def happens(probability: float, images: Tensor, randomness: Randomness) -> Tensor:
    """Return True with `probability`: bool [B]."""
    return uniform(images, randomness) < probability
