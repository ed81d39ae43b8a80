"""Mixup, cutmix and the family `kornia/*`, against kornia itself and the published definitions."""

from __future__ import annotations

import inspect
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import attrs
import kornia.augmentation
import numpy as np
import pytest
import torch
from ddrank_kornia import mixup, sources
from ddrank_kornia.annotations import NO_LITERAL, literal
from ddrank_kornia.cutmix import CutMix, boxes
from ddrank_kornia.family import KorniaAugmentation, KorniaFamily
from ddrank_kornia.mixup import MixUp
from scipy import stats

from ddrank_core import Randomness
from ddrank_core.errors import ConfigError, PluginError
from ddrank_core.protocols import Augmentation
from ddrank_core.registry import default_registry
from ddrank_core.structure import Chosen, Structurer, plain

MEMBERS = KorniaFamily.members()
REQUIRED = {
    "CenterCrop": {"size": (32, 32)},
    "Denormalize": {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)},
    "LongestMaxSize": {"max_size": 32},
    "Normalize": {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)},
    "PadTo": {"size": (32, 32)},
    "RandomAffine": {"degrees": 15.0},
    "RandomCrop": {"size": (32, 32), "padding": 4},
    "RandomFisheye": {"center_x": (-0.3, 0.3), "center_y": (-0.3, 0.3), "gamma": (0.9, 1.0)},
    "RandomGaussianBlur": {"kernel_size": 3, "sigma": (0.1, 2.0)},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 35.0, "direction": 0.5},
    "RandomResizedCrop": {"size": (32, 32)},
    "RandomRotation": {"degrees": 15.0},
    "RandomRotation90": {"times": (0, 3)},
    "RandomShear": {"shear": 10.0},
    "Resize": {"size": (32, 32)},
    "SmallestMaxSize": {"max_size": 32},
}


def randomness(seed=0):
    return Randomness(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed))


def images(batch=4, channels=3, side=32, seed=0):
    """Return images that leave the unit range a little, as distilled ones do."""
    draws = torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return draws * 1.1 - 0.05


def numbered(batch, height=16, width=12):
    """Return images of two channels, each filled with its own number."""
    return torch.arange(batch).float().view(-1, 1, 1, 1).expand(batch, 2, height, width).contiguous()


@pytest.mark.parametrize("per", ["batch", "image"])
def test_mixup_mixes_each_image_with_its_partner_by_the_weight_of_its_label(per):
    x = images(batch=8)
    augmented = MixUp(per=per)(x, randomness())
    partner, weight = augmented.mixing.partner, augmented.mixing.weight
    expected = torch.stack([weight[i] * x[i] + (1 - weight[i]) * x[partner[i]] for i in range(8)])
    torch.testing.assert_close(augmented.images, expected)
    assert list(range(8)) == sorted(partner.tolist())
    assert (torch.int64, torch.float32) == (partner.dtype, weight.dtype)
    assert len(set(weight.tolist())) == (1 if per == "batch" else 8)


def test_mixup_agrees_with_kornias_labels():
    """kornia calls the partner's share lambda, and gives rows of (label, partner's label, lambda)."""
    theirs = kornia.augmentation.RandomMixUpV2(data_keys=["input", "class"])
    with torch.random.fork_rng():
        expected, labels = theirs(numbered(6), torch.arange(6))
    mixed = mixup.mix(numbered(6), labels[:, 1].long(), 1 - labels[:, 2])
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_shares_are_beta_distributed(alpha):
    augmented = MixUp(alpha=alpha, per="image")(torch.zeros(4000, 1, 1, 1), randomness())
    weight = augmented.mixing.weight.double().numpy()
    assert stats.kstest(weight, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_draws_one_share_for_each_batch():
    augmentation, draws = MixUp(alpha=1.0), randomness()
    x = torch.zeros(2, 1, 1, 1)
    shares = [augmentation(x, draws).mixing.weight[0].item() for _ in range(1000)]
    assert stats.kstest(shares, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("per", ["batch", "image"])
@pytest.mark.parametrize("seed", range(5))
def test_cutmix_weighs_each_label_by_the_pixels_that_it_kept(per, seed):
    x = numbered(16)
    augmented = CutMix(per=per)(x, randomness(seed))
    partner, weight = augmented.mixing.partner, augmented.mixing.weight
    for i, image in enumerate(augmented.images):
        own, other = (image == i), (image == partner[i])
        assert bool((own | other).all())
        if partner[i] != i:
            assert weight[i].item() == pytest.approx(own.float().mean().item(), abs=1e-6)
    assert list(range(16)) == sorted(partner.tolist())
    assert (torch.int64, torch.float32) == (partner.dtype, weight.dtype)
    assert per == "image" or len(set(weight.tolist())) == 1


def published_box(kept, row, column, height, width):
    """Return the box of Yun et al. 2019, as first and last-plus-one row and column."""
    cut_height, cut_width = int(height * math.sqrt(1 - kept)), int(width * math.sqrt(1 - kept))
    top, left = max(row - cut_height // 2, 0), max(column - cut_width // 2, 0)
    return top, min(row + cut_height // 2, height), left, min(column + cut_width // 2, width)


def test_cutmix_boxes_are_the_published_ones():
    generator = np.random.default_rng(0)
    kept = np.float32(generator.random(500))
    kept[:2] = 0, 1
    rows, columns = generator.integers(0, 16, 500), generator.integers(0, 12, 500)
    actual = boxes(torch.from_numpy(kept), torch.from_numpy(rows), torch.from_numpy(columns), 16, 12)
    for box, share, row, column in zip(actual, kept, rows, columns, strict=True):
        top, bottom, left, right = published_box(float(share), int(row), int(column), 16, 12)
        expected = torch.zeros(16, 12, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(expected, box)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_cutmix_pastes_as_kornia_does_where_both_have_the_same_box():
    augmented = CutMix()(numbered(6), randomness(1))
    pasted = (augmented.images[:, 0] == augmented.mixing.partner.view(-1, 1, 1)).float()
    i = int((augmented.mixing.partner != torch.arange(6)).nonzero()[0])
    rows, columns = pasted[i].amax(1).nonzero().flatten(), pasted[i].amax(0).nonzero().flatten()
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]]).float()
    given = {"mix_pairs": augmented.mixing.partner[None], "crop_src": corners.expand(1, 6, 4, 2)}
    expected = kornia.augmentation.RandomCutMixV2().apply_transform(numbered(6), given)
    assert torch.equal(expected, augmented.images)


def test_cutmix_keeps_the_published_share_of_pixels():
    generator, shares = np.random.default_rng(0), []
    for kept in generator.beta(0.5, 0.5, 4000):
        top, bottom, left, right = published_box(kept, *generator.integers(0, 32, 2), 32, 32)
        shares.append(1 - (bottom - top) * (right - left) / 32**2)
    augmented = CutMix(beta=0.5, per="image")(torch.zeros(4000, 1, 32, 32), randomness())
    assert stats.ks_2samp(shares, augmented.mixing.weight.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("augmentation", [MixUp(), MixUp(per="image"), CutMix(), CutMix(per="image")])
def test_mixing_depends_on_its_seed_only_and_leaves_its_input_alone(augmentation):
    x = images()
    before, state = x.clone(), torch.get_rng_state()
    first, other = (augmentation(x, randomness(seed)).images for seed in (1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, augmentation(x, randomness(1)).images)
    assert not torch.equal(first, other)
    assert torch.equal(before, x)
    assert augmentation.mixes
    assert augmentation.space == "unit"


def test_every_augmentation_of_kornia_is_offered_unless_it_mixes_images_or_downloads_a_model():
    from kornia.augmentation._2d.base import AugmentationBase2D
    from kornia.augmentation._2d.mix.base import MixAugmentationBaseV2

    public = {name: getattr(kornia.augmentation, name) for name in kornia.augmentation.__all__}
    usable = {
        name
        for name, value in public.items()
        if inspect.isclass(value)
        and issubclass(value, (AugmentationBase2D, MixAugmentationBaseV2))
        and "Base" not in name
        and not name.endswith("3D")
    }
    mixing = {"RandomMixUpV2", "RandomCutMixV2", "RandomMosaic", "RandomTransplantation", "PatchMix"}
    assert usable - mixing - {"RandomDissolving"} == set(MEMBERS)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_members_parameters_are_its_constructors_arguments(member):
    constructor = inspect.signature(getattr(kornia.augmentation, member)).parameters
    fields = attrs.fields(KorniaFamily.component(member))
    dropped = {"keepdim", "data_keys", "p_batch"}
    assert [name for name in constructor if name not in dropped] == [field.name for field in fields]
    for field in fields:
        default = constructor[field.name].default
        if default is inspect.Parameter.empty:
            assert field.default == attrs.NOTHING
        elif field.default is not None:
            assert default == field.default
        assert field.metadata["doc"]


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_runs_and_depends_on_its_seed_only(member):
    augmentation = KorniaFamily.component(member)(**REQUIRED.get(member, {}))
    x, state = images(), torch.get_rng_state()
    before = x.clone()
    first = augmentation(x, randomness(1)).images
    augmentation(x, randomness(2))
    torch.testing.assert_close(augmentation(x, randomness(1)).images, first, rtol=0, atol=0)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, x)
    assert (x.shape, x.dtype) == (first.shape, first.dtype)
    assert not first.requires_grad


def test_a_member_does_what_kornia_does():
    with torch.random.fork_rng():
        seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(3)))
        torch.manual_seed(seed)
        expected = kornia.augmentation.RandomAffine(15.0, translate=(0.1, 0.1), p=1.0)(images())
    member = KorniaFamily.component("RandomAffine")(degrees=15.0, translate=(0.1, 0.1), p=1.0)
    assert torch.equal(expected, member(images(), randomness(3)).images)


def test_a_member_is_a_frozen_value_that_survives_pickling_after_use():
    cls = KorniaFamily.component("RandomAffine")
    assert cls is KorniaFamily.component("RandomAffine")
    used, unused = cls(degrees=15.0), cls(degrees=15.0)
    used(images(), randomness())
    again = pickle.loads(pickle.dumps(used))
    assert used == unused == again
    assert hash(used) == hash(unused)
    assert cls(degrees=16.0) != used
    assert torch.equal(used(images(), randomness()).images, again(images(), randomness()).images)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        used.degrees = 3.0


def structured(value):
    structurer = Structurer(default_registry(), Path())
    return structurer.structure(value, Chosen[Augmentation], "run.yaml")


def test_a_config_gives_kornias_parameters_and_gets_them_back():
    chosen = structured({"use": "kornia/RandomAffine", "degrees": 15, "translate": [0.1, 0.2]})
    assert isinstance(chosen.component, KorniaAugmentation)
    assert (chosen.component.degrees, chosen.component.translate) == (15.0, (0.1, 0.2))
    written = json.loads(json.dumps(plain(chosen)))
    assert written["use"] == "kornia/RandomAffine"
    assert structured(written) == chosen


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"use": "kornia/RandomAffine"}, "degrees: missing"),
        ({"use": "kornia/RandomAffine", "degrees": "much"}, "degrees: must be number or list of 2"),
        ({"use": "kornia/RandomAffine", "degrees": 5, "transalte": [0, 0]}, "did you mean 'translate'"),
        ({"use": "kornia/RandomAfine", "degrees": 5}, "did you mean 'kornia/RandomAffine'"),
        ({"use": "kornia/RandomMixUpV2"}, "no augmentation 'kornia/RandomMixUpV2'"),
        ({"use": "mixup", "alpha": 0}, "alpha: must be greater than 0"),
        ({"use": "cutmix", "per": "pixel"}, "per: must be one of batch, image"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_field(value, problem):
    with pytest.raises((ConfigError, PluginError)) as caught:
        structured(value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("member", "parameters", "problem"),
    [
        ("RandomAffine", {"degrees": 15.0, "translate": (3.0, 3.0)}, "kornia/RandomAffine: "),
        ("RandomAffine", {"degrees": 15.0, "padding_mode": "nowhere"}, "kornia/RandomAffine: "),
        ("RandomCrop", {"size": (16, 16)}, "returns images of 3x16x16 for images of 3x32x32"),
    ],
)
def test_what_kornia_refuses_is_one_line_that_names_the_member(member, parameters, problem):
    augmentation = KorniaFamily.component(member)(**parameters)
    with pytest.raises(ValueError, match=problem) as caught:
        augmentation(images(), randomness())
    assert "\n" not in str(caught.value)


def test_null_leaves_a_default_that_is_not_written_out_to_kornia():
    described = {argument.name: argument for argument in sources.augmentation("RandomAffine").arguments}
    assert literal(described["resample"].default) is NO_LITERAL
    augmentation = KorniaFamily.component("RandomAffine")(degrees=15.0)
    assert augmentation.resample is None
    assert augmentation._module.flags["resample"].name == "BILINEAR"


def test_kornia_is_listed_and_described_without_importing_it_or_torch():
    script = (
        "import sys, attrs\n"
        "from ddrank_kornia.family import KorniaFamily\n"
        "for name in KorniaFamily.members(): attrs.resolve_types(KorniaFamily.component(name))\n"
        "import ddrank_augmentations.dc, ddrank_augmentations.dsa, ddrank_augmentations.none\n"
        "import ddrank_kornia.cutmix, ddrank_kornia.mixup\n"
        "print(sorted({'torch', 'kornia', 'numpy', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_manifests_name_components_that_are_there():
    registry = default_registry()
    loaded = {name: registry.load("augmentation", name) for name in ("none", "dsa", "dc", "mixup", "cutmix")}
    assert [name for name, cls in loaded.items() if getattr(cls, "mixes", False)] == ["mixup", "cutmix"]
    assert all(cls().__call__ for cls in loaded.values())
