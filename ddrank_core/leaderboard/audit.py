"""Real images inside a distilled set, also where they were changed a little.

Two pictures are compared by the correlation of their detail (what is left after a mean over 5x5 pixels), its
sign dropped: a negative is as much alike as the picture. No change of brightness or contrast moves it, and it
is taken over shifts of up to two pixels and the horizontal flip. A coarse pass over the whole real set
proposes candidates for each distilled image; the fine one compares these.

How much two real pictures are alike differs from data set to data set: two handwritten digits are more alike
than two photographs ever are. So a match counts where it stands out from the second best one, or from what
real test images find among the training images.

Images that were changed further (turned, zoomed, moved sideways by three pixels, under noise, half of one
and half of another) are no match one by one, yet the set as a whole gives them away: it is like test images
more often than like training images, of which there are as many candidates and, in all, more to choose from.

What stays unseen: test images in pieces smaller than half (2x2 mosaics), or moved both ways by three pixels
and more; changed ones among as many changed training images; fewer changed ones than a test of the set needs
(20 for an error, 10 for a warning).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
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
COMPONENTS = 64
"""Principal components of the training images that the coarse pass compares: a third of the work."""
MAX_COMPARISONS = 1_200_000_000
"""Distilled times training images: 24,000 with CIFAR's. Beyond it, a random sample is compared with them. One
core of a server compares ten million a second."""
CALIBRATION = 200
"""Test images that are compared with the training images, to see how much real ones are alike."""

# Measured on 250 CIFAR-10 and 150 MNIST training images among 9,085 and 70,000 real ones, each as it is,
# flipped, moved by two pixels, darker by 0.3 and brighter by 0.1 and 0.3 (clipped), of contrast 0.5 and 1.5,
# and as JPEG of quality 75 and 50: every one is a match, with the right image. Of 220 images of published
# sets (DC, DSA, MTT, CAMDM) none is a copy; six of DSA's are near duplicates of images that it will have
# started from: none is moved or flipped. So are 21 of 100 digits of distribution matching, three of them as
# copies: it starts from real images too. Of 500 CIFAR-10 test images nine match a training image, for that
# data set holds near duplicates of its own.
FLOOR = 0.6
"""No smaller correlation is a match. The smallest of those above is 0.67, as JPEG of quality 50."""
STANDS_OUT = 0.5
"""Of the distances 1 - correlation to the best and the second best real image: a match has at most this."""
COPY = 0.85
"""No match with less is a copy; it is a near duplicate then. DSA's six have 0.62 to 0.81."""
SAME = 0.99
"""A copy need not stand out from here on: a real image may itself be there twice."""

# Of 53 sets that knew no test image (six published ones of CAMDM, MTT, DSA and DC; Gaussian noise, random,
# herded and k-means images, distribution matching, smooth noise, means of 2 to 20 images) none has a p-value
# below 0.5. Of 60 CIFAR-10 test images turned by 8 degrees, enlarged by 1.15, under noise of 0.15 or as
# halves of two it is below 1e-10; of 20 turned ones it is 2e-5, of 10 it is 1e-3.
LIKE_TEST_IMAGES = 1e-3
"""A set is like test images too often where its p-value is smaller: to be looked at by a person."""
SURELY_LIKE_TEST_IMAGES = 1e-6
"""Of a million sets that know no test image one would be, at most."""

_BLOCK, _CHUNK, _QUERIES = 2048, 2048, 256
"""Real images at once, distilled ones at once, and of these in one product."""
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
    """Of the details, without its sign."""
    second: float
    """That with the second best real image of both parts."""
    shift: tuple[int, int]
    """How far the distilled image shows the real one moved down and to the right, in pixels as compared."""
    flip: bool
    inverted: bool = False
    """Whether the correlation is negative: dark for bright."""

    @property
    def stands_out(self) -> bool:
        """Whether no other real image comes near to being as much alike."""
        return 1 - self.correlation <= STANDS_OUT * (1 - self.second)


@attrs.frozen(kw_only=True)
class Audit:
    """What was compared, and what was found."""

    pairs: tuple[Pair, ...]
    """The best pair of each distilled image."""
    alike: float
    """From this correlation on, a match counts though it does not stand out."""
    wholly: frozenset[int]
    """The distilled images that were compared with both parts; the others only with the test images."""
    seed: int | None = None
    """Of the sample that they are, `randperm` of torch; None where they are all."""
    by_chance: float = 0.5
    """The most that the share of test images among the real ones of the pairs can be expected to be."""

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

    @property
    def alike_by_part(self) -> dict[Part, int]:
        """How many real images of each part some image of the set is most like.

        Each of them counts once: images of a set may be much like each other.
        """
        theirs = {(pair.part, pair.real) for pair in self.pairs if pair.index in self.wholly}
        return {part: sum(other == part for other, _ in theirs) for part in PARTS}

    @property
    def test_p_value(self) -> float:
        """How likely a set that knows no test image is like so many of them, at most."""
        from scipy.stats import binomtest

        counts = self.alike_by_part
        total = sum(counts.values())
        if not total:
            return 1.0
        return float(binomtest(counts["test"], total, self.by_chance, alternative="greater").pvalue)


def audit(images_unit: Tensor, real: RealData) -> Audit:
    """Compare distilled images with every test image and, up to MAX_COMPARISONS, every training image.

    `images_unit` is float32 [N, C, H, W], as large as the real images and of any range.
    """
    import torch

    ours, total = reduced(images_unit), len(images_unit)
    basis = _basis(real.train_images)
    rows, seed = _drawn(total, MAX_COMPARISONS // len(real.train_images))
    spread = torch.linspace(0, len(real.test_images) - 1, min(CALIBRATION, len(real.test_images))).long()
    theirs = reduced(real.test_images[spread])
    # One pass over the training images for the sample and for those that calibrate.
    proposed = _proposed(torch.cat([ours[rows], theirs]), real.train_images, basis)
    train = dict(zip(rows.tolist(), proposed, strict=False))
    test = dict(enumerate(_proposed(ours, real.test_images, basis)))
    calibrating = dict(enumerate(proposed[len(rows) :]))
    known = _pairs(theirs, {"train": (real.train_images, calibrating)})
    return Audit(
        pairs=_pairs(ours, {"train": (real.train_images, train), "test": (real.test_images, test)}),
        alike=_threshold([pair.correlation for pair in known]),
        wholly=frozenset(train),
        seed=seed,
        by_chance=max(0.5, len(real.test_images) / (len(real.train_images) + len(real.test_images))),
    )


def _drawn(total: int, most: int) -> tuple[Tensor, int | None]:
    """Return which images to compare with all of the real ones, and the seed where not all of them are."""
    import torch

    if total <= most:
        return torch.arange(total), None
    # Nobody who makes a set can tell which of its images will be left out.
    seed = secrets.randbits(32)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[: max(1, most)].sort().values, seed


def _threshold(correlations: Sequence[float]) -> float:
    """Return what few real images reach: three deviations over the median, in Fisher's z.

    The deviation is that of the upper half up to its 95th percentile, so that the near duplicates that many
    data sets hold do not count.
    """
    values = sorted(math.atanh(min(value, 1 - 1e-6)) for value in correlations)
    median, high = values[len(values) // 2], values[int(0.95 * (len(values) - 1))]
    return max(FLOOR, math.tanh(median + 3 * (high - median) / 1.645))


def _pairs(ours: Tensor, parts: Mapping[Part, tuple[Tensor, Mapping[int, Tensor]]]) -> tuple[Pair, ...]:
    """Return the best pair of each image; of the training images where the parts tie.

    `parts` holds the real images of each part and, by image, the candidates among them.
    """
    import torch

    found = []
    for index in range(len(ours)):
        moves, crops = zip(*_moved(ours[index : index + 1]), strict=True)
        moved = _fine(torch.cat(crops))
        pairs = [
            _best(moves, moved, index, part, real, candidates[index])
            for part, (real, candidates) in parts.items()
            if index in candidates
        ]
        found.append(_better(pairs))
    return tuple(found)


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


def _basis(real: Tensor) -> Tensor:
    """Return the principal components [D, k] of the coarse details of training images, evenly spread ones."""
    import torch

    step = -(-len(real) // _BLOCK)
    coarse = _coarse(_centre(reduced(real[::step])))
    vectors: Tensor = torch.linalg.eigh(coarse.T @ coarse).eigenvectors
    return vectors[:, -COMPONENTS:]


def _proposed(images: Tensor, real: Tensor, basis: Tensor) -> Tensor:
    """Return the indices [N, k] of the real images that are most like each image, coarsely."""
    import torch

    return torch.cat([_proposed_at_once(chunk, real, basis) for chunk in torch.split(images, _CHUNK)])


def _proposed_at_once(images: Tensor, real: Tensor, basis: Tensor) -> Tensor:
    import torch

    crops = torch.stack([_coarse(crop) @ basis for _, crop in _moved(images)])
    count = min(CANDIDATES, len(real))
    best = torch.full((len(images), 0), -2.0)
    where = torch.zeros((len(images), 0), dtype=torch.int64)
    for start in range(0, len(real), _BLOCK):
        block = _coarse(_centre(reduced(real[start : start + _BLOCK]))) @ basis
        alike = torch.cat([_most(block, part) for part in torch.split(crops, _QUERIES, dim=1)])
        top = alike.topk(min(count, len(block)), dim=1)
        best, where = torch.cat([best, top.values], dim=1), torch.cat([where, top.indices + start], dim=1)
        kept = best.topk(min(count, best.shape[1]), dim=1)
        best, where = kept.values, where.gather(1, kept.indices)
    return where


def _most(real: Tensor, crops: Tensor) -> Tensor:
    """Return, of real [B, D] and crops [moves, N, D], the highest correlation over the moves, [N, B]."""
    import torch

    # Move by move: the product of all of them would leave the processor's cache.
    most = (crops[0] @ real.T).abs_()
    for crop in crops[1:]:
        torch.maximum(most, (crop @ real.T).abs_(), out=most)
    return most


def _best(
    moves: Sequence[_Move], moved: Tensor, index: int, part: Part, real: Tensor, candidates: Tensor
) -> Pair:
    signed = _fine(_centre(reduced(real[candidates]))) @ moved.T
    alike = signed.abs()
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
        inverted=bool(signed[row, column] < 0),
    )
