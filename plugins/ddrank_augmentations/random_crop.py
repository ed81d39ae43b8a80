"""The augmentation `random-crop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ddrank_augmentations.draws import integers
from ddrank_augmentations.windows import take
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class RandomCrop:
    """Pad each image on every side and take a window of the image's size out of it.

    The padding zero is black: 0 in [0, 1], before the images are normalised, as in the pipelines of the
    field, which crop a picture and then make it a tensor.

    Source: torchvision.transforms.v2.RandomCrop with the image's own size, `padding` and the padding modes
    constant (fill 0) and reflect.
    """

    space: ClassVar[Literal["unit"]] = "unit"

    padding: int = parameter("pixels padded on every side", default=4, minimum=1)
    mode: Literal["zero", "reflect"] = parameter(
        "zero: black around the image; reflect: its mirror image, without repeating the edge", default="zero"
    )

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return windows of `images` [B, C, H, W], each at a place of its own, all equally likely.

        Raises:
            ValueError: if the images are too small to be mirrored that far.
        """
        if self.mode == "reflect" and min(images.shape[2:]) <= self.padding:
            size = "x".join(str(side) for side in images.shape[2:])
            raise ValueError(
                f"random-crop: padding {self.padding} with mode reflect needs images larger than that, "
                f"and these are {size}"
            )
        places = 2 * self.padding + 1
        rows = integers(images, randomness, places)
        return Augmented(crop(images, rows, integers(images, randomness, places), self.padding, self.mode))


def crop(
    images: Tensor, rows: Tensor, columns: Tensor, padding: int, mode: Literal["zero", "reflect"]
) -> Tensor:
    """Return the windows at `rows`, `columns` (int64 [B], 0 .. 2 padding) of the padded `images`."""
    import torch

    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device) + rows.view(-1, 1) - padding
    column = torch.arange(width, device=images.device) + columns.view(-1, 1) - padding
    if mode == "reflect":
        row, column = _mirrored(row, height), _mirrored(column, width)
    return take(images, row, column, 0.0)


def _mirrored(position: Tensor, side: int) -> Tensor:
    """Fold positions outside 0 .. side - 1 back in, the edge itself being the mirror."""
    return (side - 1) - ((side - 1) - position.abs()).abs()
