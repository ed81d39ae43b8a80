"""The augmentation `patch-shuffle`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_augmentations.draws import uniform
from ddrank_augmentations.windows import take
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class PatchShuffle:
    """Put the columns of a grid of patches into a random order, and the rows into another.

    Each image has orders of its own. The patches of a column stay together, and so do those of a row: it
    is not any order of the patches. Where a side is no multiple of `factor`, the last strip is the longer.

    Source: RDED (Sun et al., CVPR 2024), LINs-lab/RDED, validation/utils.py, `ShufflePatches`. EDC (Shao et
    al., NeurIPS 2024), shaoshitong/EDC, relabel/utils_fkd.py, `ShufflePatchesWithIndex`, draws the same two
    orders, but its published code then joins the strips in the order they had: it leaves the images as they
    are. To train as that code does, leave this augmentation out.
    """

    factor: int = parameter("patches along each side", default=2, minimum=1)

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images` [B, C, H, W] with their strips in another order.

        Raises:
            ValueError: if the images have fewer pixels along a side than there are patches.
        """
        if min(images.shape[2:]) < self.factor:
            size = "x".join(str(side) for side in images.shape[2:])
            raise ValueError(
                f"patch-shuffle: factor {self.factor} is more than the sides of images of {size}"
            )
        columns = uniform(images, randomness, self.factor).argsort(dim=1)
        rows = uniform(images, randomness, self.factor).argsort(dim=1)
        return Augmented(shuffle(images, rows, columns))


def shuffle(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `images` with the strips that `rows` and `columns` (int64 [B, factor]) name, in that order."""
    height, width = images.shape[2:]
    return take(images, _sources(rows, height), _sources(columns, width), 0.0)


def _sources(order: Tensor, side: int) -> Tensor:
    """Return which pixel each of `side` positions is taken from, for strips in `order`: int64 [B, side]."""
    import torch

    factor = order.shape[1]
    length = side // factor
    # Only the last strip can be longer.
    lengths = length + (order == factor - 1) * (side - factor * length)
    ends = lengths.cumsum(dim=1)
    position = torch.arange(side, device=order.device).expand(len(order), -1).contiguous()
    slot = torch.searchsorted(ends, position, right=True)
    into = position - (ends - lengths).gather(1, slot)
    return order.gather(1, slot) * length + into
