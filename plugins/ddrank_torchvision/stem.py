"""Adapts the first layers of a network to small images, and to images of one channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Classes whose first layer draws its weights by the number of inputs; the others' don't depend on it.
_DRAWN_BY_INPUTS = (
    "AlexNet",
    "DenseNet",
    "ShuffleNetV2",
    "SqueezeNet",
    "VisionTransformer",
    "SwinTransformer",
)
# Their layers work on patches or windows that the first convolution is made for.
_OF_PATCHES = ("VisionTransformer", "SwinTransformer", "MaxVit")


def set_channels(network: nn.Module, channels: int) -> None:
    """Make the first convolution take `channels` (1 to 3) instead of 3, in place.

    The weights are those of the first channels, scaled where torchvision draws them by the number of
    inputs: they are distributed as torchvision's own would be, and no random number is drawn.

    Raises:
        ValueError: for more than 3 channels.
    """
    from torch import nn

    _, first = _first_convolution(network)
    if channels == first.in_channels:
        return
    if channels > first.in_channels:
        raise ValueError(f"takes images of 1 or 3 channels, got {channels}")
    scale = (first.in_channels / channels) ** 0.5 if type(network).__name__ in _DRAWN_BY_INPUTS else 1.0
    # Changed in place: a new convolution would draw weights only to have them replaced.
    first.in_channels = channels
    first.weight = nn.Parameter(first.weight.detach()[:, :channels] * scale)
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias.detach() * scale)


def shrink(network: nn.Module) -> None:
    """Give a network the stem for small images, in place: 3 x 3 convolution, stride 1, no max-pool.

    A first convolution that is 3 x 3 already keeps its weights and gets the stride 1; a larger one is
    made anew, with torch's own initial weights. A max-pool between it and the second one is taken out.

    Raises:
        ValueError: if the network's first layers are of another form.

    Source: `resnet18_modified` of LINs-lab/RDED, synthesize/utils.py, for CIFAR and Tiny ImageNet; the
        same for other networks is ours.
    """
    from torch import nn

    name, first = _first_convolution(network)
    if type(network).__name__ in _OF_PATCHES:
        raise ValueError(
            "has no small stem, since it works on patches or windows of the image; use stem: standard"
        )
    if max(first.stride) == 1:
        raise ValueError(
            "has no small stem, since its first convolution has stride 1 as it is; use stem: standard"
        )
    if max(first.kernel_size) == 3:
        first.stride = (1, 1)
    else:
        bias = first.bias is not None
        made = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=bias)
        network.set_submodule(name, made)
    for pool in _pools_before_the_second_convolution(network):
        network.set_submodule(pool, nn.Identity())


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    from torch import nn

    return next((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d))


def _pools_before_the_second_convolution(network: nn.Module) -> list[str]:
    # torchvision registers the layers of a stem in the order in which an image passes them.
    return [name for name, kind in _until_second_convolution(network) if kind == "MaxPool2d"]


def _until_second_convolution(network: nn.Module) -> Iterator[tuple[str, str]]:
    convolutions = 0
    for name, module in network.named_modules():
        convolutions += type(module).__name__ == "Conv2d"
        if convolutions == 2:
            return
        yield name, type(module).__name__
