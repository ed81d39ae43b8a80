"""Random erasing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 0.02
"""The smallest share of an image that is erased."""


@component
class RandomErasing:
    """Replace a random rectangle of an image by the data set's mean, or leave the image as it is.

    Source: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1. Deviation: there a
    rectangle that does not fit is drawn anew; here its longer side is cut, and its place is one that fits.
    """

    p: float = parameter("probability that an image is erased in", default=0.5, minimum=0, maximum=1)
    largest: float = parameter(
        "largest share of the image that is erased", default=0.4, minimum=SMALLEST, maximum=1
    )
    flattest: float = parameter(
        "least height of a rectangle, for a width of 1; 1 / flattest is the most",
        default=0.3,
        above=0,
        maximum=1,
    )

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images` [B, C, H, W], normalised, with 0 where they are erased: the mean."""
        import torch

        draws = torch.rand(5, len(images), generator=randomness.device, device=images.device)
        height, width = images.shape[2:]
        area = (SMALLEST + draws[0] * (self.largest - SMALLEST)) * height * width
        aspect = self.flattest + draws[1] * (1 / self.flattest - self.flattest)
        rows = covered((area * aspect).sqrt(), draws[2], height)
        columns = covered((area / aspect).sqrt(), draws[3], width)
        chosen = (draws[4] < self.p).view(-1, 1, 1)
        erased = rows.unsqueeze(2) & columns.unsqueeze(1) & chosen
        return Augmented(images.masked_fill(erased.unsqueeze(1), 0))


def covered(length: Tensor, place: Tensor, side: int) -> Tensor:
    """Return which of `side` pixels lie in a stretch of `length` [B], bool [B, side].

    `place` [B] in [0, 1] says where it is: 0 at the first pixel, 1 at the last.
    """
    import torch

    length = length.clamp(max=side)
    start = place * (side - length)
    middle = torch.arange(side, device=length.device) + 0.5
    return (start.unsqueeze(1) <= middle) & (middle < (start + length).unsqueeze(1))
