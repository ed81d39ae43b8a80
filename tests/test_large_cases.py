"""Large cases, small: memory that a step and a pass may take, many classes, and the full-data recipes."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import yaml
from tiny_case import prepared_case, run_case
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from ddrank_core.config import FullRecipe, load_run, load_teacher
from ddrank_core.data.distilled import save
from ddrank_core.engine.images import ImageSet, normaliser
from ddrank_core.engine.material import Material
from ddrank_core.engine.plan import Training
from ddrank_core.engine.prepare import prepare
from ddrank_core.engine.teacher_training import train_teacher
from ddrank_core.engine.train import Setting, build, evaluation_batch, predict, train
from ddrank_core.registry import default_registry
from ddrank_core.structure import Structurer
from ddrank_core.types import DistilledSet, ImageSpace

CPU = torch.device("cpu")
FOLDER = Path(__file__).parents[1] / "configs" / "full-data"
TEACHERS = ("cifar10-convnet-3-fast.yaml", "cifar10-resnet-18-bn-fast.yaml")
RUN = "cifar10-camdm-ipc10.yaml"
RESNET = {"use": "resnet", "depth": 18, "width": 4}
SHAPE = (3, 64, 64)


def network_of(values: dict[str, Any], classes: int, shape: tuple[int, int, int] = SHAPE) -> torch.nn.Module:
    chosen = Structurer(default_registry(), Path()).chosen("architecture", values)
    return build(chosen.component, classes, shape, 0)


def training_of(batch_size: int, micro_batch: int | None = None, momentum: float = 0.0) -> Training:
    values = {
        "source": "full",
        "labels": "hard",
        "loss": "ce",
        "augmentation": [],
        "optimizer": {"use": "sgd", "momentum": momentum, "weight_decay": 0.0},
        "schedule": "constant",
        "epochs": 1,
        "batch_size": batch_size,
        "micro_batch": micro_batch,
    }
    training: Training = Structurer(default_registry(), Path()).structure(values, Training, "large case")
    return training


def setting_of() -> Setting:
    space = normaliser((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), CPU)
    return Setting(device=CPU, precision="fp32", space=space, teachers=lambda images: ())


def noise(count: int, classes: int, seed: int = 0) -> ImageSet:
    """Return normalised images of noise, float32, with labels in turn."""
    images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ImageSet(images=images, labels=torch.arange(count) % classes, num_classes=classes)


# -- gradient accumulation -------------------------------------------------------------------------------


class HeldForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd holds for backward passes, weights excepted: now, and at most."""

    class _Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def __init__(self) -> None:
        self.now = self.most = 0
        super().__init__(self._keep, lambda held: held.tensor)

    def _keep(self, tensor: Tensor) -> _Held:
        held = self._Held(tensor)
        # The last layer's weights are held as a view, their transpose.
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            size = tensor.numel() * tensor.element_size()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(held, self._free, size)
        return held

    def _free(self, size: int) -> None:
        self.now -= size


def held_by_a_step(micro_batch: int | None) -> int:
    network, data = network_of(RESNET, 4), noise(8, 4)
    held = HeldForBackward()
    with held:
        assert train(network, data, training_of(8, micro_batch), 0.01, 0, setting_of(), lambda epoch: None)
    assert held.now == 0
    return held.most


def test_a_step_holds_the_activations_of_one_micro_batch():
    whole = held_by_a_step(None)
    # All but a scalar of the loss, 4 bytes, grows with the images of a pass.
    assert (whole - 4) / 4 + 4 == held_by_a_step(2)
    assert (whole - 4) / 8 + 4 == held_by_a_step(1)


@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_a_resnets_step_in_parts_moves_it_by_the_whole_batchs_gradient(micro_batch):
    network, data = network_of(RESNET, 4).double(), noise(8, 4)
    data = attrs.evolve(data, images=data.images.double())
    before = [weight.detach().clone() for weight in network.parameters()]
    loss = cross_entropy(network(data.images), data.labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()))

    assert train(network, data, training_of(8, micro_batch), 1.0, 0, setting_of(), lambda epoch: None)

    for weight, start, gradient in zip(network.parameters(), before, gradients, strict=True):
        assert torch.allclose(start - gradient, weight, rtol=0, atol=1e-12)


# -- images that stay on disk ----------------------------------------------------------------------------


class Batches(TorchDispatchMode):
    """Notes the most images that any new tensor holds; what shares the map's memory is not new."""

    def __init__(self, mapped: Tensor) -> None:
        super().__init__()
        self._map = mapped.untyped_storage().data_ptr()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage().data_ptr() == self._map:
                continue
            per_image = SHAPE[1] * SHAPE[2]
            if tensor.ndim == 4 and tensor[0, 0].numel() == per_image:
                self.most = max(self.most, len(tensor))
        return out


@pytest.fixture
def mapped(tmp_path: Path) -> Tensor:
    """Give 200 images of noise, uint8, that are mapped from a file as those of large data sets are."""
    path = tmp_path / "images.npy"
    draws = np.random.default_rng(0)
    np.save(path, draws.integers(0, 256, (200, *SHAPE), dtype="uint8"))
    return torch.from_numpy(np.load(path, mmap_mode="c"))


SMALL = {"use": "convnet", "depth": 2, "width": 4}


def streamed(mapped: Tensor, labels: Tensor | None = None) -> ImageSet:
    labels = torch.arange(len(mapped)) % 4 if labels is None else labels
    return ImageSet(images=mapped, labels=labels, num_classes=4, space=setting_of().space)


@pytest.mark.parametrize("part", [False, True], ids=["all images", "a part of them"])
def test_a_test_pass_takes_a_mapped_set_batch_by_batch(mapped, part):
    network, data = network_of(SMALL, 4), streamed(mapped)
    index = torch.arange(150).flip(0) if part else torch.arange(200)
    data = data.part(index) if part else data
    with Batches(mapped) as seen:
        predictions = predict(network, data, setting_of())
    assert evaluation_batch(data, CPU) == seen.most == 16

    unit = mapped[index].float() / 255
    with torch.no_grad():
        assert torch.equal(network.eval()((unit - 0.5) / 0.25).argmax(dim=1), predictions)


def test_a_training_takes_a_mapped_set_batch_by_batch(mapped):
    with Batches(mapped) as seen:
        network = network_of(SMALL, 4)
        assert train(network, streamed(mapped), training_of(20), 0.01, 0, setting_of(), lambda epoch: None)
    assert 20 == seen.most


def test_a_runs_real_images_are_the_mapped_ones(tmp_path):
    prepared = prepared_case(tmp_path)
    np.save(tmp_path / "test.npy", prepared.real.test_images.numpy())
    images = torch.from_numpy(np.load(tmp_path / "test.npy", mmap_mode="c"))
    prepared = attrs.evolve(prepared, real=attrs.evolve(prepared.real, test_images=images))
    assert images.data_ptr() == Material(prepared).test.images.data_ptr()


# -- many classes ----------------------------------------------------------------------------------------


def write_case(folder: Path, classes: int, shape: tuple[int, int, int], student: dict[str, Any]) -> Path:
    """Write noise of so many classes, a distilled image for each, and a config of one epoch."""
    draws = torch.Generator().manual_seed(0)
    arrays = {}
    for part, each in (("train", 2), ("test", 1)):
        size = (each * classes, *shape)
        arrays[f"x_{part}"] = torch.randint(0, 256, size, dtype=torch.uint8, generator=draws)
        arrays[f"y_{part}"] = torch.arange(classes).repeat(each)
    torch.save(arrays, folder / "real.pt")
    images = DistilledSet(
        images=torch.rand(classes, *shape, generator=draws),
        labels=torch.arange(classes),
        space=ImageSpace(kind="unit"),
        num_classes=classes,
    )
    save(images, folder / "distilled.safetensors")
    common = {"optimizer": "sgd", "schedule": "constant", "epochs": 1, "batch_size": 100, "micro_batch": 50}
    config = {
        "dataset": {"use": "arrays", "path": "real.pt"},
        "distilled": {"path": "distilled.safetensors", "ipc": 1},
        "student": student,
        "recipe": {"labels": "hard", "loss": "ce", **common},
        "full_data": {"recipe": common},
        "protocol": {"use": "strict", "repeats": 1, "learning_rates": [0.01]},
        "scores": ["lrs"],
    }
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run_twice(path: Path, folder: Path):
    registry = default_registry()
    prepared = prepare(load_run(path, registry), str(path), registry, CPU)
    return run_case(prepared, folder / "cache"), run_case(prepared, folder / "cache")


@pytest.mark.parametrize(
    ("classes", "shape", "student"),
    [
        pytest.param(200, SHAPE, {**RESNET, "norm": "batch"}, id="200 classes, ResNet-18, 64 pixels"),
        pytest.param(1000, (1, 8, 8), {"use": "convnet", "depth": 1, "width": 4}, id="1000 classes"),
    ],
)
def test_a_run_with_many_classes_goes_through_and_is_kept(tmp_path, classes, shape, student):
    first, again = run_twice(write_case(tmp_path, classes, shape, student), tmp_path)
    assert {"full-hard", "syn-hard", "syn-any", "rdm-any"} == set(first.arms)
    assert [trial.reused for trial in again.trials] == [True] * len(first.trials)
    assert {name: arm.mean for name, arm in first.arms.items()} == {
        name: arm.mean for name, arm in again.arms.items()
    }


# -- full data -------------------------------------------------------------------------------------------


def cifar_stand_in(folder: Path) -> str:
    """Write noise in CIFAR-10's shape, two classes, and return the override that names it."""
    draws = torch.Generator().manual_seed(0)
    arrays = {}
    for part, count in (("train", 6), ("test", 4)):
        arrays[f"x_{part}"] = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
        arrays[f"y_{part}"] = torch.arange(count) % 2
    torch.save(arrays, folder / "real.pt")
    return f"dataset={json.dumps({'use': 'arrays', 'path': str(folder / 'real.pt')})}"


def full_recipe(name: str) -> FullRecipe:
    recipe = load_teacher(FOLDER / name, default_registry()).recipe
    assert recipe is not None
    return recipe


def test_every_full_data_config_is_tested_here():
    assert sorted([*TEACHERS, RUN]) == sorted(path.name for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", TEACHERS)
def test_a_full_data_recipe_warms_up_and_ends_near_zero(name):
    recipe = full_recipe(name)
    factors = [recipe.schedule.component.factor(epoch, recipe.epochs) for epoch in range(recipe.epochs)]
    assert 0.1 == factors[0]
    assert 1.0 == max(factors)
    assert factors[-1] < 0.01


@pytest.mark.parametrize("name", TEACHERS)
def test_a_full_data_recipe_trains_its_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DDRANK_CACHE", str(tmp_path / "cache"))
    short = ["recipe.epochs=2", "recipe.schedule.epochs=1", "recipe.batch_size=4"]
    config = load_teacher(FOLDER / name, default_registry(), [cifar_stand_in(tmp_path), *short])
    kept = train_teacher(
        config, name, default_registry(), CPU, tmp_path / "kept.safetensors", lambda hook, event: None
    )
    assert (True, 2) == (kept.trained, kept.about.epoch)


def test_the_run_config_trains_full_data_as_the_teacher_config_does(tmp_path):
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    config = load_run(FOLDER / RUN, default_registry(), [f"distilled.path={empty}"])
    teachers, recipe = full_recipe(TEACHERS[0]), config.full_data.recipe
    assert attrs.evolve(teachers, learning_rate=0.01) == attrs.evolve(recipe, learning_rates=None)
    assert (teachers.learning_rate,) == recipe.learning_rates


def test_the_run_config_is_good(tmp_path):
    images = DistilledSet(
        images=torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
        labels=torch.arange(2),
        space=ImageSpace(kind="unit"),
        num_classes=2,
    )
    save(images, tmp_path / "distilled.safetensors")
    overrides = [
        cifar_stand_in(tmp_path),
        f"distilled.path={tmp_path / 'distilled.safetensors'}",
        "distilled.ipc=1",
    ]
    config = load_run(FOLDER / RUN, default_registry(), overrides)
    prepared = prepare(config, RUN, default_registry(), CPU)
    assert "full-hard" in {arm.name for arm in prepared.plan.trained}


def test_many_random_images_are_normalised_batch_by_batch(tmp_path, monkeypatch):
    prepared = prepared_case(tmp_path)
    arm = next(arm for arm in prepared.plan.arms if arm.training.source == "random")
    (trial, *_) = prepared.plan.first_trials(arm, prepared.plan.rungs[0], [0.01])
    copied = Material(prepared).of(arm.training, trial, lambda images: ())
    monkeypatch.setattr("ddrank_core.engine.material._NORMALISED_BYTES", 0)
    material = Material(prepared)
    left = material.of(arm.training, trial, lambda images: ())
    assert copied.space is None
    assert left.images is material.full.images
    assert torch.equal(copied.labels, left.labels)
    assert torch.equal(copied.batch(slice(None)), left.batch(slice(None)))
