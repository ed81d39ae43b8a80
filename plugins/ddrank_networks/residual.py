"""The layers of `resnet`. Imports torch, and is itself imported when a network is built."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["instance", "batch"]


def normed(norm: Norm, channels: int) -> nn.Module:
    """Return the norm of `channels` feature maps; instance is a group norm with one channel a group."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(channels, channels)


def convolution(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that changes the image's size by its stride only."""
    return nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)


def shortcut(channels: int, out: int, stride: int, norm: Norm, averaged: bool) -> nn.Sequential:
    """Return what brings a block's input to the shape of its output; nothing where it has it.

    Its norm is child 1, or 2 if `averaged`, as in the original's checkpoints.
    """
    if stride == 1 and channels == out:
        return nn.Sequential()
    if not averaged:
        return nn.Sequential(convolution(channels, out, 1, stride), normed(norm, out))
    # The original halves here even where stride is 1, which does not fit the block's other branch.
    return nn.Sequential(convolution(channels, out, 1), nn.AvgPool2d(stride), normed(norm, out))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, [B, channels, H, W] -> [B, width, H / stride, W / stride].

    If `averaged`, a mean over stride x stride pixels after the first activation takes the place of
    the first convolution's stride.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, channels: int, width: int, stride: int, norm: Norm, averaged: bool) -> None:
        super().__init__()
        self.conv1 = convolution(channels, width, 3, 1 if averaged else stride)
        self.bn1 = normed(norm, width)
        self.halving = nn.AvgPool2d(stride) if averaged else nn.Identity()
        self.conv2 = convolution(width, width, 3)
        self.bn2 = normed(norm, width)
        self.shortcut = shortcut(channels, width, stride, norm, averaged)

    def forward(self, images: Tensor) -> Tensor:
        out = self.halving(functional.relu(self.bn1(self.conv1(images))))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(images))


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 around a shortcut; four times `width` channels come out.

    The stride is the 3 x 3 convolution's. If `averaged`, a mean over stride x stride pixels after its
    activation takes its place.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, channels: int, width: int, stride: int, norm: Norm, averaged: bool) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = convolution(channels, width, 1)
        self.bn1 = normed(norm, width)
        self.conv2 = convolution(width, width, 3, 1 if averaged else stride)
        self.bn2 = normed(norm, width)
        self.halving = nn.AvgPool2d(stride) if averaged else nn.Identity()
        self.conv3 = convolution(width, out, 1)
        self.bn3 = normed(norm, out)
        self.shortcut = shortcut(channels, out, stride, norm, averaged)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(images)))
        out = self.halving(functional.relu(self.bn2(self.conv2(out))))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + self.shortcut(images))
