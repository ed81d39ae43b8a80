"""The architecture `alexnet`."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Literal

from ddrank_core import component, parameter
from ddrank_networks.sizes import check_images, convolved, grey_padding

if TYPE_CHECKING:
    from torch import nn


@component
class AlexNet:
    """Build the AlexNet of the dataset-distillation literature: five convolutions, one linear layer.

    It is not torchvision's: kernels of 5 and 3, 128 to 256 channels, three poolings, no dropout.

    Source: after Krizhevsky et al. 2012; VICO-UoE/DatasetCondensation, networks.py, whose checkpoints
    load into this network (`features.N.*`, `fc.*`). Deviation: there it fits grey images of 28 x 28
    (padded to 32 x 32 here as there) and colour images of 32 x 32; here `fc` grows with the image.
    """

    stride: Literal[1, 2] = parameter("of the first convolution; 2 halves the image", default=1)

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Raises:
            ValueError: if the images are smaller than 8 x 8 (15 x 15 with stride 2).
        """
        from torch import nn

        channels, height, width = image_shape
        padding = 2 + grey_padding(image_shape)
        left = partial(self._left, padding)
        check_images("alexnet", image_shape, left)
        features = nn.Sequential(
            nn.Conv2d(channels, 128, kernel_size=5, stride=self.stride, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(128, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(192, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 192, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(192, 192, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        classifier = nn.Linear(192 * left(height) * left(width), num_classes)
        return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), fc=classifier))

    def _left(self, padding: int, side: int) -> int:
        return convolved(side, kernel=5, stride=self.stride, padding=padding) // 8
