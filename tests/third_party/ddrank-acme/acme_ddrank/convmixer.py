"""The architecture `acme/convmixer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import component, parameter

if TYPE_CHECKING:
    from torch import nn


def _not_odd(side: int) -> str | None:
    return None if side % 2 else f"must be odd, got {side}"


@component
class ConvMixer:
    """Build a ConvMixer: an image cut into patches, then blocks that all keep their size.

    Each block is a depthwise convolution with a shortcut, then a 1 x 1 convolution. Every convolution is
    followed by GELU and batch norm.

    Source: Trockman & Kolter 2022, "Patches Are All You Need?"; locuslab/convmixer, convmixer.py.
    """

    width: int = parameter("channels", default=64, minimum=1)
    depth: int = parameter("number of blocks", default=4, minimum=1)
    kernel: int = parameter("side of the depthwise kernels", default=5, minimum=1, check=_not_odd)
    patch: int = parameter("side of a patch in pixels", default=4, minimum=1)

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights.

        Raises:
            ValueError: if the images are smaller than a patch.
        """
        from torch import nn

        channels, height, width = image_shape
        if min(height, width) < self.patch:
            raise ValueError(
                f"acme/convmixer needs images of at least {self.patch} x {self.patch} pixels, "
                f"got {height} x {width}; use a smaller patch"
            )
        return nn.Sequential(
            *self._activated(nn.Conv2d(channels, self.width, self.patch, stride=self.patch)),
            *(self._block() for _ in range(self.depth)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(self.width, num_classes),
        )

    def _block(self) -> nn.Module:
        from torch import nn

        # Its class cannot be defined without torch, and this module is read without it.
        from acme_ddrank.shortcut import Shortcut

        depthwise = nn.Conv2d(
            self.width, self.width, self.kernel, groups=self.width, padding=self.kernel // 2
        )
        pointwise = nn.Conv2d(self.width, self.width, 1)
        return nn.Sequential(Shortcut(*self._activated(depthwise)), *self._activated(pointwise))

    def _activated(self, convolution: nn.Module) -> tuple[nn.Module, ...]:
        from torch import nn

        return convolution, nn.GELU(), nn.BatchNorm2d(self.width)
