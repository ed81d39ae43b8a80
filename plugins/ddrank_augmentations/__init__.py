"""Augmentations of the distillation literature: none, DSA's, DC's."""

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
    ]
