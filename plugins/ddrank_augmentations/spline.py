"""Rotation with a cubic B-spline, each image by its own angle, all at once.

The same surface as `scipy.ndimage.rotate(order=3)`: the spline that passes through the pixels, mirrored at
the border. Its coefficients are the pixels times a matrix per axis that is known in closed form; its
values are four bilinear samples of the coefficients.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_POLE = math.sqrt(3) - 2
"""The root of z^2 + 4z + 1 inside the unit circle: how fast a pixel's part in the coefficients decays."""


def rotate(images: Tensor, degrees: Tensor, fill: Tensor | float) -> Tensor:
    """Rotate anticlockwise by `degrees` [B] around the centre and crop to the images' size.

    `images` float [B, C, H, W], both sides at least 2. `fill` stands where the image does not reach.

    Source: as `scipy.ndimage.rotate(image, degrees, axes=(-2, -1))` followed by the centre crop of
    VICO-UoE/DatasetCondensation, utils.py: where the rotated canvas is an odd number of pixels larger,
    that crop sits half a pixel before the centre.
    """
    import torch

    height, width = images.shape[2:]
    radians = torch.deg2rad(degrees.to(images.dtype)).view(-1, 1, 1)
    cos, sin = radians.cos(), radians.sin()
    down = _from_centre(height, height * cos.abs() + width * sin.abs()).unsqueeze(2)
    right = _from_centre(width, height * sin.abs() + width * cos.abs()).unsqueeze(1)
    rows = cos * down + sin * right + (height - 1) / 2
    columns = -sin * down + cos * right + (width - 1) / 2
    # Rounding must not push the outermost pixels of an unrotated image over the border.
    slack = 1e-4
    inside = (rows >= -slack) & (rows <= height - 1 + slack)
    inside &= (columns >= -slack) & (columns <= width - 1 + slack)
    return torch.where(inside.unsqueeze(1), _sample(_coefficients(images), rows, columns), fill)


def _from_centre(side: int, rotated: Tensor) -> Tensor:
    """Return the kept positions, relative to the rotated canvas' centre: [B, side].

    `rotated` [B, 1, 1] is the canvas' side before it is rounded to whole pixels.
    """
    import torch

    canvas = (rotated + 0.5).floor().view(-1, 1)
    start = ((canvas - side) / 2).trunc()
    return torch.arange(side, device=rotated.device) + start - (canvas - 1) / 2


def _coefficients(images: Tensor) -> Tensor:
    """Return the cubic B-spline coefficients [B, C, H, W] of the surface through the pixels."""
    height, width = images.shape[2:]
    vertical = _prefilter(height, images)
    horizontal = vertical if width == height else _prefilter(width, images)
    return vertical @ images @ horizontal.T


def _prefilter(side: int, like: Tensor) -> Tensor:
    """Return the matrix [side, side] that turns mirrored samples into cubic B-spline coefficients.

    Source: Unser, Aldroubi & Eden 1993, the inverse of the sampled B-spline [1/6, 4/6, 1/6] is
    sqrt(3) z^|k|; here summed over the mirror images of each sample, whose period is 2 (side - 1).
    """
    import torch

    period = 2 * (side - 1)
    position = torch.arange(side, device=like.device, dtype=like.dtype)

    def decayed(distance: Tensor) -> Tensor:
        sign = 1 - 2 * (distance % 2)
        power = abs(_POLE) ** distance + abs(_POLE) ** (period - distance)
        return sign * power / (1 - abs(_POLE) ** period)

    row, column = position.view(-1, 1), position.view(1, -1)
    # The outermost samples are their own mirror images.
    mirrored = (column > 0) & (column < side - 1)
    return math.sqrt(3) * (decayed((row - column).abs()) + mirrored * decayed(row + column))


def _sample(coefficients: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the spline's values at `rows`, `columns` [B, H, W], as [B, C, H, W].

    Source: Sigg & Hadwiger 2005 (GPU Gems 2, chapter 20): the four taps of a cubic B-spline are two
    linear samples, so the sixteen of two axes are four bilinear ones.
    """
    import torch
    from torch.nn.functional import grid_sample

    height, width = coefficients.shape[2:]
    top, bottom, lower = _pair(rows)
    left, right, righter = _pair(columns)
    across = [2 * x / (width - 1) - 1 for x in (left, right)]
    down = [2 * y / (height - 1) - 1 for y in (top, bottom)]
    # One call for all four corners, one under the other.
    grid = torch.cat([torch.stack([x, y], dim=-1) for y in down for x in across], dim=1)
    values: Tensor = grid_sample(coefficients, grid, padding_mode="reflection", align_corners=True)
    corners = values.chunk(4, dim=2)
    lower, righter = lower.unsqueeze(1), righter.unsqueeze(1)
    above, below = corners[0].lerp(corners[1], righter), corners[2].lerp(corners[3], righter)
    return torch.lerp(above, below, lower)


def _pair(position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two positions whose linear samples make up a cubic B-spline, and the second's weight."""
    whole = position.floor()
    t = position - whole
    # Six times the B-spline's weights of the taps 0, +1 and +2; with that of -1 they add up to 6.
    nearest = 4 + t * t * (3 * t - 6)
    last = t * t * t
    second = last + 1 + 3 * t * (1 + t - t * t)
    return whole - 1 + nearest / (6 - second), whole + 1 + last / second, second / 6
