"""The audit finds real images in a distilled set, also where they were changed, and nothing in other sets."""

from __future__ import annotations

import gzip
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from ddrank_core.data.distilled import to_unit
from ddrank_core.data.importers import ImportOptions, read_source
from ddrank_core.leaderboard import audit as module
from ddrank_core.leaderboard.audit import (
    COPY,
    FLOOR,
    SAME,
    SURELY_LIKE_TEST_IMAGES,
    Audit,
    Pair,
    Part,
    audit,
)
from ddrank_core.leaderboard.audit_figure import MAX_PAIRS, pairs_png
from ddrank_core.leaderboard.findings import Findings
from ddrank_core.leaderboard.set_check import check_images
from ddrank_core.leaderboard.types import Finding
from ddrank_core.types import RealData

TRAIN, TEST = 300, 60
Change = Callable[[torch.Tensor], torch.Tensor]


def textures(count: int, seed: int, side: int = 32, channels: int = 3) -> torch.Tensor:
    """Return pictures of blobs of several sizes, uint8 [N, C, H, W]: smooth, and none like another."""
    source = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, channels, side, side)
    for coarse in (4, 8, 16):
        grey, colour = (torch.rand(count, n, coarse, coarse, generator=source) for n in (1, channels))
        total += interpolate(3 * grey + colour, size=side, mode="bilinear")
    low, high = (getattr(total, name)(dim=(1, 2, 3), keepdim=True) for name in ("amin", "amax"))
    return (40 + 175 * (total - low) / (high - low)).byte()


def real_of(train: torch.Tensor, test: torch.Tensor) -> RealData:
    channels = train.shape[1]
    return RealData(
        train_images=train,
        train_labels=torch.zeros(len(train), dtype=torch.int64),
        test_images=test,
        test_labels=torch.zeros(len(test), dtype=torch.int64),
        class_names=("one",),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        source="made up",
    )


def jpeg(quality: int) -> Change:
    def change(images: torch.Tensor) -> torch.Tensor:
        stored = []
        for image in images:
            pixels = (255 * image).round().byte().permute(1, 2, 0).squeeze(2).numpy()
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            with Image.open(file) as picture:
                stored.append(torch.from_numpy(np.array(picture)).reshape(*image.shape[1:], -1))
        return torch.stack(stored).permute(0, 3, 1, 2).float() / 255

    return change


def moved(down: int, right: int) -> Change:
    """Move pictures; what comes in at the border is black."""

    def change(images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        wide = torch.nn.functional.pad(images, (2, 2, 2, 2))
        return wide[:, :, 2 - down : 2 - down + height, 2 - right : 2 - right + width]

    return change


CHANGES: dict[str, tuple[Change, tuple[int, int], bool]] = {
    "as it is": (lambda x: x, (0, 0), False),
    "brighter": (lambda x: (x + 0.2).clamp(0, 1), (0, 0), False),
    "darker": (lambda x: (x - 0.2).clamp(0, 1), (0, 0), False),
    "less contrast": (lambda x: 0.5 + 0.5 * (x - 0.5), (0, 0), False),
    "more contrast": (lambda x: (0.5 + 1.5 * (x - 0.5)).clamp(0, 1), (0, 0), False),
    "flipped": (lambda x: x.flip(3), (0, 0), True),
    "JPEG 75": (jpeg(75), (0, 0), False),
    "JPEG 50": (jpeg(50), (0, 0), False),
    "moved down and left": (moved(2, -2), (2, -2), False),
    "moved up": (moved(-1, 0), (-1, 0), False),
}


@pytest.fixture(scope="module")
def real() -> RealData:
    return real_of(textures(TRAIN, 0), textures(TEST, 1))


@pytest.mark.parametrize(("change", "shift", "flip"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_real_image_is_found_in_a_set_however_it_was_changed(real, part, change, shift, flip):
    distilled = textures(10, 2).float() / 255
    theirs = real.train_images if part == "train" else real.test_images
    distilled[3] = change(theirs[7:8].float() / 255)[0]
    (match,) = audit(distilled, real).matches
    assert (3, part, 7, shift, flip) == (match.index, match.part, match.real, match.shift, match.flip)
    assert match.stands_out


def test_images_that_are_none_of_the_real_ones_are_no_match(real):
    noise = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    distilled = torch.cat([textures(20, 4).float() / 255, noise, noise * 8 - 4, torch.zeros(1, 3, 32, 32)])
    found = audit(distilled, real)
    assert (41, ()) == (len(found.pairs), found.matches)


def test_an_image_that_is_in_both_parts_is_the_training_set_s():
    train = textures(50, 0)
    found = audit(train[5:6].float() / 255, real_of(train, torch.cat([textures(20, 1), train[5:6]])))
    (match,) = found.matches
    assert ("train", 5) == (match.part, match.real)
    assert pytest.approx(1, abs=1e-5) == match.correlation == match.second


def test_the_correlation_is_that_of_what_a_mean_over_5x5_leaves(real):
    """Against loops over the pixels, of the part that is left when pictures are moved by up to two."""
    distilled = 0.8 * real.train_images[9:10].float() / 255 + 0.2 * textures(1, 5).float() / 255
    (pair,) = audit(distilled, real).pairs
    assert (9, (0, 0), False) == (pair.real, pair.shift, pair.flip)

    def detail(image: np.ndarray) -> np.ndarray:
        image, left = image[:, 2:-2, 2:-2].astype("float64"), []
        for channel in image:
            mean = np.array(
                [
                    [channel[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean() for x in range(28)]
                    for y in range(28)
                ]
            )
            left.append(channel - mean - (channel - mean).mean())
        return np.concatenate(left).ravel()

    ours, theirs = detail(distilled[0].numpy()), detail(real.train_images[9].numpy())
    expected = ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))
    assert pytest.approx(expected, abs=1e-5) == pair.correlation


def test_large_pictures_are_compared_reduced():
    real = real_of(textures(40, 0, side=96), textures(10, 1, side=96))
    distilled = torch.cat([textures(3, 2, side=96), real.train_images[4:5].flip(3)]).float() / 255
    (match,) = audit(distilled, real).matches
    assert (3, 4, True) == (match.index, match.real, match.flip)


def test_of_pictures_that_are_all_much_alike_only_a_true_copy_matches():
    """One shape with a little of its own in each picture: correlations between different ones are high."""
    shape = textures(1, 6).float() / 255
    alike = 0.8 * shape + 0.2 * textures(TRAIN + TEST + 5, 7).float() / 255
    real = real_of(alike[:TRAIN], alike[TRAIN : TRAIN + TEST])
    distilled = torch.cat([alike[TRAIN + TEST :], alike[11:12]])
    found = audit(distilled, real)
    assert min(pair.correlation for pair in found.pairs) > FLOOR
    assert [(5, 11)] == [(match.index, match.real) for match in found.matches]


@pytest.mark.parametrize(
    ("correlation", "second", "alike", "is_match", "is_copy"),
    [
        (FLOOR - 0.01, 0.0, FLOOR, False, False),
        # 1 - 0.7 is half of 1 - 0.4.
        (0.7, 0.39, 0.9, True, False),
        (0.7, 0.41, 0.9, False, False),
        (0.7, 0.41, FLOOR, True, False),
        (COPY + 0.01, 0.0, FLOOR, True, True),
        (COPY + 0.01, COPY, FLOOR, True, False),
        # Where real images are this much alike, it takes more to be one of them.
        (COPY + 0.01, 0.0, 0.95, True, False),
        (0.96, 0.0, 0.95, True, True),
        (SAME + 0.001, SAME, 0.95, True, True),
    ],
)
def test_what_counts_as_a_match_and_as_a_copy(correlation, second, alike, is_match, is_copy):
    pair = Pair(
        index=0, part="train", real=0, correlation=correlation, second=second, shift=(0, 0), flip=False
    )
    found = Audit(pairs=(pair,), alike=alike, wholly=frozenset({0}))
    assert (is_match, is_copy) == (bool(found.matches), bool(found.copies))
    assert (is_match and not is_copy) == bool(found.near)


def test_of_very_many_images_all_are_compared_with_the_test_images(real, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPARISONS", 5 * TRAIN)
    distilled = textures(18, 2).float() / 255
    distilled[1::2] = real.test_images[:9].float() / 255
    found = audit(distilled, real)
    assert list(range(18)) == [pair.index for pair in found.pairs]
    assert {(2 * k + 1, "test", k) for k in range(9)} == {
        (pair.index, pair.part, pair.real) for pair in found.copies
    }


def test_which_of_very_many_images_meet_the_training_images_cannot_be_foreseen(real, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPARISONS", 5 * TRAIN)
    distilled = textures(40, 2).float() / 255
    distilled[20:] = real.train_images[20:40].float() / 255
    once, again = audit(distilled, real), audit(distilled, real)
    assert once.seed != again.seed
    for found in (once, again):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(found.seed))
        assert set(order[:5].tolist()) == found.wholly
        assert {k for k in found.wholly if k >= 20} == {pair.index for pair in found.copies}


def test_a_negative_is_found_and_called_one(real):
    distilled = textures(3, 2).float() / 255
    distilled[1] = 1 - real.test_images[8].float() / 255
    (match,) = audit(distilled, real).copies
    assert (1, "test", 8, True) == (match.index, match.part, match.real, match.inverted)
    (match,) = audit(1 - distilled, real).copies
    assert not match.inverted


# -- the set as a whole ---------------------------------------------------------------------------


def turned(images: torch.Tensor, degrees: float = 8) -> torch.Tensor:
    """Turn pictures about their middle; what comes in at the border is mirrored."""
    turn = torch.tensor(math.radians(degrees))
    matrix = torch.tensor([[turn.cos(), -turn.sin(), 0], [turn.sin(), turn.cos(), 0]])
    grid = affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def pair_of(index: int, part: Part, real: int) -> Pair:
    return Pair(index=index, part=part, real=real, correlation=0.5, second=0.4, shift=(0, 0), flip=False)


def test_a_set_that_is_like_test_images_too_often_is_improbable():
    """By hand: ten of ten at one half; and eight or more of ten is 56 of 1,024."""
    ten = tuple(pair_of(k, "test", k) for k in range(10))
    found = Audit(pairs=ten, alike=FLOOR, wholly=frozenset(range(10)))
    assert pytest.approx(2**-10) == found.test_p_value
    mixed = (*ten[:8], pair_of(8, "train", 0), pair_of(9, "train", 1))
    assert pytest.approx(56 / 1024) == attrs.evolve(found, pairs=mixed).test_p_value
    assert pytest.approx(0.9**10) == attrs.evolve(found, by_chance=0.9).test_p_value


def test_a_real_image_counts_once_and_only_where_both_parts_were_compared():
    same = tuple(pair_of(k, "test", 3) for k in range(20))
    found = Audit(pairs=same, alike=FLOOR, wholly=frozenset(range(20)))
    assert ({"train": 0, "test": 1}, 0.5) == (found.alike_by_part, found.test_p_value)
    assert 1 == attrs.evolve(found, wholly=frozenset()).test_p_value


def test_test_images_that_are_no_match_one_by_one_are_seen_in_the_set(real):
    found = audit(turned(real.test_images.float() / 255, 7), real)
    assert len(found.matches) < 5
    assert found.test_p_value < SURELY_LIKE_TEST_IMAGES


def test_sets_that_know_no_test_image_are_not_like_them(real):
    noise = torch.rand(TEST, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    for images in (
        turned(real.train_images[:TEST].float() / 255, 7),
        textures(TEST, 4).float() / 255,
        noise,
    ):
        assert audit(images, real).test_p_value > 0.1


def found_in(images: torch.Tensor, real: RealData) -> list[Finding]:
    findings = Findings()
    check_images(images, real, lambda name, paint: None, findings)
    return findings.all


def test_the_check_refuses_a_set_that_is_like_test_images_too_often(real):
    hidden = turned(real.test_images.float() / 255, 7)
    for images, level in ((hidden, "error"), (hidden[:14], "warning")):
        (finding,) = (each for each in found_in(images, real) if "may hold changed test" in each.text)
        assert (level, "real images") == (finding.level, finding.check)
    honest = found_in(textures(TEST, 4).float() / 255, real)
    assert [("info", "real images")] == [(each.level, each.check) for each in honest]


def test_the_check_warns_where_not_all_images_were_compared(real, monkeypatch):
    monkeypatch.setattr(module, "MAX_COMPARISONS", 5 * TRAIN)
    (finding,) = found_in(textures(18, 2).float() / 255, real)
    assert "warning" == finding.level
    assert finding.text.startswith(
        "18 images compared with 60 test images, but only 5 of them, drawn with seed "
    )


def test_the_picture_shows_the_distilled_image_left_of_the_real_one(tmp_path, real):
    distilled = avg_pool2d(textures(2, 2).float() / 255, 3, 1, 1)
    pair = Pair(index=1, part="test", real=4, correlation=0.9, second=0.1, shift=(1, 0), flip=True)
    pairs_png([pair] * (MAX_PAIRS + 1), distilled, real, "Real images", tmp_path / "pairs.png")
    pixels = np.array(Image.open(tmp_path / "pairs.png").convert("RGB"))
    ours = (255 * distilled[1]).round().byte().permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
    theirs = real.test_images[4].permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
    # Below the title; the first pair is at the left margin.
    assert np.array_equal(ours, pixels[52:148, 16:112])
    assert np.array_equal(theirs, pixels[52:148, 116:212])


# -- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Path:
    if not os.environ.get("DDRANK_TEST_DATA"):
        pytest.skip("DDRANK_TEST_DATA is not set")
    return Path(os.environ["DDRANK_TEST_DATA"])


@pytest.fixture(scope="module")
def cifar10(data) -> RealData:
    found = np.load(data / "real/cifar10-subset/cifar10_lossless_subset.npz")
    parts = (np.ascontiguousarray(found[name].transpose(0, 3, 1, 2)) for name in ("x_train", "x_test"))
    return real_of(*map(torch.from_numpy, parts))


@pytest.fixture(scope="module")
def mnist(data) -> RealData:
    def images(name: str) -> torch.Tensor:
        raw = gzip.decompress((data / f"real/mnist/{name}-images-idx3-ubyte.gz").read_bytes())
        return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28).copy())

    return real_of(images("train"), images("t10k"))


def test_turned_test_images_of_cifar10_are_seen_in_the_set(cifar10):
    found = audit(turned(cifar10.test_images[:40].float() / 255), cifar10)
    assert len(found.matches) < 5
    assert found.test_p_value < SURELY_LIKE_TEST_IMAGES


@pytest.mark.parametrize("name", ["cifar10", pytest.param("mnist", marks=pytest.mark.slow)])
def test_every_changed_image_of_a_real_data_set_is_found(name, request):
    real = request.getfixturevalue(name)
    step = len(real.train_images) // 4
    hidden, truth = [], []
    for start, (change, _, _) in enumerate(CHANGES.values()):
        chosen = list(range(97 * start, len(real.train_images), step))[:4]
        hidden.append(change(real.train_images[chosen].float() / 255))
        truth += chosen
    found = audit(torch.cat(hidden), real)
    assert truth == [match.real for match in sorted(found.matches, key=lambda match: match.index)]
    assert {"train"} == {match.part for match in found.matches}


def grid(path: Path) -> torch.Tensor:
    """Return the 100 tiles of a picture of 10 rows, float32 [N, 3, 32, 32]."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    places = [(2 + 34 * row, 2 + 34 * column) for row in range(10) for column in range(10)]
    return torch.stack([pixels[:, y : y + 32, x : x + 32] for y, x in places])


def test_published_distilled_sets_hold_no_real_image(data, cifar10, mnist):
    def imported(name: str, dataset: str) -> torch.Tensor:
        (path,) = (data / "distilled" / name).glob("*.pt")
        found = read_source(
            path, ImportOptions(dataset=dataset, experiment=0 if dataset == "mnist" else None)
        )
        return to_unit(found.images, found.space)

    inverse = data / "distilled/cifar10-ipc1-mtt-zca/images_zca_5000.pt"
    (picture,) = (data / "distilled/cifar10-ipc10-dsa-png").glob("*.png")
    sets = {
        "CAMDM": (imported("cifar10-ipc10-camdm", "cifar10"), cifar10),
        "MTT": (torch.load(inverse, weights_only=True).float(), cifar10),
        "DC": (imported("mnist-ipc1-dc", "mnist"), mnist),
        "DSA": (grid(picture), cifar10),
    }
    found = {name: audit(images, real) for name, (images, real) in sets.items()}
    matches = {name: audited.matches for name, audited in found.items()}
    assert {"CAMDM": 0, "MTT": 0, "DC": 0, "DSA": 6} == {name: len(pairs) for name, pairs in matches.items()}
    assert min(audited.test_p_value for audited in found.values()) > 0.4
    # DSA starts from real images; those of its images whose start is among these are near duplicates of it.
    assert () == found["DSA"].copies
    assert {((0, 0), False)} == {(match.shift, match.flip) for match in matches["DSA"]}
