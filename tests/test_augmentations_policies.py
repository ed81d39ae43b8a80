"""AutoAugment and RandAugment against torchvision's: every operation, every policy, every probability."""

from __future__ import annotations

import pytest
import torch
from ddrank_augmentations import autoaugment, operations, randaugment
from ddrank_augmentations.autoaugment import AutoAugment
from ddrank_augmentations.operations import CODE, NAMES
from ddrank_augmentations.randaugment import RandAugment
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2

from ddrank_core import Randomness
from ddrank_core.registry import default_registry

THEIRS = """
Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness Posterize Solarize
AutoContrast Equalize Invert
"""
THEIR_NAMES = dict(zip(NAMES, THEIRS.split(), strict=True))
GEOMETRIC = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
POLICIES = ("cifar10", "imagenet", "svhn")
BOTH = [AutoAugment(policy=policy) for policy in POLICIES] + [RandAugment()]


def randomness(seed=0):
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


def pictures(batch, channels=3, height=24, width=24, seed=0):
    """Return smooth pictures, uint8, with a range of their own: their levels are far from even."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 5, 5, generator=generator)
    low, high = (
        torch.rand(2, batch, 1, 1, 1, generator=generator)
        .mul(0.4)
        .add(torch.tensor([0, 0.6]).view(2, 1, 1, 1, 1))
    )
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return ((low + (high - low) * smooth) * 255).round().to(torch.uint8)


def strengths_of(name, bins, size, sign):
    found = operations.magnitudes(bins, size).get(name, (0.0,) * bins)
    return torch.tensor(found) * (sign if name in operations.SIGNED else 1)


def torchvisions(name, picture, strength):
    if name == "solarize":
        strength /= 255
    apply = v2.RandAugment()._apply_image_or_video_transform
    return apply(picture, THEIR_NAMES[name], strength, InterpolationMode.NEAREST, {type(picture): None})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 20, 20), (3, 19, 26)])
def test_an_operation_is_torchvisions_on_stored_pictures(name, shape):
    bins = 11
    for sign in (1, -1):
        x = pictures(bins, *shape)
        strengths = strengths_of(name, bins, shape[1:], sign)
        actual = operations.apply(x.float(), torch.full((bins,), CODE[name]), strengths)
        pairs = zip(x, strengths.tolist(), strict=True)
        expected = torch.stack([torchvisions(name, picture, strength) for picture, strength in pairs]).float()
        difference = (expected - actual).abs()
        if name in GEOMETRIC:
            # Where two pixels are equally near, single precision decides.
            assert (difference > 0).float().mean() < 0.005
        else:
            assert difference.max() <= 1
            assert (difference > 0).float().mean() < 0.02


@pytest.mark.parametrize("name", ["identity", "posterize", "solarize", "autocontrast", "equalize", "invert"])
def test_operations_on_whole_levels_have_no_rounding_to_differ_by(name):
    x = pictures(11)
    strengths = strengths_of(name, 11, (24, 24), 1)
    actual = operations.apply(x.float(), torch.full((11,), CODE[name]), strengths)
    pairs = zip(x, strengths.tolist(), strict=True)
    expected = torch.stack([torchvisions(name, picture, strength) for picture, strength in pairs]).float()
    assert torch.equal(expected, actual)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_an_image_of_one_level_has_no_contrast_to_gain(name):
    x = torch.full((2, 3, 8, 8), 77.0)
    assert torch.equal(x, operations.apply(x, torch.full((2,), CODE[name]), torch.zeros(2)))


def test_a_grey_image_has_no_colour_to_change():
    x = pictures(4, channels=1).float()
    assert torch.equal(x, operations.apply(x, torch.full((4,), CODE["color"]), torch.full((4,), 0.9)))


def test_every_image_of_a_batch_gets_its_own_operation():
    x = pictures(len(NAMES)).float()
    strengths = torch.stack([strengths_of(name, 11, (24, 24), 1)[7] for name in NAMES])
    together = operations.apply(x, torch.arange(len(NAMES)), strengths)
    alone = [
        operations.apply(x[i : i + 1], torch.tensor([i]), strengths[i : i + 1]) for i in range(len(NAMES))
    ]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
@pytest.mark.parametrize("bins", [10, 31])
def test_strengths_are_torchvisions(bins, size):
    ours = operations.magnitudes(bins, size)
    for name in NAMES[1:]:
        theirs, signed = v2.AutoAugment._AUGMENTATION_SPACE[THEIR_NAMES[name]]
        values = theirs(bins, *size)
        assert signed == (name in operations.SIGNED)
        assert (values is None) == (name not in ours)
        if values is not None:
            scale = 255 if name == "solarize" else 1
            torch.testing.assert_close(torch.tensor(ours[name]), values.float() * scale)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_torchvisions(policy):
    ours = autoaugment.sub_policies(policy, (32, 32))
    theirs = v2.AutoAugment(AutoAugmentPolicy(policy))._policies
    strengths = operations.magnitudes(autoaugment.BINS, (32, 32))
    expected = []
    for pair in theirs:
        row = []
        for their_name, probability, level in pair:
            name = next(ours for ours, name in THEIR_NAMES.items() if name == their_name)
            strength = 0.0 if level is None else strengths[name][level]
            row += [CODE[name], probability, strength, float(name in operations.SIGNED)]
        expected.append(tuple(row))
    assert expected == list(ours)


def test_randaugment_chooses_between_torchvisions_operations():
    ours = randaugment.strengths(9, 31, (32, 32))
    assert list(v2.RandAugment._AUGMENTATION_SPACE) == [THEIR_NAMES[name] for name in NAMES[: len(ours)]]
    defaults = RandAugment()
    theirs = v2.RandAugment()
    for name in ("num_ops", "magnitude", "num_magnitude_bins"):
        assert getattr(theirs, name) == getattr(defaults, name)


def outcomes(views):
    """Return how often each different view appears."""
    _, counts = views.flatten(1).unique(dim=0, return_counts=True)
    return sorted(counts.tolist())


def test_randaugment_draws_operations_and_directions_evenly():
    x = (pictures(1) / 255).expand(2800, -1, -1, -1)
    views = RandAugment(num_ops=1, magnitude=20)(x, randomness()).images
    # 9 operations in two directions, and identity, posterize, solarize, autocontrast and equalize.
    counts = outcomes(views)
    assert len(counts) == 2 * 9 + 5
    expected = [100] * 18 + [200] * 5
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_randaugment_applies_as_many_operations_as_it_is_told():
    x = pictures(4) / 255
    assert torch.equal(x, RandAugment(num_ops=0)(x, randomness()).images)
    augmentation, draws = RandAugment(num_ops=1, magnitude=20), randomness()
    twice = augmentation(augmentation(x, draws).images, draws).images
    torch.testing.assert_close(RandAugment(num_ops=2, magnitude=20)(x, randomness()).images, twice)


def test_autoaugment_applies_a_sub_policy_with_its_probabilities(monkeypatch):
    monkeypatch.setitem(autoaugment.POLICIES, "svhn", "invert 2 - solarize 6 5")
    autoaugment.sub_policies.cache_clear()
    x = (pictures(1) / 255).expand(3000, -1, -1, -1)
    views = (AutoAugment(policy="svhn")(x, randomness()).images * 255).round()
    autoaugment.sub_policies.cache_clear()
    threshold = operations.magnitudes(10, (24, 24))["solarize"][5]

    def solarized(levels):
        return torch.where(levels >= threshold, 255 - levels, levels)

    level = (x[0] * 255).round()
    possible = [(level, 0.8 * 0.4), (255 - level, 0.2 * 0.4)]
    possible += [(solarized(image), share / 0.4 * 0.6) for image, share in possible]
    counts = [int((views == image).flatten(1).all(dim=1).sum()) for image, _ in possible]
    assert sum(counts) == 3000
    assert stats.chisquare(counts, [3000 * share for _, share in possible]).pvalue > 1e-3


@pytest.mark.parametrize("policy", POLICIES)
def test_autoaugment_changes_images_as_often_and_as_much_as_torchvision(policy):
    x = pictures(1500, height=16, width=16)
    theirs = v2.AutoAugment(AutoAugmentPolicy(policy))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.stack([theirs(picture) for picture in x]).float()
    actual = AutoAugment(policy=policy)(x / 255, randomness()).images * 255

    def change(views):
        return (views - x.float()).abs().mean(dim=(1, 2, 3)).numpy()

    assert stats.ks_2samp(change(expected), change(actual)).pvalue > 1e-3


@pytest.mark.parametrize("augmentation", BOTH, ids=lambda a: getattr(a, "policy", "randaugment"))
@pytest.mark.parametrize("channels", [1, 3])
def test_both_depend_on_their_seed_only_and_leave_their_input_alone(augmentation, channels):
    # As distilled images do, these leave [0, 1].
    x = torch.randn(8, channels, 12, 15, generator=torch.Generator().manual_seed(0))
    before, state = x.clone(), torch.get_rng_state()
    first, again = (augmentation(x, randomness(5)).images for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augmentation(x, randomness(6)).images)
    assert torch.equal(before, x)
    assert torch.equal(state, torch.get_rng_state())
    assert (x.shape, x.dtype) == (first.shape, first.dtype)
    levels = first * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.parametrize("name", ["autoaugment", "randaugment"])
def test_both_work_in_unit_space_under_their_names(name):
    assert default_registry().load("augmentation", name).space == "unit"


def test_images_must_be_grey_or_coloured():
    with pytest.raises(ValueError, match="1 or 3 channels, and these have 4"):
        RandAugment()(torch.rand(2, 4, 8, 8), randomness())


def test_randaugment_has_no_magnitude_beyond_the_last():
    with pytest.raises(ValueError, match=r"must be less than num_magnitude_bins \(31\), got 31"):
        RandAugment(magnitude=31)
