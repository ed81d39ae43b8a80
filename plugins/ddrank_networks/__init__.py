"""The project's own networks."""

from __future__ import annotations

from ddrank_core import ComponentSpec, hookimpl
from ddrank_networks.short_names import short_names


@hookimpl
def ddrank_architectures() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            "convnet",
            "ddrank_networks.convnet:ConvNet",
            "The ConvNet that dataset distillation is compared with (Gidaris & Komodakis 2018)",
        ),
        ComponentSpec("mlp", "ddrank_networks.mlp:MLP", "A perceptron with two hidden layers"),
        ComponentSpec("lenet", "ddrank_networks.lenet:LeNet", "LeNet-5 with ReLU (LeCun et al. 1998)"),
        ComponentSpec(
            "alexnet",
            "ddrank_networks.alexnet:AlexNet",
            "The AlexNet of dataset distillation, for small images (after Krizhevsky et al. 2012)",
        ),
        ComponentSpec(
            "vgg", "ddrank_networks.vgg:VGG", "VGG with one linear layer (Simonyan & Zisserman 2015)"
        ),
        ComponentSpec(
            "resnet",
            "ddrank_networks.resnet:ResNet",
            "ResNet, with instance or batch norm and a stem for small or large images (He et al. 2016)",
        ),
        *short_names(),
    ]
