"""Crops, flips and patch shuffling, against torchvision and the published definitions."""

from __future__ import annotations

import math
from itertools import permutations, product

import pytest
import torch
from ddrank_augmentations import patch_shuffle, random_crop
from ddrank_augmentations.horizontal_flip import HorizontalFlip
from ddrank_augmentations.patch_shuffle import PatchShuffle
from ddrank_augmentations.random_crop import RandomCrop
from ddrank_augmentations.random_resized_crop import RandomResizedCrop, chosen_boxes
from ddrank_augmentations.vertical_flip import VerticalFlip
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from ddrank_core import Randomness, crop_and_resize
from ddrank_core.registry import default_registry

ALL = [
    RandomCrop(),
    RandomCrop(padding=3, mode="reflect"),
    RandomResizedCrop(),
    HorizontalFlip(),
    VerticalFlip(),
    PatchShuffle(),
]
NAMES = ("random-crop", "random-resized-crop", "horizontal-flip", "vertical-flip", "patch-shuffle")


def randomness(seed=0):
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


def images(batch=4, channels=3, height=12, width=9, seed=0):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def random_boxes(count, height, width, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def upto(limit):
        return (torch.rand(count, generator=generator) * limit).long()

    heights, widths = 1 + upto(height), 1 + upto(width)
    return torch.stack([upto(height - heights + 1), upto(width - widths + 1), heights, widths], dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_knows_every_one_by_its_name(name):
    assert default_registry().load("augmentation", name)


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_one_depends_on_its_seed_only_and_leaves_its_input_alone(augmentation, channels):
    x = images(batch=16, channels=channels)
    before, state = x.clone(), torch.get_rng_state()
    first, again = (augmentation(x, randomness(5)) for _ in range(2))
    other = augmentation(x, randomness(6))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(before, x)
    assert torch.equal(state, torch.get_rng_state())
    assert (x.shape, x.dtype) == (first.images.shape, first.images.dtype)
    assert first.mixing is None


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
def test_every_image_has_draws_of_its_own(augmentation):
    x = images(batch=1).expand(16, -1, -1, -1)
    views = augmentation(x, randomness()).images
    assert not all(torch.equal(views[0], view) for view in views)


# Cropping


@pytest.mark.parametrize(("mode", "torchvisions"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [1, 4])
def test_random_crop_takes_the_windows_of_torchvisions_padded_image(mode, torchvisions, padding):
    offsets = list(product(range(2 * padding + 1), repeat=2))
    x = images(batch=len(offsets))
    rows, columns = (torch.tensor(values) for values in zip(*offsets, strict=True))
    padded = V.pad(x, [padding], padding_mode=torchvisions)
    expected = [V.crop(image, r, c, 12, 9) for image, (r, c) in zip(padded, offsets, strict=True)]
    assert torch.equal(torch.stack(expected), random_crop.crop(x, rows, columns, padding, mode))


def test_random_crop_takes_every_window_equally_often():
    x = torch.zeros(8100, 1, 9, 9)
    x[:, :, 4, 4] = 1
    counts = RandomCrop(padding=4)(x, randomness()).images.sum(dim=(0, 1))
    assert counts.sum() == 8100
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_random_crop_pads_with_black_before_normalising():
    assert RandomCrop.space == "unit"
    assert RandomCrop()(torch.ones(64, 1, 8, 8), randomness()).images.unique().tolist() == [0, 1]


def test_random_crop_cannot_mirror_more_than_there_is():
    with pytest.raises(ValueError, match=r"padding 9 with mode reflect .* these are 12x9"):
        RandomCrop(padding=9, mode="reflect")(images(), randomness())


# Cropping and resizing


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width", "count"), [(12, 9, 300), (32, 32, 200), (224, 224, 6)])
def test_crop_and_resize_is_torchvisions_resized_crop_box_by_box(height, width, count, antialias):
    x, boxes = images(count, 3, height, width), random_boxes(count, height, width)
    expected = [
        V.resized_crop(image, *box, size=[height, width], antialias=antialias)
        for image, box in zip(x, boxes.tolist(), strict=True)
    ]
    torch.testing.assert_close(crop_and_resize(x, boxes), torch.stack(expected), atol=1e-5, rtol=0)


def test_crop_and_resize_differs_from_a_stored_picture_by_its_rounding_alone():
    x, boxes = (images(40, 3, 32, 32) * 255).round().to(torch.uint8), random_boxes(40, 32, 32)
    pairs = zip(x, boxes.tolist(), strict=True)
    stored = torch.stack([V.resized_crop(image, *box, size=[32, 32], antialias=True) for image, box in pairs])
    # Half a level, and a little for torchvision's own integer arithmetic.
    assert (crop_and_resize(x.float(), boxes) - stored.float()).abs().max() < 1.01


def test_a_box_of_the_whole_image_changes_nothing():
    x = images()
    assert torch.equal(x, crop_and_resize(x, torch.tensor([[0, 0, 12, 9]]).expand(4, 4)))


def test_boxes_with_fractions_are_sampled_where_they_lie():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    view = crop_and_resize(ramp, torch.tensor([[0.0, 2.25, 8.0, 4.0]]))
    # Pixel centres, half a pixel wide, from 2.25 on; the first and the last pixel reach to the border.
    expected = [2.25, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.25]
    torch.testing.assert_close(view[0, 0, 3], torch.tensor(expected))


def test_crop_and_resize_is_differentiable_and_keeps_half_precision():
    x, boxes = images().requires_grad_(), random_boxes(4, 12, 9)
    crop_and_resize(x, boxes).sum().backward()
    assert x.grad.abs().sum() > 0
    half = crop_and_resize(x.detach().bfloat16(), boxes)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), crop_and_resize(x.detach(), boxes), atol=0.02, rtol=0)


def published_box(areas, ratios, place, height, width, limits):
    """Return the box of torchvision's `RandomResizedCrop.make_params`, for draws that are given."""
    for area, ratio in zip(areas, ratios, strict=True):
        target = area * height * width
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w]
    if width / height < limits[0]:
        w, h = width, round(width / limits[0])
    elif width / height > limits[1]:
        w, h = round(height * limits[1]), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize("size", [(32, 32), (20, 60), (60, 20)])
def test_the_box_is_the_first_that_fits_else_the_largest_central_one(size):
    generator = torch.Generator().manual_seed(0)
    # Three tries of large areas, so that all of them often fall outside.
    areas = 0.5 + 0.5 * torch.rand(500, 3, generator=generator)
    limits = (3 / 4, 4 / 3)
    ratios = limits[0] + (limits[1] - limits[0]) * torch.rand(500, 3, generator=generator)
    place = torch.rand(500, 2, generator=generator)
    rows = zip(areas.tolist(), ratios.tolist(), place.tolist(), strict=True)
    expected = [published_box(*row, *size, limits) for row in rows]
    actual = chosen_boxes(areas, ratios, place, size, limits).tolist()
    # A square root next to a half may round the other way in single precision.
    assert sum(a != b for a, b in zip(expected, actual, strict=True)) <= 1
    assert [] != [box for box in actual if box == published_box([], [], [], *size, limits)]


@pytest.mark.parametrize(("size", "scale"), [((32, 32), (0.08, 1.0)), ((24, 40), (0.5, 1.0))])
def test_boxes_are_distributed_as_torchvisions(size, scale):
    x = torch.zeros(6000, 1, *size)
    ours = RandomResizedCrop(scale=scale).boxes(x, randomness()).double()
    theirs = v2.RandomResizedCrop(size, scale=scale)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [theirs.make_params([x[0]]) for _ in range(6000)]
    names = ("top", "left", "height", "width")
    expected = torch.tensor([[params[name] for name in names] for params in drawn]).double()
    for mine, other in zip(ours.T, expected.T, strict=True):
        assert stats.ks_2samp(mine.numpy(), other.numpy()).pvalue > 1e-3
    areas = [(boxes[:, 2] * boxes[:, 3]).numpy() for boxes in (ours, expected)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


def test_random_resized_crop_shows_its_box_of_every_image():
    x, augmentation = images(8, 3, 32, 32), RandomResizedCrop(scale=(0.3, 0.6))
    expected = crop_and_resize(x, augmentation.boxes(x, randomness(3)))
    assert torch.equal(expected, augmentation(x, randomness(3)).images)


def test_random_resized_crop_gives_the_same_in_normalised_space():
    x = images(8)
    normalised = (x - 0.4) / 0.2
    expected = (RandomResizedCrop()(x, randomness()).images - 0.4) / 0.2
    torch.testing.assert_close(RandomResizedCrop()(normalised, randomness()).images, expected)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"scale": (0.5, 0.2)}, "the smaller first"),
        ({"scale": (0.5, 1.2)}, "at most 1"),
        ({"scale": (0.0, 1.0)}, "above 0"),
        ({"ratio": (2.0, 1.0)}, "the smaller first"),
    ],
)
def test_random_resized_crop_refuses_ranges_without_meaning(parameters, problem):
    with pytest.raises(ValueError, match=problem):
        RandomResizedCrop(**parameters)


# Flipping


@pytest.mark.parametrize(
    ("cls", "torchvisions"), [(HorizontalFlip, V.horizontal_flip), (VerticalFlip, V.vertical_flip)]
)
def test_flips_are_torchvisions(cls, torchvisions):
    x = images()
    assert torch.equal(torchvisions(x), cls(p=1.0)(x, randomness()).images)
    assert torch.equal(x, cls(p=0.0)(x, randomness()).images)


@pytest.mark.parametrize("cls", [HorizontalFlip, VerticalFlip])
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_a_share_p_of_the_images_is_flipped(cls, p):
    x = images(batch=1).expand(3000, -1, -1, -1)
    flipped = (cls(p=p)(x, randomness()).images != x).flatten(1).any(dim=1).sum()
    assert stats.binomtest(int(flipped), 3000, p).pvalue > 1e-3


# Shuffling patches


def published_shuffle(image, rows, columns):
    """Return RDED's image: strips along the width in one order, then those along the height in another."""
    factor = len(rows)

    def strips(tensor, axis):
        length = tensor.shape[axis] // factor
        ends = [*range(length, length * factor, length), tensor.shape[axis]]
        return [tensor.narrow(axis, i * length, end - i * length) for i, end in enumerate(ends)]

    image = torch.cat([strips(image, 2)[i] for i in columns], dim=2)
    return torch.cat([strips(image, 1)[i] for i in rows], dim=1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_patch_shuffle_reorders_columns_and_rows_of_patches(factor):
    orders = list(product(permutations(range(factor)), repeat=2))
    x = images(batch=len(orders), height=11, width=8)
    rows, columns = (torch.tensor(values) for values in zip(*orders, strict=True))
    expected = [published_shuffle(image, *order) for image, order in zip(x, orders, strict=True)]
    assert torch.equal(torch.stack(expected), patch_shuffle.shuffle(x, rows, columns))


def test_all_orders_of_rows_and_columns_are_equally_likely():
    corners = torch.arange(9.0).view(1, 1, 3, 3).expand(7200, 1, 3, 3)
    views = PatchShuffle(factor=3)(corners, randomness()).images
    # The nine values tell the orders apart: 6 of the rows times 6 of the columns.
    found, counts = views.flatten(1).unique(dim=0, return_counts=True)
    assert len(found) == 36
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_patch_shuffle_needs_a_pixel_per_patch():
    with pytest.raises(ValueError, match="factor 10 is more than the sides of images of 12x9"):
        PatchShuffle(factor=10)(images(), randomness())
