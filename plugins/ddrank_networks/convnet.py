"""The architecture `convnet`."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from ddrank_core import component, parameter
from ddrank_networks.sizes import grey_padding

if TYPE_CHECKING:
    from torch import nn

GROUPS = 4
"""Groups of the group norm."""


@component
class ConvNet:
    """Build the ConvNet of the dataset-distillation literature: equal blocks, then one linear layer.

    Each of `depth` blocks is a 3 x 3 convolution to `width` channels, norm, activation and a 2 x 2
    pooling with stride 2. A grey image of 28 x 28 is padded to 32 x 32 by the first convolution.

    Source: Gidaris & Komodakis 2018; VICO-UoE/DatasetCondensation, networks.py, whose checkpoints
    load into this network (`features.N.*`, `classifier.*`). Deviation: there, the first
    convolution pads by 3 for every grey image; here grey images of another size than 28 x 28 are
    padded by 1, like colour images.
    """

    depth: int = parameter("number of blocks", default=3, minimum=1)
    width: int = parameter("channels of every block", default=128, minimum=1)
    norm: Literal["instance", "batch", "layer", "group", "none"] = parameter(
        "instance is a group norm with one channel a group", default="instance"
    )
    pooling: Literal["avg", "max", "none"] = parameter("2 x 2, stride 2, after each block", default="avg")
    activation: Literal["relu", "leakyrelu", "sigmoid"] = parameter("after each norm", default="relu")

    def __attrs_post_init__(self) -> None:
        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS} for norm: group, got {self.width}")

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Its children are `features`, [B, C, H, W] -> [B, width, H', W'], `flatten` and `classifier`.

        Raises:
            ValueError: if the images are too small to be halved `depth` times.
        """
        from torch import nn

        self._check(image_shape)
        channels, height, width = image_shape
        extra = grey_padding(image_shape)
        height, width = height + 2 * extra, width + 2 * extra
        layers: list[nn.Module] = []
        for _ in range(self.depth):
            padding = 1 if layers else 1 + extra
            layers.append(nn.Conv2d(channels, self.width, kernel_size=3, padding=padding))
            layers += [*self._norm(height, width), self._activation(), *self._pooling()]
            channels = self.width
            if self.pooling != "none":
                height, width = height // 2, width // 2
        children = OrderedDict(
            features=nn.Sequential(*layers),
            flatten=nn.Flatten(),
            classifier=nn.Linear(self.width * height * width, num_classes),
        )
        return nn.Sequential(children)

    def _check(self, image_shape: tuple[int, int, int]) -> None:
        channels, height, width = image_shape
        smallest = 1 if self.pooling == "none" else 2**self.depth
        if min(height, width) + 2 * grey_padding(image_shape) < smallest:
            raise ValueError(
                f"convnet of depth {self.depth} needs images of at least {smallest} x {smallest} pixels, "
                f"got {channels} x {height} x {width}; use a smaller depth, or pooling: none"
            )

    def _norm(self, height: int, width: int) -> list[nn.Module]:
        from torch import nn

        match self.norm:
            case "instance":
                return [nn.GroupNorm(self.width, self.width)]
            case "group":
                return [nn.GroupNorm(GROUPS, self.width)]
            case "batch":
                return [nn.BatchNorm2d(self.width)]
            case "layer":
                return [nn.LayerNorm([self.width, height, width])]
            case "none":
                return []

    def _activation(self) -> nn.Module:
        from torch import nn

        match self.activation:
            case "relu":
                return nn.ReLU(inplace=True)
            case "leakyrelu":
                return nn.LeakyReLU(negative_slope=0.01, inplace=True)
            case "sigmoid":
                return nn.Sigmoid()

    def _pooling(self) -> list[nn.Module]:
        from torch import nn

        match self.pooling:
            case "avg":
                return [nn.AvgPool2d(kernel_size=2, stride=2)]
            case "max":
                return [nn.MaxPool2d(kernel_size=2, stride=2)]
            case "none":
                return []
