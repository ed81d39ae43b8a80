"""Differentiable siamese augmentation (Zhao & Bilen 2021), all images of a batch at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ddrank_augmentations.windows import take
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Generator, Tensor

Strategy = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]


def _not_empty(strategies: tuple[Strategy, ...]) -> str | None:
    return None if strategies else "must name at least one strategy; for no augmentation use none"


@component
class DSA:
    """Apply one, or all, of six differentiable augmentations to every batch.

    Source: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021;
    VICO-UoE/DatasetCondensation, utils.py, `DiffAugment` and `ParamDiffAug`. Its strategy string
    `color_crop_cutout_flip_scale_rotate` is `strategies` here, its aug_mode S and M are `mode`, its seed -1
    is `seed: null` and any other is `seed`; its `ratio_noise` is never used there. Affine grids have
    align_corners=True, which the original leaves to torch: it was the behaviour of the torch 1.2 that it
    asks for, and GeorgeCazenavette/mtt-distillation, utils.py, writes it out; the default has changed since.
    It makes a difference to the rotation of images that are not square, and to nothing else.
    """

    strategies: tuple[Strategy, ...] = parameter(
        "what may be, or in mode multiple is, applied, in order",
        default=("color", "crop", "cutout", "flip", "scale", "rotate"),
        check=_not_empty,
    )
    mode: Literal["single", "multiple"] = parameter(
        "single: one strategy, drawn for every batch; multiple: all of them", default="single"
    )
    siamese: bool = parameter("all images of a batch share their draws", default=False)
    seed: int | None = parameter(
        "give every batch, and all its images, the draws of this seed, as the original's siamese mode does; "
        "null: draw from the trial's randomness",
        default=None,
        minimum=0,
        below=2**63,
    )
    scale: float = parameter("each axis zooms by a factor in [1/scale, scale]", default=1.2, minimum=1)
    rotate: float = parameter("largest angle, in degrees", default=15.0, minimum=0, maximum=180)
    crop: float = parameter("largest shift, as a share of the side", default=0.125, minimum=0, maximum=1)
    cutout: float = parameter("side of the square cut out, as a share", default=0.5, minimum=0, maximum=1)
    flip: float = parameter("probability of a horizontal flip", default=0.5, minimum=0, maximum=1)
    brightness: float = parameter("width of the range of shifts around 0", default=1.0, minimum=0)
    saturation: float = parameter("largest factor of saturation", default=2.0, minimum=0)
    contrast: float = parameter("smallest factor of contrast; the largest is 1 more", default=0.5, minimum=0)

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return another view of normalised `images`, float [B, C, H, W]; gradients pass through."""
        if self.seed is not None:
            randomness = _from_seed(self.seed)
        for strategy in self._chosen(randomness):
            images = self._apply(strategy, images, randomness)
        return Augmented(images)

    def _chosen(self, randomness: Randomness) -> tuple[Strategy, ...]:
        if self.mode == "multiple":
            return self.strategies
        import torch

        # The host's generator: reading this draw never waits for the device.
        index = torch.randint(len(self.strategies), (), generator=randomness.host)
        self._advance(randomness.host)
        return (self.strategies[int(index)],)

    def _apply(self, strategy: Strategy, images: Tensor, randomness: Randomness) -> Tensor:
        apply = {
            "color": self._color,
            "crop": self._crop,
            "cutout": self._cutout,
            "flip": self._flip,
            "scale": self._scale,
            "rotate": self._rotate,
        }
        return apply[strategy](images, randomness)

    def _color(self, images: Tensor, randomness: Randomness) -> Tensor:
        half = self.brightness / 2
        images = brighten(images, self._uniform(images, randomness, -half, half))
        images = saturate(images, self._uniform(images, randomness, 0, self.saturation))
        return contrast(images, self._uniform(images, randomness, self.contrast, self.contrast + 1))

    def _crop(self, images: Tensor, randomness: Randomness) -> Tensor:
        down, right = (_share(side, self.crop) for side in images.shape[2:])
        rows = self._integers(images, randomness, -down, down + 1)
        return shift(images, rows, self._integers(images, randomness, -right, right + 1))

    def _cutout(self, images: Tensor, randomness: Randomness) -> Tensor:
        height, width = images.shape[2:]
        size = _share(height, self.cutout), _share(width, self.cutout)
        # An even box has its centre between two pixels, so one more place for it.
        rows = self._integers(images, randomness, 0, height + 1 - size[0] % 2)
        columns = self._integers(images, randomness, 0, width + 1 - size[1] % 2)
        return cut_out(images, rows, columns, size)

    def _flip(self, images: Tensor, randomness: Randomness) -> Tensor:
        return flip(images, self._uniform(images, randomness, 0, 1) < self.flip)

    def _scale(self, images: Tensor, randomness: Randomness) -> Tensor:
        horizontal = self._uniform(images, randomness, 1 / self.scale, self.scale)
        return scale(images, horizontal, self._uniform(images, randomness, 1 / self.scale, self.scale))

    def _rotate(self, images: Tensor, randomness: Randomness) -> Tensor:
        # Multiplied in the original's order: a last digit of the angle is seen far from the centre.
        turn = self._uniform(images, randomness, -0.5, 0.5) * 2 * self.rotate / 180 * math.pi
        return rotate(images, turn)

    def _uniform(self, images: Tensor, randomness: Randomness, low: float, high: float) -> Tensor:
        """Return one draw of [low, high) per image: [B], the images' dtype and device."""
        import torch

        draws = torch.rand(
            self._count(images),
            generator=randomness.device,
            dtype=images.dtype,
            device=randomness.device.device,
        )
        return self._for_all(images, randomness, low + (high - low) * draws)

    def _integers(self, images: Tensor, randomness: Randomness, low: int, high: int) -> Tensor:
        """Return one draw of low .. high - 1 per image: int64 [B] on the images' device."""
        import torch

        generator = randomness.device
        draws = torch.randint(low, high, (self._count(images),), generator=generator, device=generator.device)
        return self._for_all(images, randomness, draws)

    def _count(self, images: Tensor) -> int:
        return 1 if self.siamese or self.seed is not None else len(images)

    def _for_all(self, images: Tensor, randomness: Randomness, draws: Tensor) -> Tensor:
        self._advance(randomness.device)
        # The draws of a seed are made on the CPU; a blocking copy would make the device wait.
        return draws.to(images.device, non_blocking=True).expand(len(images))

    def _advance(self, generator: Generator) -> None:
        """Go to the next seed, as the original does after each draw (`latestseed`)."""
        if self.seed is not None:
            generator.manual_seed(generator.initial_seed() + 1)


def _from_seed(seed: int) -> Randomness:
    """Return draws that depend on nothing but a seed, made on the CPU, where the original's are the same."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return Randomness(generator, generator)


def brighten(images: Tensor, amount: Tensor) -> Tensor:
    """Add `amount` [B] to every pixel of `images` [B, C, H, W]."""
    return images + amount.view(-1, 1, 1, 1)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply every pixel's distance from its mean over the channels by `factor` [B]."""
    mean = images.mean(dim=1, keepdim=True)
    return (images - mean) * factor.view(-1, 1, 1, 1) + mean


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply every pixel's distance from its image's mean by `factor` [B]."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * factor.view(-1, 1, 1, 1) + mean


def shift(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Move the window by `rows`, `columns` (int64 [B]) down and right; zero outside the image."""
    import torch

    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device) + rows.view(-1, 1)
    column = torch.arange(width, device=images.device) + columns.view(-1, 1)
    return take(images, row, column, 0.0)


def cut_out(images: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Set a box of `size` (height, width) around `rows`, `columns` (int64 [B]) to zero.

    The box starts size // 2 before its centre and may lie partly outside the image.
    """
    height, width = images.shape[2:]
    inside_rows = _within(height, rows - size[0] // 2, size[0])
    inside_columns = _within(width, columns - size[1] // 2, size[1])
    box = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return images.masked_fill(box, 0)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror, left to right, the images where `chosen` (bool [B]) is true."""
    import torch

    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def scale(images: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    """Zoom around the centre: each output pixel reads at its position times the factors [B].

    A factor below 1 enlarges. Bilinear, zero outside.
    """
    import torch

    zero = torch.zeros_like(horizontal)
    return _warp(images, (horizontal, zero, zero, zero, vertical, zero))


def rotate(images: Tensor, radians: Tensor) -> Tensor:
    """Turn anticlockwise by `radians` [B] around the centre. Bilinear, zero outside.

    The angle is in the grid's coordinates, where both sides are 2 long: images that are not square
    are sheared a little, as in the original.
    """
    import torch

    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    return _warp(images, (cos, -sin, zero, sin, cos, zero))


def _warp(images: Tensor, matrix: tuple[Tensor, ...]) -> Tensor:
    """Resample `images` under 2 x 3 matrices, given as six tensors [B], row by row."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    theta = torch.stack(matrix, dim=1).view(-1, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=True)
    return grid_sample(images, grid, align_corners=True)


def _within(side: int, start: Tensor, length: int) -> Tensor:
    """Return bool [B, side]: which positions lie in start .. start + length - 1."""
    import torch

    position = torch.arange(side, device=start.device)
    start = start.view(-1, 1)
    return (position >= start) & (position < start + length)


def _share(side: int, ratio: float) -> int:
    """Return `ratio` of a side in pixels, rounded half up."""
    return int(side * ratio + 0.5)
