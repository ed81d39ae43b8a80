"""How large an image must be for a network, and what is left of it after a layer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

ImageShape = tuple[int, int, int]
"""Channels, height, width."""


def grey_padding(image_shape: ImageShape) -> int:
    """Return how much more the first convolution pads: 2 where that makes a grey 28 x 28 image 32 x 32.

    Source: VICO-UoE/DatasetCondensation, networks.py. Deviation: it pads so for every grey image,
    which puts an empty frame around those that have 32 x 32 pixels or more.
    """
    return 2 if image_shape == (1, 28, 28) else 0


def convolved(side: int, *, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Return the side of an image after a convolution or pooling; below 1 where it does not fit.

    >>> convolved(224, kernel=7, stride=2, padding=3)
    112
    """
    return (side + 2 * padding - kernel) // stride + 1


def check_images(network: str, image_shape: ImageShape, left: Callable[[int], int], least: int = 1) -> None:
    """Refuse images of which `left` pixels a side, at the end of the network, are below `least`.

    Raises:
        ValueError: one line with the smallest images that the network takes.
    """
    channels, height, width = image_shape
    if left(min(height, width)) < least:
        smallest = next(side for side in count(1) if left(side) >= least)
        raise ValueError(
            f"{network} needs images of at least {smallest} x {smallest} pixels, "
            f"got {channels} x {height} x {width}"
        )
