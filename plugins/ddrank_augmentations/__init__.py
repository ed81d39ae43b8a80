"""Augmentations of the distillation literature, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_augmentations() -> Sequence[ComponentSpec]:
    """Return the augmentations that need nothing but torch."""
    return [
        ComponentSpec("none", "ddrank_augmentations.none:NoAugmentation", "The images as they are"),
        ComponentSpec(
            "dsa",
            "ddrank_augmentations.dsa:DSA",
            "Differentiable siamese augmentation (Zhao & Bilen 2021)",
        ),
        ComponentSpec(
            "dc",
            "ddrank_augmentations.dc:DC",
            "What dataset condensation evaluates MNIST with (Zhao et al. 2021)",
        ),
        ComponentSpec(
            "random-crop",
            "ddrank_augmentations.random_crop:RandomCrop",
            "Pad the image and take a window of its own size",
        ),
        ComponentSpec(
            "random-resized-crop",
            "ddrank_augmentations.random_resized_crop:RandomResizedCrop",
            "Crop a random box and resize it to the image's size",
        ),
        ComponentSpec(
            "horizontal-flip",
            "ddrank_augmentations.horizontal_flip:HorizontalFlip",
            "Mirror some of the images",
        ),
        ComponentSpec(
            "vertical-flip",
            "ddrank_augmentations.vertical_flip:VerticalFlip",
            "Turn some of the images upside down",
        ),
        ComponentSpec(
            "autoaugment",
            "ddrank_augmentations.autoaugment:AutoAugment",
            "Two operations of a learned policy (Cubuk et al. 2019)",
        ),
        ComponentSpec(
            "randaugment",
            "ddrank_augmentations.randaugment:RandAugment",
            "Some random operations of one strength (Cubuk et al. 2020)",
        ),
        ComponentSpec(
            "patch-shuffle",
            "ddrank_augmentations.patch_shuffle:PatchShuffle",
            "Reorder rows and columns of patches (RDED, Sun et al. 2024)",
        ),
    ]
