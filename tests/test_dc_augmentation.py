"""DC's augmentation against its published definition, written out here image by image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from ddrank_augmentations import dc
from ddrank_augmentations.dc import DC
from ddrank_augmentations.spline import rotate
from scipy import ndimage, stats

from ddrank_core import Randomness


def randomness(seed=0):
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


def images(batch=4, channels=3, side=28, seed=0):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))


def naive_crop(image, row, column, margin, mean):
    side = image.shape[-1]
    canvas = mean.view(-1, 1, 1).repeat(1, side + 2 * margin, side + 2 * margin)
    canvas[:, margin : margin + side, margin : margin + side] = image
    return canvas[:, row : row + side, column : column + side]


def naive_scale(image, height, width):
    channels, side, _ = image.shape
    resized = torch.nn.functional.interpolate(image[None], (height, width), mode="nearest")[0]
    large = max(height, width, side)
    canvas = torch.zeros(channels, large, large)
    top, left, start = int((large - height) / 2), int((large - width) / 2), int((large - side) / 2)
    canvas[:, top : top + height, left : left + width] = resized
    return canvas[:, start : start + side, start : start + side]


def naive_rotate(image, degrees, fill):
    side = image.shape[-1]
    turned = ndimage.rotate(image.numpy(), degrees, axes=(-2, -1), order=3, reshape=True, cval=fill)
    top, left = (int((large - side) / 2) for large in turned.shape[1:])
    return torch.from_numpy(turned[:, top : top + side, left : left + side])


def test_crop_takes_any_window_of_the_batch_padded_with_its_mean():
    offsets = list(product(range(8), range(8)))
    x = images(batch=len(offsets))
    mean = x.mean(dim=(0, 2, 3))
    rows, columns = (torch.tensor(values) for values in zip(*offsets, strict=True))
    expected = [naive_crop(image, r, c, 4, mean) for image, (r, c) in zip(x, offsets, strict=True)]
    torch.testing.assert_close(dc.crop(x, rows, columns, 4), torch.stack(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [8, 28, 32])
def test_scale_is_interpolate_nearest_then_centre_crop_or_zero_padding(side):
    lengths = range(int(0.8 * side), int(1.2 * side) + 1)
    sizes = list(product(lengths, lengths))
    x = images(batch=len(sizes), channels=1, side=side)
    heights, widths = (torch.tensor(values) for values in zip(*sizes, strict=True))
    expected = [naive_scale(image, h, w) for image, (h, w) in zip(x, sizes, strict=True)]
    assert torch.equal(torch.stack(expected), dc.scale(x, heights, widths))


@pytest.mark.parametrize("side", [8, 28, 32])
def test_rotate_is_scipys_cubic_spline_and_the_centre_crop(side):
    degrees = list(range(-45, 45))
    x = images(batch=len(degrees), channels=2, side=side)
    expected = [naive_rotate(image, angle, 0.25) for image, angle in zip(x, degrees, strict=True)]
    turned = rotate(x, torch.tensor(degrees), 0.25)
    torch.testing.assert_close(turned, torch.stack(expected), atol=1e-4, rtol=0)


def test_rotate_takes_images_that_are_not_square():
    x = images()[:, :, :20, :24]
    turned = ndimage.rotate(x.numpy(), 10, axes=(-2, -1), cval=0.0)
    top, left = int((turned.shape[2] - 20) / 2), int((turned.shape[3] - 24) / 2)
    expected = torch.from_numpy(turned[:, :, top : top + 20, left : left + 24])
    torch.testing.assert_close(rotate(x, torch.tensor([10] * 4), 0.0), expected, atol=1e-4, rtol=0)


def test_rotate_turns_anticlockwise():
    x = images(side=9)
    turned = rotate(x, torch.tensor([90, -90, 0, 180]), 0.0)
    expected = torch.stack([image.rot90(k, (1, 2)) for image, k in zip(x, (1, -1, 0, 2), strict=True)])
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_rotate_fills_the_corners_with_the_mean_of_the_batch():
    x = images() + 3
    turned = DC(strategies=("rotate",), rotate=180)(x, randomness()).images
    corners = turned[:, :, 0, 0]
    filled = (corners - x.mean()).abs() < 1e-5
    assert filled.all(dim=1).any()
    # A corner is filled in all channels or in none.
    assert torch.equal(filled.all(dim=1), filled.any(dim=1))


def test_noise_is_gaussian_with_the_given_deviation():
    x = images(batch=8)
    noise = (DC(strategies=("noise",), noise=0.5)(x, randomness()).images - x) / 0.5
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3


def candidates(image, mean):
    """Return every view that the defaults allow of an image, by strategy: [n, C * H * W]."""
    side = image.shape[-1]
    lengths = range(int(0.8 * side), int(1.2 * side) + 1)
    views = {
        "crop": [naive_crop(image, r, c, 4, mean) for r, c in product(range(8), range(8))],
        "scale": [naive_scale(image, h, w) for h, w in product(lengths, lengths)],
        "rotate": [naive_rotate(image, angle, float(mean.mean())) for angle in range(-45, 45)],
    }
    return {strategy: torch.stack(all_).flatten(1) for strategy, all_ in views.items()}


def test_every_image_gets_one_of_the_published_views_and_all_strategies_are_as_frequent():
    image = images(batch=1, channels=1)[0]
    x = image.expand(2400, 1, 28, 28).contiguous()
    views = DC()(x, randomness()).images.flatten(1)
    allowed = candidates(image, image.mean().view(1))
    distance = {name: torch.cdist(views, all_).min(dim=1) for name, all_ in allowed.items()}
    nearest = torch.stack([found.values for found in distance.values()])
    assert nearest.min(dim=0).values.max() < 0.05
    strategy = nearest.argmin(dim=0)
    assert stats.chisquare(torch.bincount(strategy, minlength=3).numpy()).pvalue > 1e-3
    crops = distance["crop"].indices[strategy == 0]
    assert set(range(64)) == set(crops.tolist())
    degrees = distance["rotate"].indices[strategy == 2] - 45
    # An image that is not turned is also the window that is not moved.
    assert set(range(-45, 45)) - {0} == set(degrees.tolist()) - {0}


def test_resized_sides_are_uniform_and_rounded_down():
    draws = DC()._lengths(images(batch=5000, channels=1, side=2), randomness(), 28)
    lengths = np.arange(22, 34)
    low, high = np.maximum(lengths, 22.4), np.minimum(lengths + 1, 33.6)
    expected = 5000 * (high - low) / (33.6 - 22.4)
    counts = torch.bincount(draws, minlength=34)[22:].numpy()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("strategy", ["crop", "scale", "rotate", "noise"])
def test_dc_depends_on_its_seed_only_and_leaves_its_input_alone(strategy):
    x = images()
    before, state = x.clone(), torch.get_rng_state()
    augmentation = DC(strategies=(strategy,))
    first, other = (augmentation(x, randomness(seed)).images for seed in (5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, augmentation(x, randomness(5)).images)
    assert not torch.equal(first, other)
    assert torch.equal(before, x)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"strategies": ()}, "at least one strategy"),
        ({"crop": 0}, "at least 1"),
        ({"scale": 1.0}, "less than 1"),
    ],
)
def test_dc_refuses_parameters_without_meaning(parameters, problem):
    with pytest.raises(ValueError, match=problem):
        DC(**parameters)
