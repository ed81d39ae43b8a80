"""Augmentations from kornia: mixup, cutmix, and any of its 2-D image augmentations by name."""

from __future__ import annotations

from collections.abc import Sequence

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_augmentations() -> Sequence[ComponentSpec]:
    """Return the two that mix labels too, and the family of all others."""
    return [
        ComponentSpec("mixup", "ddrank_kornia.mixup:MixUp", "Mix pairs of images (Zhang et al. 2018)"),
        ComponentSpec(
            "cutmix", "ddrank_kornia.cutmix:CutMix", "Paste in a box of another image (Yun et al. 2019)"
        ),
        ComponentSpec("kornia/*", "ddrank_kornia.family:KorniaFamily", "Any 2-D augmentation of kornia"),
    ]
