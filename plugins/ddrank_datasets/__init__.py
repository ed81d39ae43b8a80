"""Real data sets: one that the package brings, those that the field knows, and two ways to bring your own."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl
from ddrank_datasets.imagenet_subsets import SUBSETS

_SUMMARIES = {
    "digits": ("digits:Digits", "Handwritten digits of scikit-learn, 8x8 grey, embedded"),
    "mnist": ("mnist:MNIST", "MNIST handwritten digits, 28x28 grey"),
    "fashion-mnist": ("fashion_mnist:FashionMNIST", "Fashion-MNIST, clothes, 28x28 grey"),
    "cifar10": ("cifar10:CIFAR10", "CIFAR-10, 32x32 colour, 10 classes"),
    "cifar100": ("cifar100:CIFAR100", "CIFAR-100, 32x32 colour, 100 classes"),
    "svhn": ("svhn:SVHN", "SVHN house numbers, 32x32 colour, 10 classes"),
    "tiny-imagenet": ("tiny_imagenet:TinyImageNet", "TinyImageNet, 64x64 colour, 200 classes"),
    "imagenet": ("imagenet:ImageNet", "ImageNet of ILSVRC 2012, 1,000 classes or some of them, any size"),
    "image-folder": ("image_folder:ImageFolder", "Pictures in one folder per class"),
    "arrays": ("arrays:Arrays", "Images and labels in one .npz or .pt file"),
}

_SUBSET_SIZE = 128
"""MTT's, and of those who compare with it."""


@hookimpl
def ddrank_datasets() -> list[ComponentSpec]:
    whole = [
        ComponentSpec(name, f"ddrank_datasets.{target}", summary)
        for name, (target, summary) in _SUMMARIES.items()
    ]
    parts = [
        ComponentSpec(
            name,
            "ddrank_datasets.imagenet:ImageNet",
            f"Ten classes of ImageNet, {_SUBSET_SIZE}x{_SUBSET_SIZE} colour",
            preset={"classes": list(classes), "size": _SUBSET_SIZE},
        )
        for name, classes in SUBSETS.items()
    ]
    return whole + parts
