"""ddranking's names of data sets and networks, in the words of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ddrank_core.errors import ConfigError, PluginError, nearest
from ddrank_core.registry import Registry

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@attrs.frozen
class OldDataset:
    """A data set under its name in ddranking."""

    use: str
    side: int
    """Height and width of its images, where `im_size` does not say otherwise."""
    resizes: bool = False
    """Whether `im_size` is what its pictures are resized to."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """What ddranking normalises it with."""
    std: tuple[float, ...] = IMAGENET_STD


DATASETS = {
    "CIFAR10": OldDataset("cifar10", 32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
    "CIFAR100": OldDataset("cifar100", 32, mean=CIFAR10_MEAN, std=CIFAR10_STD),
    "TinyImageNet": OldDataset("tiny-imagenet", 64),
    "ImageNet1K": OldDataset("imagenet", 224, resizes=True),
    "ImageNette": OldDataset("imagenette", 128, resizes=True),
    "ImageWoof": OldDataset("imagewoof", 128, resizes=True),
    "ImageMeow": OldDataset("imagemeow", 128, resizes=True),
    "ImageSquawk": OldDataset("imagesquawk", 128, resizes=True),
    "ImageFruit": OldDataset("imagefruit", 128, resizes=True),
    "ImageYellow": OldDataset("imageyellow", 128, resizes=True),
}
"""Source: ddranking 0.2.0, ddranking/utils/data.py, get_dataset."""

_OWN_FAMILIES = ("ConvNet", "AlexNet", "ResNet", "LeNet", "MLP", "VGG")
_IN_TORCHVISION = ("AlexNet", "ResNet", "VGG")
"""The families that `stu_use_torchvision` and `tea_use_torchvision` change."""

_AT_64: Mapping[str, Mapping[str, Any]] = {
    "LeNet": {"stride": 2},
    "AlexNet": {"stride": 2},
    "ResNet": {"stem": "strided"},
    "VGG": {"pooling": "subsample"},
}
"""What ddranking's own networks have for images of 64 pixels. Source: ddranking 0.2.0, utils/networks.py."""


def dataset(name: str, registry: Registry, where: str) -> OldDataset | None:
    """Return what is known of ddranking's data set of that name; None for one of ours.

    Raises:
        ConfigError: if neither knows the name.
    """
    if name in DATASETS:
        return DATASETS[name]
    try:
        registry.find("dataset", name)
    except PluginError as error:
        known = [*DATASETS, *(entry.name for entry in registry.entries("dataset"))]
        raise ConfigError(f"{where}: dataset: no data set '{name}'{nearest(name, known)}") from error
    return None


def network(
    name: str, use_torchvision: bool, side: int, registry: Registry, where: str, key: str
) -> str | dict[str, Any]:
    """Return the network of that name as a config writes it.

    ddranking takes `ConvNet-3`, `ResNet-18-BN` and the like from the DC family's code, `AlexNet`, `ResNet`
    and `VGG` from torchvision where asked, with a small stem at 32 and 64 pixels, and any other name from
    torchvision or else timm.

    Raises:
        ConfigError: if nobody knows the name.
    """
    family, _, rest = name.partition("-")
    if use_torchvision and family in _IN_TORCHVISION:
        depth, _, norm = rest.partition("-")
        member = f"{family.lower()}{depth}"
        if family == "VGG" and norm == "BN":
            member += "_bn"
        # Only these two: ddranking leaves torchvision's VGG as it is.
        small = {"stem": "small"} if side in (32, 64) and family in ("ResNet", "AlexNet") else {}
        return {"use": f"torchvision/{member}", **small}
    tried = [name] if family in _OWN_FAMILIES else [name, f"torchvision/{name}", f"timm/{name}"]
    for candidate in tried:
        if _knows(registry, candidate):
            strided = _AT_64.get(family) if side == 64 and candidate == name else None
            return {"use": candidate, **strided} if strided else candidate
    known = [entry.name for entry in registry.entries("architecture")]
    raise ConfigError(f"{where}: {key}: no network '{name}'{nearest(name, known)}")


def _knows(registry: Registry, name: str) -> bool:
    try:
        entry = registry.find("architecture", name)
        return not entry.spec.is_family or name in registry.members(entry)
    except PluginError:
        return False
