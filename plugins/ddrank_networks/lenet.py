"""The architecture `lenet`."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Literal

from ddrank_core import component, parameter
from ddrank_networks.sizes import check_images, convolved, grey_padding

if TYPE_CHECKING:
    from torch import nn


@component
class LeNet:
    """Build LeNet-5 with ReLU and max pooling: two 5 x 5 convolutions and three linear layers.

    Source: LeCun et al. 1998; VICO-UoE/DatasetCondensation, networks.py, whose checkpoints load into
    this network (`features.N.*`, `fc_1.*` to `fc_3.*`). Deviation: there it fits grey images of
    28 x 28 (padded to 32 x 32 here as there) and colour images of 32 x 32; here `fc_1` grows with
    the image.
    """

    stride: Literal[1, 2] = parameter("of the first convolution; 2 halves the image", default=1)

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Raises:
            ValueError: if the images are smaller than 16 x 16 (27 x 27 with stride 2).
        """
        from torch import nn

        channels, height, width = image_shape
        padding = grey_padding(image_shape)
        left = partial(self._left, padding)
        check_images("lenet", image_shape, left)
        features = nn.Sequential(
            nn.Conv2d(channels, 6, kernel_size=5, stride=self.stride, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        children: OrderedDict[str, nn.Module] = OrderedDict(
            features=features,
            flatten=nn.Flatten(),
            fc_1=nn.Linear(16 * left(height) * left(width), 120),
            relu_1=nn.ReLU(inplace=True),
            fc_2=nn.Linear(120, 84),
            relu_2=nn.ReLU(inplace=True),
            fc_3=nn.Linear(84, num_classes),
        )
        return nn.Sequential(children)

    def _left(self, padding: int, side: int) -> int:
        halved = convolved(side, kernel=5, stride=self.stride, padding=padding) // 2
        return convolved(halved, kernel=5) // 2
