"""Mixup (Zhang et al. 2018), computed by kornia."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ddrank_core import Augmented, Mixing, Randomness, component, parameter
from ddrank_kornia.draws import Per, partners, shares

if TYPE_CHECKING:
    from torch import Tensor


@component
class MixUp:
    """Mix every image, and its label, with another image of the batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018;
    facebookresearch/mixup-cifar10, train.py. kornia's `RandomMixUpV2` mixes the images; the shares are
    drawn here, because kornia draws them uniformly and from torch's global generator.
    """

    space: ClassVar[Literal["unit"]] = "unit"
    mixes: ClassVar[bool] = True

    alpha: float = parameter("the images' shares are Beta(alpha, alpha)", default=1.0, above=0)
    per: Per = parameter("batch: one share for all images, as published; image: one each", default="batch")

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return mixed `images`, float [B, C, H, W], and each original's share."""
        batch = len(images)
        partner = partners(batch, randomness.device)
        count = 1 if self.per == "batch" else batch
        weight = shares(self.alpha, count, randomness.device).expand(batch)
        return Augmented(mix(images, partner, weight), Mixing(partner, weight))


def mix(images: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Return `weight` [B] parts of each image and 1 - weight parts of the image `partner` [B]."""
    mixed: Tensor = _kornia().apply_transform(
        images, {"mixup_pairs": partner, "mixup_lambdas": (1 - weight).to(images.dtype)}
    )
    return mixed


@functools.cache
def _kornia() -> Any:
    from kornia.augmentation import RandomMixUpV2

    return RandomMixUpV2()
