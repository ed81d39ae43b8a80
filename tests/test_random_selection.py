"""Random selection, the method that makes no images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ddrank_methods.random_selection import RandomSelection

from ddrank_core import DataError, DistilledSet, RealData
from ddrank_core.cli.distill import command
from ddrank_core.data.distilled import load

PER_CLASS = (4, 7, 6)


def _data() -> RealData:
    """Three classes of 1x1x2 images, in mixed order; image i of class c has the pixels (c, i)."""
    rows = [(c, i) for c, many in enumerate(PER_CLASS) for i in range(many)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
    images = torch.tensor(rows, dtype=torch.uint8).view(-1, 1, 1, 2)
    return RealData(
        train_images=images[order],
        train_labels=images[order][:, 0, 0, 0].long(),
        test_images=torch.zeros(0, 1, 1, 2, dtype=torch.uint8),
        test_labels=torch.zeros(0, dtype=torch.int64),
        class_names=("a", "b", "c"),
        mean=(0.25,),
        std=(0.5,),
        source="made up",
    )


def _draw(seed: int = 0, ipc: int = 2) -> DistilledSet:
    return RandomSelection().distill(_data(), None, ipc, "cpu", seed, lambda step, steps: None)


def _pixels(drawn: DistilledSet) -> list[tuple[int, int]]:
    """Return the pixels of every image, as the data set stored them."""
    stored = (drawn.images * 0.5 + 0.25) * 255
    assert torch.allclose(stored.round(), stored, atol=1e-4)
    return [tuple(row) for row in stored.round().int().view(-1, 2).tolist()]


def test_the_images_are_different_real_ones_of_the_class_that_their_label_says():
    drawn = _draw(ipc=4)
    pixels = _pixels(drawn)
    assert [0] * 4 + [1] * 4 + [2] * 4 == drawn.labels.tolist()
    assert drawn.labels.tolist() == [c for c, _ in pixels]
    assert 12 == len(set(pixels))
    assert all(i < PER_CLASS[c] for c, i in pixels)


def test_images_are_normalised_with_the_statistics_that_the_set_names():
    drawn = _draw(ipc=4)
    assert ("normalised", (0.25,), (0.5,)) == (drawn.space.kind, drawn.space.mean, drawn.space.std)
    # By hand: the first pixel of class 2 is 2 of 255, and (2 / 255 - 0.25) / 0.5 = -0.484314.
    assert -0.484314 == pytest.approx(drawn.images[-1, 0, 0, 0].item(), abs=1e-6)


def test_a_class_with_as_many_images_as_asked_for_is_drawn_whole():
    assert {(0, 0), (0, 1), (0, 2), (0, 3)} == {row for row in _pixels(_draw(ipc=4)) if row[0] == 0}


def test_every_image_of_a_class_is_as_likely_as_any_other():
    seeds = 700
    counts = Counter(row for seed in range(seeds) for row in _pixels(_draw(seed)) if row[0] == 1)
    assert 7 == len(counts)
    # 2 of 7 images in each of 700 draws: 200 times each, standard deviation sqrt(700 * 2/7 * 5/7) = 12.
    assert all(abs(count - 200) < 60 for count in counts.values())


def test_the_same_seed_draws_the_same_images_and_another_seed_others():
    assert torch.equal(_draw(7).images, _draw(7).images)
    assert not torch.equal(_draw(7).images, _draw(8).images)


def test_what_the_process_drew_before_does_not_matter():
    expected = _draw(7).images
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(expected, _draw(7).images)
    assert torch.equal(before, torch.get_rng_state())


def test_more_images_than_the_smallest_class_has_are_refused():
    with pytest.raises(DataError, match="made up: a class has only 4 training images, too few to draw 5"):
        _draw(ipc=5)


def test_distill_writes_a_random_set(tmp_path: Path):
    config = tmp_path / "random.yaml"
    config.write_text(
        "dataset: digits\nmethod: random\nstudent: {use: convnet, depth: 1, width: 4}\n"
        "ipc: 3\noutput: random.safetensors\n"
    )
    result = CliRunner().invoke(command, [str(config), "--device", "cpu", "--set", "seed=5"])
    assert result.exception is None
    drawn = load(tmp_path / "random.safetensors")
    assert (30, 1, 8, 8) == tuple(drawn.images.shape)
    assert ("digits", "random", 5) == (drawn.info["dataset"], drawn.info["method"], drawn.info["seed"])
