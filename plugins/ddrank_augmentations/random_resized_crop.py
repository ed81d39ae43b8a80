"""The augmentation `random-resized-crop`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ddrank_augmentations.draws import uniform
from ddrank_core import Augmented, Randomness, component, crop_and_resize, parameter

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 10
"""How often a box may fall outside the image before the largest central one is taken."""


def _range_fault(values: tuple[float, float]) -> str | None:
    low, high = values
    return (
        None if 0 < low <= high else f"must be two numbers above 0, the smaller first, got {low:g}, {high:g}"
    )


def _share_fault(values: tuple[float, float]) -> str | None:
    return _range_fault(values) or (None if values[1] <= 1 else f"must be at most 1, got {values[1]:g}")


@component
class RandomResizedCrop:
    """Crop a box of random area and proportions from each image, and resize it to the image's size.

    Bilinear. What torchvision calls `antialias` has no effect here: nothing is made smaller.

    Source: torchvision.transforms.v2.RandomResizedCrop (Szegedy et al. 2015), with the image's own size:
    up to ten boxes are drawn, and where none fits, the largest central box within `ratio` is taken. The area
    is drawn evenly from `scale`, the proportions evenly on a logarithmic scale.
    """

    scale: tuple[float, float] = parameter(
        "smallest and largest area of the box, as shares of the image's",
        default=(0.08, 1.0),
        check=_share_fault,
    )
    ratio: tuple[float, float] = parameter(
        "smallest and largest width of the box, divided by its height",
        default=(3 / 4, 4 / 3),
        check=_range_fault,
    )

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return a crop of each of `images`, float [B, C, H, W], in the same size."""
        return Augmented(crop_and_resize(images, self.boxes(images, randomness)))

    def boxes(self, images: Tensor, randomness: Randomness) -> Tensor:
        """Draw one box per image: int64 [B, 4], top, left, height and width in pixels."""
        areas = _between(uniform(images, randomness, TRIES), *self.scale)
        ratios = _between(uniform(images, randomness, TRIES), *map(math.log, self.ratio)).exp()
        place = uniform(images, randomness, 2)
        return chosen_boxes(areas, ratios, place, tuple(images.shape[2:]), self.ratio)


def chosen_boxes(
    areas: Tensor, ratios: Tensor, place: Tensor, size: tuple[int, int], limits: tuple[float, float]
) -> Tensor:
    """Return the first box of each image that fits into it, at a random place: int64 [B, 4].

    `areas` [B, tries] are shares of the area of an image of `size` (height, width); `ratios` [B, tries] are
    width over height; `place` [B, 2] in [0, 1) is how far down and right of what is left. Where no box fits:
    the largest one within `limits`, in the centre.
    """
    import torch

    height, width = size
    widths = (areas * (height * width) * ratios).sqrt().round().long()
    heights = (areas * (height * width) / ratios).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    # Of equal values argmax returns the first.
    first = fits.long().argmax(dim=1, keepdim=True)
    sides = torch.cat([heights.gather(1, first), widths.gather(1, first)], dim=1)
    left_over = torch.stack([height - sides[:, 0], width - sides[:, 1]], dim=1)
    corner = (place * (left_over + 1)).long().minimum(left_over)
    drawn = torch.cat([corner, sides], dim=1)
    # Filled one by one: a tensor made of a list would be copied to the device, which waits for it.
    central = [torch.full_like(drawn[:, 0], value) for value in _central(size, limits)]
    return torch.where(fits.any(dim=1, keepdim=True), drawn, torch.stack(central, dim=1))


def _central(size: tuple[int, int], limits: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return the largest central box of an image whose proportions are within `limits`."""
    height, width = size
    narrowest, widest = limits
    if width / height < narrowest:
        height = round(width / narrowest)
    elif width / height > widest:
        width = round(height * widest)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws
