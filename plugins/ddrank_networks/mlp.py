"""The architecture `mlp`."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import TYPE_CHECKING

from ddrank_core import component, parameter

if TYPE_CHECKING:
    from torch import nn


@component
class MLP:
    """Build a perceptron with two hidden layers of `width` units and ReLU.

    Source: VICO-UoE/DatasetCondensation, networks.py, whose checkpoints load into this network
    (`fc_1.*`, `fc_2.*`, `fc_3.*`). Deviation: there it fits grey images of 28 x 28 and colour
    images of 32 x 32; here any.
    """

    width: int = parameter("units of both hidden layers", default=128, minimum=1)

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return the network, [B, C, H, W] -> logits [B, num_classes], with torch's initial weights."""
        from torch import nn

        children: OrderedDict[str, nn.Module] = OrderedDict(
            flatten=nn.Flatten(),
            fc_1=nn.Linear(prod(image_shape), self.width),
            relu_1=nn.ReLU(inplace=True),
            fc_2=nn.Linear(self.width, self.width),
            relu_2=nn.ReLU(inplace=True),
            fc_3=nn.Linear(self.width, num_classes),
        )
        return nn.Sequential(children)
