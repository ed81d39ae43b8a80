"""The names that networks have in the literature's code: each a component with parameters set.

Two families of names, and no name is in both with two meanings:

- the DC family's (`ConvNetD3`, `ResNet18BN_AP`), as `get_network` of VICO-UoE/DatasetCondensation
  (utils.py) and of its followers GeorgeCazenavette/mtt-distillation (utils.py; deeper and wider
  ConvNets, ConvNetKIP) and NUS-HPC-AI-Lab/DATM (utils/utils_baseline.py; ConvNetD4BN, `_Tiny`) read
  them, and the other functions of their networks.py (VGG13, ResNet50, ResNet18ImageNet);
- ddranking's (`ConvNet-3`, `VGG-11-BN`), which its docs call MODEL-DEPTH-NORM; without a norm they
  have the DC family's, instance norm, and ConvNets are 128 wide, with average pooling and ReLU.

Where the two disagree, or ddranking 0.2.0 (utils/model.py) with itself:

- It reads `BN` only. `ConvNet-3-GN`, `-LN` and `-NN` give it instance norm, without a word; here they
  are what they say, as `ConvNetGN`, `ConvNetLN` and `ConvNetNN` are in the DC family.
- It stops with an error at `LeNet-BN`, `AlexNet-BN` and `MLP-BN`, and neither family has such
  networks, so that there are no such names here. It knows no ResNets but 18, 34 and 50.
- `AlexNet`, `LeNet`, `MLP`: at 32 x 32 both mean the same. For images of 64 x 64 ddranking's
  LeNet, AlexNet and ResNet-N take a first convolution of stride 2, and its VGG-N keeps one value of
  four; those are `LeNet_Tiny`, `AlexNet_Tiny`, `ResNet18_Tiny` and `VGG11_Tiny` of DATM, under whose
  names, or with `stride: 2`, `stem: strided` and `pooling: subsample`, they are had here. With
  `use_torchvision` its ResNet-18 has stride 1 at 64 x 64, as most methods have it, and `ResNet-18`
  has here. Other sizes than 32 and 64 stop it with an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddrank_core import ComponentSpec

CLASSES: Mapping[str, str] = {
    "convnet": "ConvNet",
    "mlp": "MLP",
    "lenet": "LeNet",
    "alexnet": "AlexNet",
    "vgg": "VGG",
    "resnet": "ResNet",
}

NORMS: Mapping[str, str] = {
    "BN": "batch",
    "IN": "instance",
    "LN": "layer",
    "GN": "group",
    "NN": "none",
}

CONVNET: Mapping[str, Any] = {
    "depth": 3,
    "width": 128,
    "norm": "instance",
    "pooling": "avg",
    "activation": "relu",
}
"""`get_default_convnet_setting` of the DC family."""

CONVNET_DEPTHS = range(1, 9)
VGG_DEPTHS = (11, 13, 16, 19)
RESNET_DEPTHS = (10, 18, 34, 50, 101, 152)

Named = tuple[str, str, Mapping[str, Any]]
"""A short name, the component's name and its parameters."""


def short_names() -> list[ComponentSpec]:
    """Return a manifest's line for each short name."""
    return [_spec(*named) for named in (*_of_both(), *_of_ddranking(), *_of_dc())]


def _spec(name: str, component: str, preset: Mapping[str, Any]) -> ComponentSpec:
    parameters = ", ".join(f"{key}: {value}" for key, value in preset.items())
    target = f"ddrank_networks.{component}:{CLASSES[component]}"
    return ComponentSpec(name, target, f"Short for {component} with {parameters}", preset=preset)


def _of_both() -> Iterator[Named]:
    yield "MLP", "mlp", {"width": 128}
    yield "LeNet", "lenet", {"stride": 1}
    yield "AlexNet", "alexnet", {"stride": 1}


def _of_ddranking() -> Iterator[Named]:
    for depth in CONVNET_DEPTHS:
        yield f"ConvNet-{depth}", "convnet", {**CONVNET, "depth": depth}
        for tag, norm in NORMS.items():
            yield f"ConvNet-{depth}-{tag}", "convnet", {**CONVNET, "depth": depth, "norm": norm}
    for component, prefix, depths in (("vgg", "VGG", VGG_DEPTHS), ("resnet", "ResNet", RESNET_DEPTHS)):
        for depth in depths:
            yield f"{prefix}-{depth}", component, {"depth": depth, "norm": "instance"}
            for tag in ("BN", "IN"):
                yield f"{prefix}-{depth}-{tag}", component, {"depth": depth, "norm": NORMS[tag]}


def _of_dc() -> Iterator[Named]:
    yield from _convnets_of_dc()
    for depth in VGG_DEPTHS:
        yield f"VGG{depth}", "vgg", {"depth": depth, "norm": "instance"}
    yield "VGG11BN", "vgg", {"depth": 11, "norm": "batch"}
    yield "VGG11_Tiny", "vgg", {"depth": 11, "norm": "instance", "pooling": "subsample"}
    for depth in (18, 34, 50, 101, 152):
        yield f"ResNet{depth}", "resnet", {"depth": depth, "norm": "instance"}
    for tag, norm in (("", "instance"), ("BN", "batch")):
        preset = {"depth": 18, "norm": norm}
        if tag:
            yield f"ResNet18{tag}", "resnet", preset
        yield f"ResNet18{tag}_AP", "resnet", {**preset, "downsampling": "average"}
        yield f"ResNet18{tag}_Tiny", "resnet", {**preset, "stem": "strided"}
    yield "ResNet18ImageNet", "resnet", {"depth": 18, "norm": "instance", "stem": "standard"}
    # Called 6 by its authors; with four blocks of two convolutions it is what others call 10.
    yield "ResNet6ImageNet", "resnet", {"depth": 10, "norm": "instance", "stem": "standard"}
    yield "MLP_Tiny", "mlp", {"width": 128}
    yield "LeNet_Tiny", "lenet", {"stride": 2}
    yield "AlexNet_Tiny", "alexnet", {"stride": 2}


def _convnets_of_dc() -> Iterator[Named]:
    variants: dict[str, Mapping[str, Any]] = {
        "": {},
        **{f"D{depth}": {"depth": depth} for depth in CONVNET_DEPTHS},
        **{f"W{width}": {"width": width} for width in (32, 64, 128, 256, 512, 1024)},
        "AS": {"activation": "sigmoid"},
        "AR": {"activation": "relu"},
        "AL": {"activation": "leakyrelu"},
        **{tag: {"norm": norm} for tag, norm in NORMS.items()},
        "NP": {"pooling": "none"},
        "MP": {"pooling": "max"},
        "AP": {"pooling": "avg"},
        "D4BN": {"depth": 4, "norm": "batch"},
        "KIP": {"width": 1024, "norm": "none"},
    }
    for tag, changed in variants.items():
        yield f"ConvNet{tag}", "convnet", {**CONVNET, **changed}
