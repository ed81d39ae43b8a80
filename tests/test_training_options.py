"""Accumulated gradients, streamed images, validation augmentations and stored temperatures."""

from __future__ import annotations

import attrs
import pytest
import torch
from tiny_case import CLASSES, RECIPE, prepared_case, run_case, write_case

from ddrank_core.config import load_run
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.material import Material
from ddrank_core.engine.rehearse import rehearse_training
from ddrank_core.engine.train import Setting, build, predict, train
from ddrank_core.errors import ConfigError
from ddrank_core.registry import default_registry
from ddrank_core.types import Augmented, Mixing, Targets

CPU = torch.device("cpu")


def setting_of(prepared, **changes):
    return Setting(device=CPU, precision="fp32", space=prepared.space, teachers=lambda images: (), **changes)


def trained(prepared, training, data=None, teachers=None):
    """Return the weights after a training of float64 at one seed."""
    network = build(prepared.config.student.component, CLASSES, prepared.real.image_shape, 7).double()
    setting = attrs.evolve(setting_of(prepared), teachers=teachers or (lambda images: ()))
    images, labels = prepared.distilled.images.double(), prepared.distilled.labels
    data = data or ImageSet(images=images, labels=labels, num_classes=CLASSES)
    assert train(network, data, training, 0.05, 7, setting, lambda epoch: None)
    return torch.cat([weight.flatten() for weight in network.state_dict().values()])


def training_of(prepared, name="syn-any"):
    return next(arm.training for arm in prepared.plan.arms if arm.name == name)


# -- gradient accumulation ---------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 100])
@pytest.mark.parametrize("augmentation", ["none", "mixup"])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, micro_batch, augmentation):
    prepared = prepared_case(tmp_path, recipe={**RECIPE, "augmentation": augmentation, "batch_size": 4})
    training = training_of(prepared)
    whole = trained(prepared, training)
    parts = trained(prepared, attrs.evolve(training, micro_batch=micro_batch))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not torch.allclose(whole, trained(prepared, attrs.evolve(training, batch_size=2)), atol=1e-4)


def test_accumulation_splits_soft_and_mixed_targets_with_the_images():
    hard, partner = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    soft, weight = torch.rand(3, CLASSES), torch.tensor([0.1, 0.5, 0.9])
    targets = Targets(
        hard=hard,
        partner_hard=partner,
        weight=weight,
        soft=soft,
        partner_soft=soft[partner],
        soft_kind="probabilities",
        soft_temperature=2.0,
    )
    part = targets.part(slice(1, 3))
    assert [1, 2] == part.hard.tolist()
    assert [0, 1] == part.partner_hard.tolist()
    assert torch.equal(targets.soft_probabilities(4.0)[1:], part.soft_probabilities(4.0))


def test_accumulation_is_part_of_a_trials_identity(tmp_path):
    run_case(prepared_case(tmp_path), tmp_path / "cache")
    again = run_case(prepared_case(tmp_path, recipe={**RECIPE, "micro_batch": 2}), tmp_path / "cache")
    reused = {trial.arm: trial.reused for trial in again.trials}
    assert reused["full-hard"]
    assert not reused["syn-any"]


# -- streaming ---------------------------------------------------------------------------------


def test_a_part_of_a_set_hands_out_the_images_that_it_names():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    whole = ImageSet(images=images, labels=torch.arange(10))
    part = whole.part(torch.tensor([8, 3, 5])).part(torch.tensor([2, 0]))
    assert 2 == len(part)
    assert [5, 8] == part.batch(slice(0, 2)).flatten().tolist()
    assert [8] == part.batch(torch.tensor([1])).flatten().tolist()
    assert [5, 8] == part.labels.tolist()
    assert part.images is whole.images


def test_images_that_stay_on_the_host_are_moved_batch_by_batch(tmp_path, monkeypatch):
    """With a device that is not where the images are: `meta` stands in, since there may be no GPU."""
    images = torch.zeros(4, 1, 2, 2)
    streamed = ImageSet(images=images, labels=torch.zeros(4, dtype=torch.int64, device="meta"))
    batch = streamed.batch(slice(1, 3))
    assert "meta" == batch.device.type
    assert (2, 1, 2, 2) == tuple(batch.shape)


def test_the_validation_split_is_no_copy_of_the_training_images(tmp_path):
    prepared = prepared_case(tmp_path)
    material = Material(prepared)
    assert material.validation.images.data_ptr() == prepared.real.train_images.data_ptr()
    expected = prepared.real.train_labels[prepared.split.validation]
    assert torch.equal(expected, material.validation.labels)


# -- validation augmentations ------------------------------------------------------------------


class Brighter:
    """Adds what it draws to every image."""

    def __call__(self, images, randomness):
        return Augmented(images + torch.rand(1, generator=randomness.device) + 5)


class Sum(torch.nn.Module):
    def forward(self, images):
        return torch.stack([images.sum(dim=(1, 2, 3)), torch.full((len(images),), 4.0)], dim=1)


def test_validation_augmentations_change_what_is_predicted_and_repeat_themselves(tmp_path):
    prepared = prepared_case(tmp_path)
    data = ImageSet(images=torch.zeros(3, 1, 1, 1), labels=torch.zeros(3, dtype=torch.int64))
    chosen = attrs.evolve(prepared.config.recipe.augmentation[0], component=Brighter())
    plain = predict(Sum(), data, setting_of(prepared))
    brighter = [predict(Sum(), data, setting_of(prepared, validation=(chosen,))) for _ in range(2)]
    assert [1, 1, 1] == plain.tolist()
    assert [[0, 0, 0]] * 2 == [found.tolist() for found in brighter]


def test_validation_augmentations_are_part_of_a_trials_identity(tmp_path):
    run_case(prepared_case(tmp_path), tmp_path / "cache")
    changed = prepared_case(tmp_path, validation={"augmentation": {"use": "dsa"}})
    assert not any(trial.reused for trial in run_case(changed, tmp_path / "cache").trials)


def test_a_validation_augmentation_that_mixes_is_refused(tmp_path):
    path = write_case(tmp_path, validation={"augmentation": "mixup"})
    with pytest.raises(ConfigError, match=r"validation\.augmentation: mixup mixes images"):
        load_run(path, default_registry())


# -- stored temperature ------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1.0, 2.0, 5.0])
def test_probabilities_stored_at_a_temperature_soften_like_their_logits(wanted):
    logits = torch.randn(4, 6, dtype=torch.float64)
    hard = torch.zeros(4, dtype=torch.int64)
    stored = Targets(
        hard=hard, soft=(logits / 2.0).softmax(1), soft_kind="probabilities", soft_temperature=2.0
    )
    expected = (logits / wanted).softmax(1)
    assert torch.allclose(expected, stored.soft_probabilities(wanted), atol=1e-12)


def test_the_stored_temperature_reaches_the_loss_and_the_random_images(tmp_path):
    soft = torch.tensor([[0.5, 0.3, 0.2]]).repeat(6, 1)
    prepared = prepared_case(
        tmp_path,
        soft=soft,
        soft_kind="probabilities",
        recipe={**RECIPE, "labels": "soft", "loss": "sce", "augmentation": "none"},
        teachers=[{"use": "convnet", "depth": 1, "width": 8}],
    )
    prepared = attrs.evolve(prepared, distilled=attrs.evolve(prepared.distilled, soft_temperature=4.0))
    training = training_of(prepared, "rdm-any")
    trial = next(
        t
        for a in prepared.plan.trained
        if a.name == "rdm-any"
        for t in prepared.plan.first_trials(a, prepared.plan.rungs[0], prepared.plan.candidates)
    )
    logits = torch.tensor([2.0, 0.0, -2.0])
    data = Material(prepared).of(training, trial, lambda images: (logits.repeat(len(images), 1),))
    assert torch.allclose((logits / 4).softmax(0).repeat(6, 1), data.soft)
    assert 4.0 == data.soft_temperature


def test_mixing_partners_lie_in_the_whole_batch_when_it_is_split(tmp_path):
    """The partner of an image may be in another part: targets are mixed before the batch is split."""
    prepared = prepared_case(tmp_path, recipe={**RECIPE, "batch_size": 6, "epochs": 1})
    seen = []

    class Reverse:
        mixes = True

        def __call__(self, images, randomness):
            partner = torch.arange(len(images)).flip(0)
            return Augmented(images, Mixing(partner, torch.full((len(images),), 0.25)))

    class Spy:
        def __call__(self, logits, targets):
            seen.append((targets.hard.tolist(), targets.partner_hard.tolist()))
            return logits.sum()

    training = training_of(prepared)
    augmentation = (attrs.evolve(training.augmentation[0], component=Reverse()),)
    loss = attrs.evolve(training.loss, component=Spy())
    trained(prepared, attrs.evolve(training, augmentation=augmentation, loss=loss, micro_batch=3))
    hard = [label for labels, _ in seen for label in labels]
    partners = [label for _, labels in seen for label in labels]
    assert 2 == len(seen)
    assert hard[::-1] == partners


def test_a_warmup_that_is_longer_than_the_training_is_refused_by_the_name_of_its_field(tmp_path):
    schedule = {"use": "warmup", "epochs": 9, "then": "cosine"}
    with pytest.raises(ConfigError, match="syn-any: schedule: a warmup of 9 epochs needs a longer training"):
        rehearse_training(prepared_case(tmp_path, recipe={**RECIPE, "schedule": schedule}, scores=["ior"]))
