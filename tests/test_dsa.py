"""DSA against its published definition, written out here image by image and pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from ddrank_augmentations import dsa
from ddrank_augmentations.dsa import DSA
from ddrank_augmentations.none import NoAugmentation
from scipy import stats

from ddrank_core import Randomness

STRATEGIES = ("color", "crop", "cutout", "flip", "scale", "rotate")


def randomness(device_seed=0, host_seed=0):
    return Randomness(torch.Generator().manual_seed(device_seed), torch.Generator().manual_seed(host_seed))


def images(batch=4, channels=3, height=12, width=9, seed=0):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def pixel(image, channel, row, column):
    """Return a pixel, zero outside the image."""
    _, height, width = image.shape
    inside = 0 <= row < height and 0 <= column < width
    return image[channel, row, column].item() if inside else 0.0


def naive_warp(image, matrix):
    """Return the image seen through [-1, 1] x [-1, 1], transformed by a 2 x 2 matrix, bilinearly."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = -1 + 2 * j / (width - 1), -1 + 2 * i / (height - 1)
            u = (matrix[0][0] * x + matrix[0][1] * y + 1) / 2 * (width - 1)
            v = (matrix[1][0] * x + matrix[1][1] * y + 1) / 2 * (height - 1)
            left, top = math.floor(u), math.floor(v)
            for c in range(channels):
                result[c, i, j] = sum(
                    (1 - abs(v - row)) * (1 - abs(u - column)) * pixel(image, c, row, column)
                    for row in (top, top + 1)
                    for column in (left, left + 1)
                )
    return result


def test_none_returns_the_images_as_they_are():
    x = images()
    augmented = NoAugmentation()(x, randomness())
    assert augmented.images is x
    assert augmented.mixing is None


def test_scale_reads_each_pixel_at_its_position_times_the_factors():
    x, horizontal, vertical = images(), torch.tensor([0.84, 1.2, 1, 0.9]), torch.tensor([1.1, 0.84, 1, 1.2])
    expected = [
        naive_warp(image, [[sx, 0], [0, sy]])
        for image, sx, sy in zip(x, horizontal.tolist(), vertical.tolist(), strict=True)
    ]
    torch.testing.assert_close(dsa.scale(x, horizontal, vertical), torch.stack(expected), atol=1e-5, rtol=0)


def test_rotate_turns_the_sampling_grid_by_the_angle():
    x, degrees = images(), [-15.0, 0.0, 7.3, 15.0]
    expected = [
        naive_warp(image, [[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]])
        for image, t in zip(x, map(math.radians, degrees), strict=True)
    ]
    radians = torch.deg2rad(torch.tensor(degrees))
    torch.testing.assert_close(dsa.rotate(x, radians), torch.stack(expected), atol=1e-5, rtol=0)


def test_rotating_by_a_right_angle_turns_anticlockwise():
    x = images(batch=1, height=8, width=8)
    turned = dsa.rotate(x, torch.tensor([math.pi / 2]))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_crop_moves_the_window_and_pads_with_zeros():
    x, rows, columns = images(), [-2, 0, 1, 2], [1, -1, 0, 2]
    expected = torch.zeros_like(x)
    for b in range(4):
        for c in range(3):
            for i in range(12):
                for j in range(9):
                    expected[b, c, i, j] = pixel(x[b], c, i + rows[b], j + columns[b])
    assert torch.equal(expected, dsa.shift(x, torch.tensor(rows), torch.tensor(columns)))


@pytest.mark.parametrize("size", [(6, 5), (5, 6), (12, 9), (1, 1), (0, 0)])
def test_cutout_zeroes_a_box_around_every_possible_centre(size):
    height, width = 12, 9
    centres = [
        (row, column) for row in range(height + 1 - size[0] % 2) for column in range(width + 1 - size[1] % 2)
    ]
    x = images(batch=len(centres), height=height, width=width)
    expected = x.clone()
    for image, (row, column) in zip(expected, centres, strict=True):
        for i in range(size[0]):
            for j in range(size[1]):
                at_row = min(max(i + row - size[0] // 2, 0), height - 1)
                at_column = min(max(j + column - size[1] // 2, 0), width - 1)
                image[:, at_row, at_column] = 0
    rows, columns = (torch.tensor(values) for values in zip(*centres, strict=True))
    assert torch.equal(expected, dsa.cut_out(x, rows, columns, size))


def test_flip_mirrors_the_chosen_images_from_left_to_right():
    x = images(batch=2)
    flipped = dsa.flip(x, torch.tensor([True, False]))
    assert x[0, 1, 3].tolist()[::-1] == flipped[0, 1, 3].tolist()
    assert torch.equal(x[1], flipped[1])


def test_brightness_saturation_and_contrast_of_a_hand_worked_image():
    x = torch.tensor([[[[1.0, 3.0]], [[3.0, 9.0]]]])  # two channels of one row of two pixels
    assert dsa.brighten(x, torch.tensor([0.5])).tolist() == [[[[1.5, 3.5]], [[3.5, 9.5]]]]
    # The channels' means are 2 and 6; twice the distance from them.
    assert dsa.saturate(x, torch.tensor([2.0])).tolist() == [[[[0.0, 0.0]], [[4.0, 12.0]]]]
    # The image's mean is 4; half the distance from it.
    assert dsa.contrast(x, torch.tensor([0.5])).tolist() == [[[[2.5, 3.5]], [[3.5, 6.5]]]]


def test_color_is_brightness_then_saturation_then_contrast():
    x = images()
    half = torch.Generator().manual_seed(0)
    draws = [torch.rand(4, generator=half) for _ in range(3)]
    expected = dsa.brighten(x, draws[0] - 0.5)
    expected = dsa.contrast(dsa.saturate(expected, draws[1] * 2), draws[2] + 0.5)
    color = DSA(strategies=("color",))(x, randomness()).images
    torch.testing.assert_close(color, expected)


def ramps(batch, side=33):
    """Return images whose two channels are the pixel's x and y in [-1, 1]."""
    axis = torch.linspace(-1, 1, side)
    x, y = axis.expand(side, side), axis.view(-1, 1).expand(side, side)
    return torch.stack([x, y]).expand(batch, 2, side, side).contiguous()


def is_uniform(draws, low, high):
    return stats.kstest(draws.double().numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3


def test_scale_factors_are_uniform_between_one_over_scale_and_scale():
    view = DSA(strategies=("scale",))(ramps(2000), randomness()).images
    horizontal = view[:, 0, 16, 20] / ramps(1)[0, 0, 16, 20]
    vertical = view[:, 1, 20, 16] / ramps(1)[0, 1, 20, 16]
    assert is_uniform(horizontal, 1 / 1.2, 1.2)
    assert is_uniform(vertical, 1 / 1.2, 1.2)
    assert abs(torch.corrcoef(torch.stack([horizontal, vertical]))[0, 1]) < 0.1


def test_angles_are_uniform_between_minus_rotate_and_rotate():
    view = DSA(strategies=("rotate",))(ramps(2000), randomness()).images
    angle = torch.rad2deg(torch.atan2(view[:, 1, 16, 20], view[:, 0, 16, 20]))
    assert is_uniform(angle, -15, 15)


def test_brightness_is_uniform_around_zero_and_contrast_above_its_parameter():
    x = ramps(2000)[:, :1]  # one channel: saturation has no effect; its mean is zero
    view = DSA(strategies=("color",))(x, randomness()).images
    assert is_uniform(view.mean(dim=(1, 2, 3)), -0.5, 0.5)
    assert is_uniform((view[:, 0, 0, -1] - view[:, 0, 0, 0]) / 2, 0.5, 1.5)


def test_saturation_is_uniform_between_zero_and_its_parameter():
    generator = torch.Generator().manual_seed(0)
    draws = DSA()._uniform(images(batch=2000), Randomness(generator, generator), 0, 2.0)
    assert is_uniform(draws, 0, 2)


def test_crop_takes_every_shift_up_to_an_eighth_of_the_side_equally_often():
    x = torch.zeros(8100, 1, 32, 32)
    x[:, :, 16, 16] = 1
    view = DSA(strategies=("crop",))(x, randomness()).images
    counts = view.sum(dim=(0, 1))
    assert counts[12:21, 12:21].sum() == 8100
    assert stats.chisquare(counts[12:21, 12:21].flatten().numpy()).pvalue > 1e-3


def test_half_of_the_images_are_flipped():
    view = DSA(strategies=("flip",))(ramps(4000, side=3), randomness()).images
    flipped = int((view[:, 0, 0, 0] > 0).sum())
    assert stats.binomtest(flipped, 4000, 0.5).pvalue > 1e-3


def test_cutout_removes_a_box_of_half_the_side_wherever_it_fits():
    view = DSA(strategies=("cutout",))(torch.ones(4000, 1, 32, 32), randomness()).images
    removed = (view == 0).sum(dim=(1, 2, 3))
    assert int(removed.max()) == 16 * 16
    # A centre at a corner, 0 or 32, leaves 8 of the 16 rows and columns inside.
    assert int(removed.min()) == 8 * 8


@pytest.mark.parametrize("seed", range(8))
def test_single_mode_gives_a_batch_exactly_one_strategy(seed):
    x = images()
    candidates = [DSA(strategies=(s,), mode="multiple")(x, randomness()).images for s in STRATEGIES]
    view = DSA(mode="single")(x, randomness(host_seed=seed)).images
    assert sum(torch.equal(view, candidate) for candidate in candidates) == 1


def test_single_mode_takes_all_strategies_equally_often():
    x, draws = images(batch=1, channels=1), randomness()
    augmentation = DSA()
    chosen = [augmentation._chosen(draws)[0] for _ in range(1200)]
    assert stats.chisquare([chosen.count(s) for s in STRATEGIES]).pvalue > 1e-3
    assert tuple(augmentation(x, draws).images.shape) == (1, 1, 12, 9)


def test_multiple_mode_applies_all_strategies_in_order():
    x, draws = images(), randomness()
    expected = x
    for strategy in STRATEGIES:
        expected = DSA(strategies=(strategy,), mode="multiple")(expected, draws).images
    assert torch.equal(expected, DSA(mode="multiple")(x, randomness()).images)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_siamese_images_share_every_draw(strategy):
    x = images(batch=1).expand(6, -1, -1, -1).contiguous()
    shared = DSA(strategies=(strategy,), siamese=True)(x, randomness()).images
    own = DSA(strategies=(strategy,))(x, randomness()).images
    assert all(torch.equal(shared[0], image) for image in shared)
    assert not all(torch.equal(own[0], image) for image in own)


class Seeds:
    """The original's `set_seed_DiffAug`: every draw starts from a seed, one higher than the last."""

    def __init__(self, seed):
        self.latest = seed

    def __call__(self, draw):
        torch.manual_seed(self.latest)
        self.latest += 1
        return draw()


def original(x, strategy, seeds):
    """Return the original's siamese view: all images with the first image's draws of each seed.

    Source: VICO-UoE/DatasetCondensation, utils.py.
    """
    batch, _, height, width = x.shape

    def uniform():
        return seeds(lambda: torch.rand(batch))[0].expand(batch)

    def integer(low, high):
        return seeds(lambda: torch.randint(low, high, size=[batch, 1, 1]))[0].view(1).expand(batch)

    if strategy == "color":
        x = dsa.brighten(x, (uniform() - 0.5) * 1.0)
        x = dsa.saturate(x, uniform() * 2.0)
        return dsa.contrast(x, uniform() + 0.5)
    if strategy == "crop":
        down, right = int(height * 0.125 + 0.5), int(width * 0.125 + 0.5)
        rows = integer(-down, down + 1)
        return dsa.shift(x, rows, integer(-right, right + 1))
    if strategy == "cutout":
        size = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
        rows = integer(0, height + (1 - size[0] % 2))
        return dsa.cut_out(x, rows, integer(0, width + (1 - size[1] % 2)), size)
    if strategy == "flip":
        return dsa.flip(x, uniform() < 0.5)
    if strategy == "scale":
        horizontal = uniform() * (1.2 - 1 / 1.2) + 1 / 1.2
        return dsa.scale(x, horizontal, uniform() * (1.2 - 1 / 1.2) + 1 / 1.2)
    return dsa.rotate(x, (uniform() - 0.5) * 2 * 15 / 180 * math.pi)


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_a_seed_gives_the_originals_siamese_draws_one_seed_each(seed):
    x, expected = images(), images()
    with torch.random.fork_rng():
        seeds = Seeds(seed)
        for strategy in STRATEGIES:
            expected = original(expected, strategy, seeds)
    view = DSA(mode="multiple", seed=seed)(x, randomness()).images
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_a_seed_gives_the_originals_single_strategy(seed):
    x = images()
    with torch.random.fork_rng():
        seeds = Seeds(seed)
        index = seeds(lambda: torch.randint(0, 6, size=(1,))).item()
        expected = original(x, STRATEGIES[index], seeds)
    view = DSA(mode="single", seed=seed)(x, randomness()).images
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_a_seed_gives_every_batch_and_image_the_same_draws_and_takes_none_from_the_trial():
    x, draws = images(batch=1).expand(6, -1, -1, -1).contiguous(), randomness()
    augmentation = DSA(mode="multiple", seed=3)
    first, again = (augmentation(x, draws).images for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(first[0], image) for image in first)
    fresh = randomness()
    assert torch.equal(fresh.device.get_state(), draws.device.get_state())
    assert torch.equal(fresh.host.get_state(), draws.host.get_state())


@pytest.mark.parametrize(
    ("original_name", "value", "ours"),
    [
        ("prob_flip", 0.5, "flip"),
        ("ratio_scale", 1.2, "scale"),
        ("ratio_rotate", 15.0, "rotate"),
        ("ratio_crop_pad", 0.125, "crop"),
        ("ratio_cutout", 0.5, "cutout"),
        ("brightness", 1.0, "brightness"),
        ("saturation", 2.0, "saturation"),
        ("contrast", 0.5, "contrast"),
    ],
)
def test_parameters_and_defaults_are_those_of_the_original(original_name, value, ours):
    assert value == getattr(DSA(), ours), original_name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_dsa_depends_on_its_seed_only_and_leaves_its_input_alone(strategy):
    x = images()
    before, state = x.clone(), torch.get_rng_state()
    augmentation = DSA(strategies=(strategy,))
    first = augmentation(x, randomness(5)).images
    torch.manual_seed(99)
    torch.rand(3)
    again, other = augmentation(x, randomness(5)).images, augmentation(x, randomness(6)).images
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, x)
    torch.set_rng_state(state)
    augmentation(x, randomness())
    assert torch.equal(state, torch.get_rng_state())


def test_dsa_is_differentiable():
    x = images().requires_grad_()
    DSA(mode="multiple")(x, randomness()).images.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"strategies": ()}, "at least one strategy"),
        ({"scale": 0.9}, "at least 1"),
        ({"flip": 1.5}, "at most 1"),
    ],
)
def test_dsa_refuses_parameters_without_meaning(parameters, problem):
    with pytest.raises(ValueError, match=problem):
        DSA(**parameters)
