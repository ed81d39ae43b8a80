"""The augmentation `randaugment`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, Literal

from ddrank_augmentations import operations
from ddrank_augmentations.draws import integers, uniform
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor


@component
class RandAugment:
    """Put each image through some operations drawn for it, all of one strength.

    The direction of shears, shifts and turns, and of changes of colour, is drawn. Images are rounded to
    256 levels first, and what lies outside [0, 1] is clipped: some operations are only defined for the
    levels of a stored picture.

    Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space",
    2020; torchvision.transforms.v2.RandAugment, whose 14 operations (all but invert), defaults, nearest
    interpolation and black fill these are.
    """

    space: ClassVar[Literal["unit"]] = "unit"

    num_ops: int = parameter("operations per image, one after another", default=2, minimum=0)
    magnitude: int = parameter("strength of all operations, from 0", default=9, minimum=0)
    num_magnitude_bins: int = parameter("number of strengths that there are", default=31, minimum=2)

    def __attrs_post_init__(self) -> None:
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude: must be less than num_magnitude_bins ({self.num_magnitude_bins}), "
                f"got {self.magnitude}"
            )

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images`, float [B, C, H, W] in [0, 1], C 1 or 3, each under operations of its own.

        Raises:
            ValueError: if the images have neither 1 nor 3 channels.
        """
        levels = operations.to_levels(images)
        size = tuple(images.shape[2:])
        table = operations.on_device(strengths(self.magnitude, self.num_magnitude_bins, size), images.device)
        for _ in range(self.num_ops):
            code = integers(images, randomness, len(table))
            strength, signed = table[code].unbind(dim=1)
            turned = signed.bool() & (uniform(images, randomness) < 0.5)
            levels = operations.apply(levels, code, strength.where(~turned, -strength))
        return Augmented((levels / 255).to(images.dtype))


@functools.cache
def strengths(magnitude: int, bins: int, size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Return, by code, the strength of every operation but the last (invert), and 1 if it is signed."""
    found = operations.magnitudes(bins, size)
    return tuple(
        (found[name][magnitude] if name in found else 0.0, float(name in operations.SIGNED))
        for name in operations.NAMES[:-1]
    )
