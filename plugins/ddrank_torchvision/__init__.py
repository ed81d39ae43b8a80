"""Classifiers and augmentations of torchvision, by their own names."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_architectures() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "torchvision/*",
            "ddrank_torchvision.networks:TorchvisionNetworks",
            "Any classifier of torchvision, such as torchvision/resnet18",
        )
    ]


@hookimpl
def ddrank_augmentations() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "torchvision/*",
            "ddrank_torchvision.augmentations:TorchvisionAugmentations",
            "Any image transform of torchvision's v2 that keeps the size",
        )
    ]
