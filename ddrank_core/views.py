"""What both the engine and augmentations show of images: a crop of each, at the size of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def crop_and_resize(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop each image to its own box and resize the crop to the size of the images, bilinearly.

    `images` float [B, C, H, W]; `boxes` int or float [B, 4]: top, left, height and width in pixels, at
    least one pixel high and wide. Returns [B, C, H, W], the images' dtype and device. A pixel of the crop's
    edge stands for what lies beyond it, so nothing outside the box shows. A box with fractions of pixels is
    sampled where it lies, not rounded.

    Source: for boxes of whole pixels, torchvision.transforms.v2.functional.resized_crop with bilinear
    interpolation. `antialias` makes no difference: it acts where an image shrinks, and a crop of an image
    does not when it is resized to the image's size. On PIL images and uint8 tensors torchvision rounds the
    result to 256 levels, which is not done here.

    Example:
        crop_and_resize(images, torch.tensor([[0, 0, 16, 16]]).expand(len(images), 4))
    """
    top, left, height, width = boxes.float().unbind(dim=1)
    images = _resample(images, 2, top, height)
    return _resample(images, 3, left, width)


def _resample(images: Tensor, axis: int, start: Tensor, length: Tensor) -> Tensor:
    """Stretch `length` pixels [B] from `start` [B] on over the whole axis, linearly."""
    import torch

    side = images.shape[axis]
    centre = torch.arange(side, device=images.device) + 0.5
    within = centre * (length / side).unsqueeze(1) - 0.5
    within = within.clamp(min=0).minimum((length - 1).clamp(min=0).unsqueeze(1))
    # The start's whole pixels stay out of the weights: far down a large image they would cost digits.
    whole = start.floor().unsqueeze(1)
    within = within + (start.unsqueeze(1) - whole)
    first = within.floor()
    before, after = _taken(images, axis, whole + first), _taken(images, axis, whole + first + 1)
    return torch.lerp(before, after, _along(axis, within - first).to(images.dtype))


def _taken(images: Tensor, axis: int, position: Tensor) -> Tensor:
    """Return the pixels at whole `position` [B, side] of an axis, the last one beyond the end."""
    index = position.long().clamp(0, images.shape[axis] - 1)
    return images.gather(axis, _along(axis, index).expand_as(images))


def _along(axis: int, values: Tensor) -> Tensor:
    """Shape values [B, side] so that they lie along an axis of [B, C, H, W]."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None, :]
