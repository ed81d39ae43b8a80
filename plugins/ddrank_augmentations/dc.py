"""The augmentation that dataset condensation (Zhao et al. 2021) evaluates with, all images at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ddrank_augmentations.spline import rotate
from ddrank_augmentations.windows import take
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor

Strategy = Literal["crop", "scale", "rotate", "noise"]


def _not_empty(strategies: tuple[Strategy, ...]) -> str | None:
    return None if strategies else "must name at least one strategy; for no augmentation use none"


@component
class DC:
    """Apply to every image one augmentation, drawn for that image.

    The defaults are the original's for MNIST; for networks with batch norm it uses crop and noise, and
    for everything else no augmentation at all.

    Source: Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021;
    VICO-UoE/DatasetCondensation, utils.py, `augment`. Deviation: the width of an image that is not square
    scales with the width; the original takes the height for both.
    """

    strategies: tuple[Strategy, ...] = parameter(
        "what an image may get", default=("crop", "scale", "rotate"), check=_not_empty
    )
    crop: int = parameter("pixels padded on every side before the crop", default=4, minimum=1)
    scale: float = parameter(
        "each side is resized by a factor in [1 - scale, 1 + scale)", default=0.2, minimum=0, below=1
    )
    rotate: int = parameter(
        "whole degrees, from -rotate up to but without rotate", default=45, minimum=1, maximum=180
    )
    noise: float = parameter("standard deviation of the added noise", default=0.001, minimum=0)

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return another view of normalised `images`, float [B, C, H, W].

        Every strategy is computed for the whole batch and each image takes its own: that keeps the choice
        on the device.
        """
        import torch

        chosen = self._integers(images, randomness, 0, len(self.strategies))
        result = images
        for index, strategy in enumerate(self.strategies):
            view = self._apply(strategy, images, randomness)
            result = torch.where((chosen == index).view(-1, 1, 1, 1), view, result)
        return Augmented(result)

    def _apply(self, strategy: Strategy, images: Tensor, randomness: Randomness) -> Tensor:
        apply = {
            "crop": self._crop,
            "scale": self._scale,
            "rotate": self._rotate,
            "noise": self._noise,
        }
        return apply[strategy](images, randomness)

    def _crop(self, images: Tensor, randomness: Randomness) -> Tensor:
        rows = self._integers(images, randomness, 0, 2 * self.crop)
        return crop(images, rows, self._integers(images, randomness, 0, 2 * self.crop), self.crop)

    def _scale(self, images: Tensor, randomness: Randomness) -> Tensor:
        heights = self._lengths(images, randomness, images.shape[2])
        return scale(images, heights, self._lengths(images, randomness, images.shape[3]))

    def _rotate(self, images: Tensor, randomness: Randomness) -> Tensor:
        return rotate(images, self._integers(images, randomness, -self.rotate, self.rotate), images.mean())

    def _noise(self, images: Tensor, randomness: Randomness) -> Tensor:
        import torch

        return images + self.noise * torch.randn(
            images.shape, generator=randomness.device, dtype=images.dtype, device=images.device
        )

    def _integers(self, images: Tensor, randomness: Randomness, low: int, high: int) -> Tensor:
        """Return one draw of low .. high - 1 per image: int64 [B]."""
        import torch

        return torch.randint(low, high, (len(images),), generator=randomness.device, device=images.device)

    def _lengths(self, images: Tensor, randomness: Randomness, side: int) -> Tensor:
        """Return one resized side per image, rounded down, at least 1: int64 [B]."""
        import torch

        draws = torch.rand(len(images), generator=randomness.device, device=images.device)
        return ((1 - self.scale + 2 * self.scale * draws) * side).long().clamp(min=1)


def crop(images: Tensor, rows: Tensor, columns: Tensor, margin: int) -> Tensor:
    """Pad by `margin` pixels with the batch's mean per channel and take the window at `rows`, `columns`.

    `images` [B, C, H, W]; offsets int64 [B] in the padded image, where `margin` is the unmoved window.
    """
    import torch

    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device) + rows.view(-1, 1) - margin
    column = torch.arange(width, device=images.device) + columns.view(-1, 1) - margin
    return take(images, row, column, images.mean(dim=(0, 2, 3), keepdim=True))


def scale(images: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Resize each image to its own height and width (int64 [B]), then crop or zero-pad around the centre.

    Nearest neighbour, with the very source pixels of `interpolate(mode="nearest")`. Returns [B, C, H, W].
    """
    height, width = images.shape[2:]
    # The original centres in a square canvas that holds both; its side decides how halves round.
    canvas = heights.maximum(widths).clamp(min=max(height, width))
    return take(images, _nearest(height, heights, canvas), _nearest(width, widths, canvas), 0.0)


def _nearest(side: int, resized: Tensor, canvas: Tensor) -> Tensor:
    """Return the source position of each of `side` output positions, -1 in the padding: int64 [B, side]."""
    import torch

    before, cropped = (canvas - resized) // 2, (canvas - side) // 2
    position = torch.arange(side, device=resized.device) + (cropped - before).view(-1, 1)
    # float32, as torch's own kernel computes it: in float64 some positions round to another pixel.
    ratio = side / resized.float().view(-1, 1)
    source = (position.float() * ratio).floor().long().clamp(max=side - 1)
    inside = (position >= 0) & (position < resized.view(-1, 1))
    return torch.where(inside, source, -1)
