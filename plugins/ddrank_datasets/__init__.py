"""Real data sets: one that the package brings, four that the field knows, and two ways to bring your own."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl


@hookimpl
def ddrank_datasets() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "digits",
            "ddrank_datasets.digits:Digits",
            "Handwritten digits of scikit-learn, 8x8 grey, embedded",
        ),
        ComponentSpec("mnist", "ddrank_datasets.mnist:MNIST", "MNIST handwritten digits, 28x28 grey"),
        ComponentSpec(
            "fashion-mnist",
            "ddrank_datasets.fashion_mnist:FashionMNIST",
            "Fashion-MNIST, clothes, 28x28 grey",
        ),
        ComponentSpec("cifar10", "ddrank_datasets.cifar10:CIFAR10", "CIFAR-10, 32x32 colour, 10 classes"),
        ComponentSpec(
            "cifar100", "ddrank_datasets.cifar100:CIFAR100", "CIFAR-100, 32x32 colour, 100 classes"
        ),
        ComponentSpec(
            "image-folder", "ddrank_datasets.image_folder:ImageFolder", "Pictures in one folder per class"
        ),
        ComponentSpec("arrays", "ddrank_datasets.arrays:Arrays", "Images and labels in one .npz file"),
    ]
