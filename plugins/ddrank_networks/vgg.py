"""The architecture `vgg`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ddrank_core import component, parameter
from ddrank_networks.sizes import check_images, convolved, grey_padding

if TYPE_CHECKING:
    from torch import nn

CONVOLUTIONS: Mapping[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth -> convolutions of each of the five stages (configurations A, B, D and E of the paper)."""

MULTIPLES = (1, 2, 4, 8, 8)
"""Channels of each stage, in `width`."""


@component
class VGG:
    """Build a VGG with one linear layer: five stages of 3 x 3 convolutions, each ended by a max pooling.

    What the fifth pooling leaves is reduced by `pooling` to the classifier's input. At 32 x 32 pixels
    one value a channel is left, so that there is nothing to reduce. A grey image of 28 x 28 is padded
    to 32 x 32 by the first convolution.

    Source: Simonyan & Zisserman 2015; VICO-UoE/DatasetCondensation, networks.py, whose checkpoints
    load into this network (`features.N.*`, `classifier.*`). Deviation: there it fits only images of
    28 x 28 (grey) and 32 x 32; here larger images are averaged. `pooling: subsample` is the
    VGG11_Tiny of images of 64 x 64 in NUS-HPC-AI-Lab/DATM, which keeps the top left one of the four
    values that are left of a channel.
    """

    depth: Literal[11, 13, 16, 19] = parameter("layers with weights of the paper's network", default=11)
    width: int = parameter("channels of the first stage; the last has 8 times as many", default=64, minimum=1)
    norm: Literal["instance", "batch", "none"] = parameter(
        "instance is a group norm with one channel a group", default="instance"
    )
    pooling: Literal["average", "subsample"] = parameter(
        "of the last feature map: to its mean, or to every other value of it", default="average"
    )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Raises:
            ValueError: if the images cannot be halved five times.
        """
        from torch import nn

        extra = grey_padding(image_shape)
        check_images(f"vgg of depth {self.depth}", image_shape, lambda side: (side + 2 * extra) // 32)
        layers = self._stages(image_shape[0], extra)
        features = MULTIPLES[-1] * self.width
        if self.pooling == "average":
            layers.append(nn.AdaptiveAvgPool2d(1))
        else:
            layers.append(nn.AvgPool2d(kernel_size=1, stride=2))
            for side in image_shape[1:]:
                features *= convolved((side + 2 * extra) // 32, kernel=1, stride=2)
        children: OrderedDict[str, nn.Module] = OrderedDict(
            features=nn.Sequential(*layers),
            flatten=nn.Flatten(),
            classifier=nn.Linear(features, num_classes),
        )
        return nn.Sequential(children)

    def _stages(self, channels: int, extra_padding: int) -> list[nn.Module]:
        from torch import nn

        layers: list[nn.Module] = []
        for convolutions, multiple in zip(CONVOLUTIONS[self.depth], MULTIPLES, strict=True):
            out = multiple * self.width
            for _ in range(convolutions):
                padding = 1 if layers else 1 + extra_padding
                layers.append(nn.Conv2d(channels, out, kernel_size=3, padding=padding))
                layers += [*self._norm(out), nn.ReLU(inplace=True)]
                channels = out
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        return layers

    def _norm(self, channels: int) -> list[nn.Module]:
        from torch import nn

        match self.norm:
            case "instance":
                return [nn.GroupNorm(channels, channels)]
            case "batch":
                return [nn.BatchNorm2d(channels)]
            case "none":
                return []
