"""The augmentation `autoaugment`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, Literal

from ddrank_augmentations import operations
from ddrank_augmentations.draws import integers, uniform
from ddrank_core import Augmented, Randomness, component, parameter

if TYPE_CHECKING:
    from torch import Tensor

Policy = Literal["cifar10", "imagenet", "svhn"]

BINS = 10

# One sub-policy a line: operation, probability in tenths, magnitude 0 to 9 ("-" where it takes none), twice.
POLICIES: dict[Policy, str] = {
    "cifar10": """
        invert 1 -        contrast 2 6
        rotate 7 2        translate-x 3 9
        sharpness 8 1     sharpness 9 3
        shear-y 5 8       translate-y 7 9
        autocontrast 5 -  equalize 9 -
        shear-y 2 7       posterize 3 7
        color 4 3         brightness 6 7
        sharpness 3 9     brightness 7 9
        equalize 6 -      equalize 5 -
        contrast 6 7      sharpness 6 5
        color 7 7         translate-x 5 8
        equalize 3 -      autocontrast 4 -
        translate-y 4 3   sharpness 2 6
        brightness 9 6    color 2 8
        solarize 5 2      invert 0 -
        equalize 2 -      autocontrast 6 -
        equalize 2 -      equalize 6 -
        color 9 9         equalize 6 -
        autocontrast 8 -  solarize 2 8
        brightness 1 3    color 7 0
        solarize 4 5      autocontrast 9 -
        translate-y 9 9   translate-y 7 9
        autocontrast 9 -  solarize 8 3
        equalize 8 -      invert 1 -
        translate-y 7 9   autocontrast 9 -
    """,
    "imagenet": """
        posterize 4 8     rotate 6 9
        solarize 6 5      autocontrast 6 -
        equalize 8 -      equalize 6 -
        posterize 6 7     posterize 6 6
        equalize 4 -      solarize 2 4
        equalize 4 -      rotate 8 8
        solarize 6 3      equalize 6 -
        posterize 8 5     equalize 10 -
        rotate 2 3        solarize 6 8
        equalize 6 -      posterize 4 6
        rotate 8 8        color 4 0
        rotate 4 9        equalize 6 -
        equalize 0 -      equalize 8 -
        invert 6 -        equalize 10 -
        color 6 4         contrast 10 8
        rotate 8 8        color 10 2
        color 8 8         solarize 8 7
        sharpness 4 7     invert 6 -
        shear-x 6 5       equalize 10 -
        color 4 0         equalize 6 -
        equalize 4 -      solarize 2 4
        solarize 6 5      autocontrast 6 -
        invert 6 -        equalize 10 -
        color 6 4         contrast 10 8
        equalize 8 -      equalize 6 -
    """,
    "svhn": """
        shear-x 9 4       invert 2 -
        shear-y 9 8       invert 7 -
        equalize 6 -      solarize 6 6
        invert 9 -        equalize 6 -
        equalize 6 -      rotate 9 3
        shear-x 9 4       autocontrast 8 -
        shear-y 9 8       invert 4 -
        shear-y 9 5       solarize 2 6
        invert 9 -        autocontrast 8 -
        equalize 6 -      rotate 9 3
        shear-x 9 4       solarize 3 3
        shear-y 8 8       invert 7 -
        equalize 9 -      translate-y 6 6
        invert 9 -        equalize 6 -
        contrast 3 3      rotate 8 4
        invert 8 -        translate-y 0 2
        shear-y 7 6       solarize 4 8
        invert 6 -        rotate 8 4
        shear-y 3 7       translate-x 9 3
        shear-x 1 6       invert 6 -
        solarize 7 2      translate-y 6 7
        shear-y 8 4       invert 8 -
        shear-x 7 9       translate-y 8 3
        shear-y 8 5       autocontrast 7 -
        shear-x 7 2       invert 1 -
    """,
}


@component
class AutoAugment:
    """Put each image through one of the 25 sub-policies that were found for a data set.

    A sub-policy is two operations, each with its probability and strength; the direction of shears, shifts
    and turns, and of changes of colour, is drawn. Images are rounded to 256 levels first, and what lies
    outside [0, 1] is clipped: some operations are only defined for the levels of a stored picture.

    Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019;
    torchvision.transforms.v2.AutoAugment, whose nearest interpolation and black fill are the defaults too.
    """

    space: ClassVar[Literal["unit"]] = "unit"

    policy: Policy = parameter("the data set that the policy was found for", default="imagenet")

    def __call__(self, images: Tensor, randomness: Randomness) -> Augmented:
        """Return `images`, float [B, C, H, W] in [0, 1], C 1 or 3, each under a sub-policy of its own.

        Raises:
            ValueError: if the images have neither 1 nor 3 channels.
        """
        levels = operations.to_levels(images)
        table = operations.on_device(sub_policies(self.policy, tuple(images.shape[2:])), images.device)
        drawn = table[integers(images, randomness, len(table))].view(-1, 2, 4)
        happens = uniform(images, randomness, 2) <= drawn[:, :, 1]
        turned = drawn[:, :, 3].bool() & (uniform(images, randomness, 2) < 0.5)
        strength = drawn[:, :, 2].where(~turned, -drawn[:, :, 2])
        codes = drawn[:, :, 0].long() * happens
        for step in range(2):
            levels = operations.apply(levels, codes[:, step], strength[:, step])
        return Augmented((levels / 255).to(images.dtype))


@functools.cache
def sub_policies(policy: Policy, size: tuple[int, int]) -> tuple[tuple[float, ...], ...]:
    """Return a policy's rows: code, probability, strength and 1 if it is signed, twice.

    `size` is the images' height and width.
    """
    strengths = operations.magnitudes(BINS, size)
    rows = []
    for line in POLICIES[policy].strip().splitlines():
        words = line.split()
        row: list[float] = []
        for name, tenths, level in (words[:3], words[3:]):
            strength = 0.0 if level == "-" else strengths[name][int(level)]
            row += [operations.CODE[name], int(tenths) / 10, strength, float(name in operations.SIGNED)]
        rows.append(tuple(row))
    return tuple(rows)
