"""Reads a window out of every image of a batch, each image at its own place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def take(images: Tensor, rows: Tensor, columns: Tensor, fill: Tensor | float) -> Tensor:
    """Return the pixels at `rows` x `columns` of every image, `fill` where they lie outside of it.

    `images` [B, C, H, W]; `rows` int64 [B, H'] and `columns` int64 [B, W'], any values; `fill` a number
    or a tensor that broadcasts to [B, C, H', W']. Returns [B, C, H', W'], the images' dtype and device.
    """
    import torch

    batch, channels, height, width = images.shape
    rows, columns = rows[:, None, :, None], columns[:, None, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    image = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    pixels = images[image, channel, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return torch.where(inside, pixels, fill)
