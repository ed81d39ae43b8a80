"""The architecture `resnet`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ddrank_core import component, parameter
from ddrank_networks.sizes import check_images, convolved

if TYPE_CHECKING:
    from torch import nn

BLOCKS: Mapping[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth -> blocks of each of the four layers."""

SHALLOWEST_BOTTLENECK = 50

LARGEST_SMALL = 64
"""The side up to which `stem: auto` takes an image for a small one."""


@component
class ResNet:
    """Build a ResNet: a stem, four layers of residual blocks, and one linear layer.

    The stem says what happens to the image before the first block:

    - `small`: 3 x 3 convolution, stride 1; what the field uses at 32 and 64 pixels;
    - `strided`: 3 x 3 convolution, stride 2;
    - `standard`: 7 x 7 convolution, stride 2, then a 3 x 3 max pooling, stride 2; what ImageNet has;
    - `auto`: `small` where neither side of the image is over 64 pixels, else `standard`.

    With `downsampling: stride` the layers 2 to 4 halve the image by a convolution of stride 2, and the
    classifier gets each channel's mean. With `average` (the family's `_AP`) they halve it by a 2 x 2
    mean, and the classifier gets the whole last feature map.

    Source: He et al. 2016; VICO-UoE/DatasetCondensation, networks.py (`small`; both samplings), and
    GeorgeCazenavette/mtt-distillation, networks.py (`standard`; its ResNet6ImageNet is depth 10),
    whose checkpoints load into this network (`conv1.*`, `bn1.*`, `layer1.0.*`, `classifier.*`).
    Deviation: there, `small` fits only images of 28 x 28 (grey) and 32 x 32, of which it averages a
    4 x 4 feature map; here the whole map is averaged, whatever its size. `strided` is the
    ResNet18_Tiny of images of 64 x 64 in NUS-HPC-AI-Lab/DATM.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = parameter("layers with weights", default=18)
    width: int = parameter("channels of layer 1; layer 4 has 8 times as many", default=64, minimum=1)
    norm: Literal["instance", "batch"] = parameter(
        "instance is a group norm with one channel a group", default="instance"
    )
    stem: Literal["auto", "small", "strided", "standard"] = parameter(
        "small: 3 x 3, stride 1; strided: 3 x 3, stride 2; standard: 7 x 7, stride 2, and max pooling; "
        "auto: small up to 64 pixels, standard above",
        default="auto",
    )
    downsampling: Literal["stride", "average"] = parameter(
        "how layers 2 to 4 halve the image", default="stride"
    )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Raises:
            ValueError: if nothing is left of the images after the last layer, or one value a channel
                with norm: instance, which makes a constant of it.
        """
        from torch import nn

        stem = self._stem(image_shape)
        _, height, width = image_shape
        name, least = f"resnet with stem: {stem} and norm: {self.norm}", 2 if self.norm == "instance" else 1
        check_images(name, image_shape, lambda side: self._left(stem, side), least)
        averaged = self.downsampling == "average"
        children = self._stem_layers(stem, image_shape[0])
        features = self._add_blocks(children)
        if averaged:
            features *= self._left(stem, height) * self._left(stem, width)
        else:
            children["avgpool"] = nn.AdaptiveAvgPool2d(1)
        children["flatten"] = nn.Flatten()
        children["classifier"] = nn.Linear(features, num_classes)
        return nn.Sequential(children)

    def _stem(self, image_shape: tuple[int, int, int]) -> Literal["small", "strided", "standard"]:
        if self.stem == "auto":
            return "small" if max(image_shape[1:]) <= LARGEST_SMALL else "standard"
        return self.stem

    def _stem_layers(self, stem: str, channels: int) -> OrderedDict[str, nn.Module]:
        from torch import nn

        from ddrank_networks.residual import convolution, normed

        standard = stem == "standard"
        children: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=convolution(channels, self.width, 7 if standard else 3, 1 if stem == "small" else 2),
            bn1=normed(self.norm, self.width),
            relu=nn.ReLU(inplace=True),
        )
        if standard:
            children["maxpool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        return children

    def _add_blocks(self, children: OrderedDict[str, nn.Module]) -> int:
        """Add the four layers, and return the channels that come out of them."""
        from torch import nn

        from ddrank_networks.residual import BasicBlock, Bottleneck

        block = Bottleneck if self.depth >= SHALLOWEST_BOTTLENECK else BasicBlock
        averaged = self.downsampling == "average"
        channels = self.width
        for layer, blocks in enumerate(BLOCKS[self.depth]):
            width = self.width * 2**layer
            layers = []
            for index in range(blocks):
                stride = 2 if layer > 0 and index == 0 else 1
                layers.append(block(channels, width, stride, self.norm, averaged))
                channels = width * block.expansion
            children[f"layer{layer + 1}"] = nn.Sequential(*layers)
        return channels

    def _left(self, stem: str, side: int) -> int:
        """Return the side of the last feature map."""
        for _ in range({"small": 0, "strided": 1, "standard": 2}[stem]):
            side = _halved(side)
        for _ in range(3):
            side = side // 2 if self.downsampling == "average" else _halved(side)
        return side


def _halved(side: int) -> int:
    """Return a side after a convolution or pooling of stride 2, whose padding makes up for its kernel."""
    return convolved(side, kernel=3, stride=2, padding=1)
