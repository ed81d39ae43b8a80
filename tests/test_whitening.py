"""ZCA whitening against kornia's, and runs that work on whitened images."""

from __future__ import annotations

import math

import attrs
import kornia
import numpy as np
import pytest
import torch
import yaml
from tiny_case import CLASSES, pictures, prepared_case, run_case, write_case

from ddrank_core.config import load_run
from ddrank_core.data.distilled import save
from ddrank_core.engine import whitening
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.prepared import unit_images, working_images
from ddrank_core.engine.train import augment
from ddrank_core.errors import ConfigError, DataError
from ddrank_core.registry import default_registry
from ddrank_core.types import Augmented, DistilledSet, ImageSpace

CPU = torch.device("cpu")


def images(count=200, dtype=torch.float32):
    draws = torch.Generator().manual_seed(3)
    unit = torch.rand(count, 3, 6, 6, generator=draws).cumsum(dim=3) / 6
    return unit if dtype == torch.float32 else (255 * unit).round().to(dtype)


def test_whitening_is_kornias():
    unit = images()
    ours = whitening.fit(unit, 0.1, "here")
    theirs = kornia.enhance.ZCAWhitening(eps=0.1, compute_inv=True).fit(unit.double())
    expected = theirs(unit.double())
    assert torch.allclose(expected.float(), ours.normalise(unit), atol=5e-6)
    back = theirs.inverse_transform(expected)
    assert torch.allclose(back.float(), ours.to_unit(expected.float()), atol=5e-6)


def test_whitening_by_hand_of_two_pixels():
    # Pixels (0, 0), (0.5, 1), (1, 0.5): covariance [[1/4, 1/8], [1/8, 1/4]], eigenvalues 3/8 and 1/8 along
    # (1, 1) and (1, -1). The first image is 1/2 away along (1, 1), and becomes -1/2 / sqrt(3/8 + 1/8).
    unit = torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 0.5]]).view(3, 1, 1, 2)
    white = whitening.fit(unit, 0.125, "here").normalise(unit).flatten(1)
    assert [-0.5 / math.sqrt(0.5)] * 2 == pytest.approx(white[0].tolist(), abs=1e-6)
    assert [-0.25 / math.sqrt(0.25), 0.25 / math.sqrt(0.25)] == pytest.approx(
        (white[1] - white[1].mean()).tolist(), abs=1e-6
    )


def test_whitened_images_are_decorrelated():
    white = whitening.fit(images(), 1e-9, "here").normalise(images()).flatten(1).double()
    covariance = torch.from_numpy(np.cov(white.numpy().T))
    assert torch.allclose(torch.eye(108, dtype=torch.float64), covariance, atol=2e-2)


def test_uint8_images_are_whitened_as_unit_ones():
    ours = whitening.fit(images(dtype=torch.uint8), 0.1, "here")
    unit = whitening.fit(images(dtype=torch.uint8).float() / 255, 0.1, "here")
    assert torch.allclose(unit.matrix, ours.matrix, atol=1e-5)
    assert torch.allclose(unit.mean, ours.mean, atol=1e-7)


def test_large_images_are_refused():
    with pytest.raises(DataError, match="images of 12675 values are too large"):
        whitening.fit(torch.zeros(2, 3, 65, 65), 0.1, "here")


def test_a_kept_whitening_is_read_back_and_a_damaged_one_made_anew(tmp_path):
    path, made = tmp_path / "kept" / "w.safetensors", []

    def make():
        made.append(1)
        return whitening.fit(images(), 0.1, "here")

    first, second = whitening.cached(path, make), whitening.cached(path, make)
    assert torch.equal(first.matrix, second.matrix)
    assert 1 == len(made)
    path.write_bytes(b"damaged")
    third = whitening.cached(path, make)
    assert torch.equal(first.inverse, third.inverse)
    assert 2 == len(made)


def zca_case(folder, monkeypatch, **changes):
    """Write the tiny case with its distilled images whitened by the real training set's own whitening."""
    monkeypatch.setenv("DDRANK_CACHE", str(folder / "cache"))
    path = write_case(folder, **changes)
    real = torch.from_numpy(pictures(20, 0)[0]).unsqueeze(1)
    unit, labels = pictures(2, 2)
    unit = torch.from_numpy(unit).float().unsqueeze(1) / 255
    white = whitening.fit(real, 0.1, "here").normalise(unit)
    space = ImageSpace(kind="zca")
    zca = DistilledSet(images=white, labels=torch.from_numpy(labels), space=space, num_classes=CLASSES)
    save(zca, folder / "distilled.safetensors")
    return path, unit, white


def ready(path, *overrides):
    registry = default_registry()
    return prepare(load_run(path, registry, overrides), str(path), registry, CPU)


def test_zca_images_are_trained_on_as_they_are_and_shown_as_they_were(tmp_path, monkeypatch):
    path, unit, white = zca_case(tmp_path, monkeypatch, whitening={"eps": 0.1})
    prepared = ready(path)
    assert torch.equal(white, working_images(prepared))
    assert torch.allclose(unit, unit_images(prepared), atol=1e-4)


def test_a_set_in_another_space_is_whitened_with_the_rest_of_the_run(tmp_path, monkeypatch):
    _, _, white = zca_case(tmp_path, monkeypatch)
    prepared = prepared_case(tmp_path, whitening={"eps": 0.1})
    assert torch.allclose(white, working_images(prepared), atol=1e-5)


def test_zca_images_without_a_whitening_are_refused_with_the_way_out(tmp_path, monkeypatch):
    path, _, _ = zca_case(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"whitening: missing; .* are ZCA-whitened.* \{eps: 0\.1\}"):
        ready(path)


def test_real_test_images_are_whitened_too(tmp_path, monkeypatch):
    path, _, _ = zca_case(tmp_path, monkeypatch, whitening={"eps": 0.1})
    prepared = ready(path)
    outcome = run_case(prepared, tmp_path / "cache")
    assert 0.9 < outcome.arms["full-hard"].mean
    assert 0.6 < outcome.arms["syn-hard"].mean


def test_whitening_makes_other_trials(tmp_path, monkeypatch):
    path, _, _ = zca_case(tmp_path, monkeypatch, whitening={"eps": 0.1})
    prepared = ready(path)
    run_case(prepared, tmp_path / "store")
    other = run_case(ready(path, "whitening.eps=0.2"), tmp_path / "store")
    assert not any(trial.reused for trial in other.trials)


def test_the_real_images_that_a_whitening_was_fitted_on_are_part_of_a_trials_identity(tmp_path, monkeypatch):
    known = {"accuracy": 0.9, "source": "elsewhere"}
    protocol = {"use": "strict", "repeats": 1, "learning_rates": [0.01]}
    path, _, _ = zca_case(
        tmp_path,
        monkeypatch,
        whitening={"eps": 0.1},
        dataset={"use": "arrays", "path": "real.npz", "mean": [0.4], "std": [0.2]},
        full_data=known,
        protocol=protocol,
        scores=["hlr"],
    )
    run_case(ready(path), tmp_path / "store")
    real = dict(np.load(tmp_path / "real.npz"))
    np.savez(tmp_path / "real.npz", **{**real, "x_train": 255 - real["x_train"]})
    # Neither the distilled nor the test images have changed, but what the test images are whitened with has.
    again = run_case(ready(path), tmp_path / "store")
    assert not any(trial.reused for trial in again.trials)


def test_augmentations_of_unit_images_see_them_dewhitened(tmp_path, monkeypatch):
    path, unit, white = zca_case(tmp_path, monkeypatch, whitening={"eps": 0.1})
    prepared = ready(path)
    seen = []

    class Spy:
        space = "unit"

        def __call__(self, images, randomness):
            seen.append(images)
            return Augmented(images)

    chosen = attrs.evolve(prepared.config.recipe.augmentation[0], component=Spy())
    back, _ = augment(white, [chosen, chosen], None, prepared.space)
    assert torch.allclose(unit, seen[0], atol=1e-4)
    assert seen[0] is seen[1]
    assert torch.allclose(white, back, atol=1e-3)


def test_the_record_names_the_whitening(tmp_path, monkeypatch):
    path, _, _ = zca_case(tmp_path, monkeypatch, whitening={"eps": 0.1})
    assert {"eps": 0.1} == load_run(path, default_registry()).resolved()["whitening"]
    assert yaml.safe_load(path.read_text())["whitening"] == {"eps": 0.1}
