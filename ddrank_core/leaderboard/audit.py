"""Real images inside a distilled set, also where they were changed a little.

Two pictures are compared by the correlation of their detail (what is left after a mean over 5x5 pixels). No
change of brightness or contrast moves it, and it is taken over shifts of up to two pixels and the horizontal
flip. A coarse pass over the whole real set proposes candidates for each distilled image; the fine one
compares these.

How much two real pictures are alike differs from data set to data set: two handwritten digits are more alike
than two photographs ever are. So a match counts where it stands out from the second best one, or from what
real test images find among the training images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from ddrank_core.types import RealData

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")

SIDE = 32
"""Larger pictures are reduced to this."""
CANDIDATES = 16
"""Real images of each part that the coarse pass proposes for a distilled one."""
MAX_COMPARISONS = 300_000_000
"""Distilled times real images: 5,000 with CIFAR's. Beyond it, evenly spread distilled ones are compared."""
CALIBRATION = 200
"""Test images that are compared with the training images, to see how much real ones are alike."""

# Measured on 250 CIFAR-10 and 150 MNIST training images among 9,085 and 70,000 real ones, each as it is,
# flipped, moved by two pixels, darker by 0.3 and brighter by 0.1 and 0.3 (clipped), of contrast 0.5 and 1.5,
# and as JPEG of quality 75 and 50: every one is a match, with the right image. Of 220 images of published
# sets (DC, DSA, MTT, CAMDM) none is a copy; six of DSA's are near duplicates of images that it will have
# started from: none is moved or flipped. Of 500 CIFAR-10 test images nine match a training image, for that
# data set holds near duplicates of its own.
FLOOR = 0.6
"""No smaller correlation is a match. The smallest of those above is 0.67, as JPEG of quality 50."""
STANDS_OUT = 0.5
"""Of the distances 1 - correlation to the best and the second best real image: a match has at most this."""
COPY = 0.85
"""No match with less is a copy; it is a near duplicate then. DSA's six have 0.62 to 0.81."""
SAME = 0.99
"""A copy need not stand out from here on: a real image may itself be there twice."""

_BLOCK, _QUERIES = 2048, 512
_Move = tuple[int, int, bool]
"""Down, to the right, whether flipped before."""


@attrs.frozen(kw_only=True)
class Pair:
    """A distilled image and the real one that is most like it."""

    index: int
    """Of the distilled image."""
    part: Part
    real: int
    """Index of the real image in its part."""
    correlation: float
    """Of the details, in [-1, 1]."""
    second: float
    """That with the second best real image of both parts."""
    shift: tuple[int, int]
    """How far the distilled image shows the real one moved down and to the right, in pixels as compared."""
    flip: bool

    @property
    def stands_out(self) -> bool:
        """Whether no other real image comes near to being as much alike."""
        return 1 - self.correlation <= STANDS_OUT * (1 - self.second)


@attrs.frozen(kw_only=True)
class Audit:
    """What was compared, and what was found."""

    pairs: tuple[Pair, ...]
    """The best pair of each distilled image that was compared."""
    alike: float
    """From this correlation on, a match counts though it does not stand out."""

    @property
    def matches(self) -> tuple[Pair, ...]:
        """The pairs that are a real image, or came of one; the clearest first."""
        found = (
            pair
            for pair in self.pairs
            if pair.correlation >= FLOOR and (pair.stands_out or pair.correlation >= self.alike)
        )
        return tuple(sorted(found, key=lambda pair: (-pair.correlation, pair.index)))

    @property
    def copies(self) -> tuple[Pair, ...]:
        """The matches that are real images, by every measure."""
        least = max(COPY, self.alike)
        return tuple(
            pair
            for pair in self.matches
            if pair.correlation >= least and (pair.stands_out or pair.correlation >= SAME)
        )

    @property
    def near(self) -> tuple[Pair, ...]:
        """The other matches: images that came of real ones, or are much like one by chance."""
        copies = set(self.copies)
        return tuple(pair for pair in self.matches if pair not in copies)


def audit(images_unit: Tensor, real: RealData) -> Audit:
    """Compare distilled images with every real one, of both parts.

    `images_unit` is float32 [N, C, H, W], as large as the real images and of any range.
    """
    import torch

    total = len(real.train_images) + len(real.test_images)
    step = max(1, -(-len(images_unit) * total // MAX_COMPARISONS))
    chosen = range(0, len(images_unit), step)
    found = _pairs(images_unit[::step], (real.train_images, real.test_images))
    pairs = tuple(attrs.evolve(pair, index=chosen[pair.index]) for pair in found)
    spread = torch.linspace(0, len(real.test_images) - 1, min(CALIBRATION, len(real.test_images))).long()
    theirs = _pairs(real.test_images[spread], (real.train_images,))
    return Audit(pairs=pairs, alike=_threshold([pair.correlation for pair in theirs]))


def _threshold(correlations: Sequence[float]) -> float:
    """Return what few real images reach: three deviations over the median, in Fisher's z.

    The deviation is that of the upper half up to its 95th percentile, so that the near duplicates that many
    data sets hold do not count.
    """
    values = sorted(math.atanh(min(value, 1 - 1e-6)) for value in correlations)
    median, high = values[len(values) // 2], values[int(0.95 * (len(values) - 1))]
    return max(FLOOR, math.tanh(median + 3 * (high - median) / 1.645))


def _pairs(images: Tensor, parts: Sequence[Tensor]) -> tuple[Pair, ...]:
    """Return the best pair of each image; of the first part where two parts tie."""
    ours = reduced(images)
    by_part: list[list[Pair]] = []
    for name, real in zip(PARTS, parts, strict=False):
        proposed = _proposed(ours, real)
        by_part.append([_best(ours[i], i, name, real, proposed[i]) for i in range(len(ours))])
    return tuple(_better(pairs) for pairs in zip(*by_part, strict=True))


def _better(pairs: Sequence[Pair]) -> Pair:
    best, *others = sorted(pairs, key=lambda pair: -pair.correlation)
    return attrs.evolve(best, second=max([best.second, *(pair.correlation for pair in others)]))


def reduced(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] as float32 of at most `SIDE` pixels on the longer side, by area.

    uint8 in 0..255 becomes [0, 1]; floats keep their range.
    """
    from torch.nn.functional import adaptive_avg_pool2d

    images = images.float() if images.is_floating_point() else images.float() / 255
    height, width = images.shape[2:]
    longer = max(height, width)
    if longer <= SIDE:
        return images
    return adaptive_avg_pool2d(images, (max(1, height * SIDE // longer), max(1, width * SIDE // longer)))


def _reach(images: Tensor) -> int:
    """Return how far images are moved: two pixels of 28 and more, fewer of fewer."""
    return min(2, min(images.shape[2:]) // 14)


def _moved(images: Tensor) -> Iterator[tuple[_Move, Tensor]]:
    """Yield, for every shift and flip of images [N, C, H, W], where each shows what the centre did before."""
    reach, (height, width) = _reach(images), images.shape[2:]
    for flip in (False, True):
        turned = images.flip(3) if flip else images
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                rows = slice(reach + down, height - reach + down)
                columns = slice(reach + right, width - reach + right)
                yield (down, right, flip), turned[:, :, rows, columns]


def _centre(images: Tensor) -> Tensor:
    reach, (height, width) = _reach(images), images.shape[2:]
    return images[:, :, reach : height - reach, reach : width - reach]


def _fine(crops: Tensor) -> Tensor:
    """Return crops [N, C, H, W] as vectors [N, D]: dot products are the correlations of their details."""
    from torch.nn.functional import avg_pool2d

    detail: Tensor = crops - avg_pool2d(crops, 5, stride=1, padding=2, count_include_pad=False)
    detail = (detail - detail.mean(dim=(2, 3), keepdim=True)).flatten(1)
    length: Tensor = detail.norm(dim=1, keepdim=True)
    return detail / length.clamp(min=1e-6)


def _coarse(crops: Tensor) -> Tensor:
    """Return the same of crops in grey, at half the size where they are large enough."""
    from torch.nn.functional import avg_pool2d

    grey = crops.mean(dim=1, keepdim=True)
    return _fine(avg_pool2d(grey, 2, ceil_mode=True) if min(grey.shape[2:]) >= 20 else grey)


def _proposed(images: Tensor, real: Tensor) -> Tensor:
    """Return the indices [N, k] of the real images that are most like each image, coarsely."""
    import torch

    crops = torch.stack([_coarse(crop) for _, crop in _moved(images)], dim=1)
    count = min(CANDIDATES, len(real))
    best = torch.full((len(images), 0), -2.0)
    where = torch.zeros((len(images), 0), dtype=torch.int64)
    for start in range(0, len(real), _BLOCK):
        block = _coarse(_centre(reduced(real[start : start + _BLOCK])))
        parts = (crops[first : first + _QUERIES] for first in range(0, len(crops), _QUERIES))
        alike = torch.cat([_most(block, part) for part in parts])
        top = alike.topk(min(count, len(block)), dim=1)
        best, where = torch.cat([best, top.values], dim=1), torch.cat([where, top.indices + start], dim=1)
        kept = best.topk(min(count, best.shape[1]), dim=1)
        best, where = kept.values, where.gather(1, kept.indices)
    return where


def _most(real: Tensor, crops: Tensor) -> Tensor:
    """Return, of real [B, D] and crops [N, moves, D], the highest correlation over the moves, [N, B]."""
    alike = real @ crops.flatten(0, 1).T
    return alike.view(len(real), len(crops), -1).amax(dim=2).T


def _best(image: Tensor, index: int, part: Part, real: Tensor, candidates: Tensor) -> Pair:
    import torch

    moves, crops = zip(*_moved(image[None]), strict=True)
    alike = _fine(_centre(reduced(real[candidates]))) @ _fine(torch.cat(crops)).T
    row, column = divmod(int(alike.argmax()), len(moves))
    down, right, flip = moves[column]
    others = alike.amax(dim=1).sort(descending=True).values
    return Pair(
        index=index,
        part=part,
        real=int(candidates[row]),
        correlation=float(alike[row, column]),
        second=float(others[1]) if len(others) > 1 else 0.0,
        shift=(down, right),
        flip=flip,
    )
