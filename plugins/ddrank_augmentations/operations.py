"""The operations of AutoAugment and RandAugment, each image of a batch under its own.

They work on images of 256 levels, as the pictures are that both were searched on and are used with:
float tensors that hold whole numbers from 0 to 255. Every operation is computed for the whole batch and each
image takes its own, so that the choice stays on the device.

Source: torchvision.transforms.v2, `_auto_augment.py` and `functional`, for uint8 tensors of 1 or 3 channels
with nearest interpolation and no fill (zeros); rounded and truncated where that does it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAMES = (
    "identity",
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "invert",
)
CODE = {name: code for code, name in enumerate(NAMES)}

SIGNED = NAMES[1:10]
"""Those whose magnitude may be turned around."""


def magnitudes(bins: int, size: tuple[int, int]) -> dict[str, tuple[float, ...]]:
    """Return operation -> its strength at each of `bins` (at least 2) magnitudes, for images of `size`.

    Shears are tangents, translations pixels, rotations degrees; brightness, color, contrast and sharpness
    change by that share; posterize keeps that many bits; solarize inverts from that level up. The
    operations that are missing take no magnitude.
    """
    height, width = size
    largest = {
        "shear-x": 0.3,
        "shear-y": 0.3,
        "translate-x": 150 / 331 * width,
        "translate-y": 150 / 331 * height,
        "rotate": 30.0,
        "brightness": 0.9,
        "color": 0.9,
        "contrast": 0.9,
        "sharpness": 0.9,
    }
    share = [step / (bins - 1) for step in range(bins)]
    return {
        **{name: tuple(limit * s for s in share) for name, limit in largest.items()},
        "posterize": tuple(float(round(8 - 4 * s)) for s in share),
        "solarize": tuple(255 * (1 - s) for s in share),
    }


def to_levels(images_unit: Tensor) -> Tensor:
    """Round `images_unit`, of any float dtype, to 256 levels: float32 whole numbers from 0 to 255.

    What lies outside [0, 1] is clipped.

    Raises:
        ValueError: if the images are neither grey nor coloured.
    """
    if images_unit.shape[1] not in (1, 3):
        raise ValueError(f"needs images of 1 or 3 channels, and these have {images_unit.shape[1]}")
    return (images_unit.clamp(0, 1) * 255).round().float()


def apply(levels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Return `levels` [B, C, H, W], each image under `operation` (int64 [B], codes) of `magnitude` [B]."""
    levels = _moved(levels, operation, magnitude)
    levels = _blended(levels, operation, magnitude)
    levels = _posterized(levels, _amount(operation, "posterize", magnitude, otherwise=8))
    levels = _inverted(levels, operation, magnitude)
    levels = _where(operation, "autocontrast", _stretched(levels), levels)
    return _where(operation, "equalize", _equalized(levels), levels)


def _where(operation: Tensor, name: str, changed: Tensor, levels: Tensor) -> Tensor:
    return changed.where((operation == CODE[name]).view(-1, 1, 1, 1), levels)


def _amount(operation: Tensor, name: str, magnitude: Tensor, otherwise: float = 0) -> Tensor:
    """Return `magnitude` [B] for the images under an operation, and what does nothing for the others."""
    return magnitude.where(operation == CODE[name], otherwise)


def _moved(levels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, shift or turn each image, all in one resampling: the nearest pixel, 0 outside."""
    import torch
    from torch.nn.functional import grid_sample

    height, width = levels.shape[2:]
    matrix = _matrices(operation, magnitude, height, width)
    column = torch.arange(width, device=levels.device) - (width - 1) / 2
    row = torch.arange(height, device=levels.device) - (height - 1) / 2
    x = matrix[0] * column + matrix[1] * row.view(-1, 1) + matrix[2]
    y = matrix[3] * column + matrix[4] * row.view(-1, 1) + matrix[5]
    grid = torch.stack([x / (width / 2), y / (height / 2)], dim=3)
    return grid_sample(levels, grid, mode="nearest", align_corners=False)


def _matrices(operation: Tensor, magnitude: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """Return where each pixel comes from, in pixels from the centre: two rows of a matrix, six [B, 1, 1].

    Shears keep the image's top left corner, rotations (anticlockwise) its centre.
    """
    import torch

    across, down = _amount(operation, "shear-x", magnitude), _amount(operation, "shear-y", magnitude)
    right, below = _amount(operation, "translate-x", magnitude), _amount(operation, "translate-y", magnitude)
    turn = torch.deg2rad(_amount(operation, "rotate", magnitude))
    cos, sin = turn.cos(), turn.sin()
    rows = (
        *(cos, across - sin, across * height / 2 - right.trunc()),
        *(down + sin, cos, down * width / 2 - below.trunc()),
    )
    return tuple(entry.view(-1, 1, 1) for entry in rows)


def _blended(levels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Move brightness, color, contrast or sharpness of each image away from, or towards, none of it."""
    grey = _grey(levels)
    none_of_it = {
        "brightness": levels.new_zeros(()),
        "color": grey,
        "contrast": grey.mean(dim=(1, 2, 3), keepdim=True),
        "sharpness": _blurred(levels),
    }
    without = levels
    for name, value in none_of_it.items():
        without = _where(operation, name, value, without)
    factor = (1 + magnitude).view(-1, 1, 1, 1)
    mixed = (levels * factor + without * (1 - factor)).clamp(0, 255).floor()
    # Where there is nothing to change, rounding must not change it either.
    return mixed.where(without != levels, levels)


def _inverted(levels: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Invert the levels of each image from its threshold up; from 0 up where all is inverted."""
    threshold = _amount(operation, "solarize", magnitude, otherwise=256)
    threshold = threshold.where(operation != CODE["invert"], 0)
    return (255 - levels).where(levels >= threshold.view(-1, 1, 1, 1), levels)


def _grey(levels: Tensor) -> Tensor:
    """Return the luma, rounded down to a level: [B, 1, H, W]; a grey image as it is."""
    if levels.shape[1] == 1:
        return levels
    red, green, blue = levels.split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor()


def _blurred(levels: Tensor) -> Tensor:
    """Average each pixel (weight 5) with its eight neighbours (1 each); the image's edge stays."""
    from torch.nn.functional import avg_pool2d

    if min(levels.shape[2:]) <= 2:
        return levels
    inner = levels[:, :, 1:-1, 1:-1]
    result = levels.clone()
    result[:, :, 1:-1, 1:-1] = ((9 * avg_pool2d(levels, 3, stride=1) + 4 * inner) / 13).round()
    return result


def _posterized(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the first `bits` [B] of the 8 bits of each level."""
    step = (8 - bits).exp2().view(-1, 1, 1, 1)
    return (levels / step).floor() * step


def _stretched(levels: Tensor) -> Tensor:
    """Stretch the levels of each channel over 0 to 255; a channel of one level stays."""
    low = levels.amin(dim=(2, 3), keepdim=True)
    high = levels.amax(dim=(2, 3), keepdim=True)
    scale = (high - low) * (1 / 255)
    stretched = ((levels - low) / scale.where(high > low, 1.0)).clamp(0, 255).floor()
    return stretched.where(high > low, levels)


def _equalized(levels: Tensor) -> Tensor:
    """Spread the levels of each channel so that all are about equally frequent.

    Pillow's rule: with a step of a 255th of the pixels that are not of the highest level, a level becomes
    (the number of pixels below it + step // 2) // step. A channel whose step is 0 stays.
    """
    flat = levels.flatten(2).long()
    counts = flat.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, flat.new_ones(()).expand_as(flat))
    up_to = counts.cumsum(dim=2)
    highest = flat.amax(dim=2, keepdim=True)
    step = (flat.shape[2] - counts.gather(2, highest)) // 255
    table = ((up_to - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = table.gather(2, flat).view(levels.shape).to(levels.dtype)
    return equalized.where((step > 0).unsqueeze(3), levels)


@functools.lru_cache(maxsize=64)
def on_device(values: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return a small table as a float32 tensor on the device, copied there once."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device)
