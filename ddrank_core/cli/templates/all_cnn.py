"""The all convolutional net."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import component, parameter

if TYPE_CHECKING:
    from torch import nn


@component
class AllCNN:
    """Build a network of convolutions alone: strides instead of pooling, a mean instead of linear layers.

    Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015, All-CNN-C.
    Deviations: no dropout, since trials that draw in the forward pass cannot be trained at once; every 3 x 3
    convolution is padded, so that small images fit; no ReLU on the logits; initial weights of He et al. 2015.
    """

    width: int = parameter(
        "channels of the first three convolutions; the next five have twice as many", default=96, minimum=1
    )

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes]; it takes images of any size."""
        from torch import nn

        narrow, wide = self.width, 2 * self.width
        inputs = image_shape[0]
        layers: list[nn.Module] = []
        for outputs, kernel, stride in (
            *((narrow, 3, 1), (narrow, 3, 1), (narrow, 3, 2)),
            *((wide, 3, 1), (wide, 3, 1), (wide, 3, 2)),
            *((wide, 3, 1), (wide, 1, 1), (num_classes, 1, 1)),
        ):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU()]
            inputs = outputs
        return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
