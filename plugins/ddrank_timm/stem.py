"""Gives a network of timm the stem that the field uses for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def shrink(network: nn.Module) -> None:
    """Make the first convolution 3 x 3 with stride 1, and take out the stem's max-pool, in place.

    A first convolution that is 3 x 3 already keeps its weights and gets the stride 1; a larger one is
    made anew, with torch's own initial weights. Later convolutions of a deep stem stay as they are.

    Raises:
        ValueError: if the network's first layers are of another form.

    Source: `resnet18_modified` of LINs-lab/RDED, synthesize/utils.py, for CIFAR and Tiny ImageNet; the
        same for other networks is ours.
    """
    name = _first_convolution(network)
    first = network.get_submodule(name)
    if max(first.stride) == 1:
        raise ValueError("its first convolution has stride 1 as it is")
    if max(first.kernel_size) == 3:
        first.stride = (1, 1)
    else:
        network.set_submodule(name, _three_by_three(first))
    _remove_pool(network, name)


def _first_convolution(network: nn.Module) -> str:
    """Return the name of the first convolution, as timm gives it for every network."""
    from timm.layers import PatchEmbed
    from torch import nn

    about = network.pretrained_cfg
    name = about.get("first_conv")
    if not isinstance(name, str):
        raise ValueError("it starts with several convolutions, or with none")
    parents = [network.get_submodule(name.rpartition(".")[0])]
    if "embed" in name.partition(".")[0] or isinstance(parents[0], PatchEmbed):
        raise ValueError("its first layer embeds patches of the image")
    if about.get("fixed_input_size"):
        raise ValueError("its layers are sized for the images that they get")
    if not isinstance(network.get_submodule(name), nn.Conv2d):
        raise ValueError("its first layer is no convolution")
    return name


def _three_by_three(first: nn.Conv2d) -> nn.Conv2d:
    from torch import nn

    # What a subclass normalises by, such as the size of its kernel, only the subclass knows.
    if type(first) is not nn.Conv2d:
        raise ValueError(f"its first convolution is a {type(first).__name__}")
    bias = first.bias is not None
    return nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=bias)


def _remove_pool(network: nn.Module, first: str) -> None:
    """Take out the pooling that follows the stem; where there is none, nothing is done."""
    from torch import nn

    # In timm's ResNets whatever stands in place of the pool, strided convolutions too, has this name.
    if hasattr(network, "maxpool"):
        network.maxpool = nn.Identity()
        return
    stem = first.partition(".")[0]
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name.partition(".")[0] != stem:
            return
        if isinstance(module, nn.MaxPool2d):
            network.set_submodule(name, nn.Identity())
            return
