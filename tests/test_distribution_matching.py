"""Distribution matching, and the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ddrank_methods.distribution_matching import DistributionMatching, matching_loss
from ddrank_methods.embedding import Embedding
from torch import nn

from ddrank_core import ConfigError, DataError, RealData, component
from ddrank_core.cli.distill import command
from ddrank_core.data.distilled import load, save

CONFIG = """
name: tiny
dataset: digits
method: {use: distribution-matching, iterations: 3, batch_real: 8}
student: {use: convnet, depth: 1, width: 4}
ipc: 2
output: out/tiny.safetensors
"""


@component
class TinyNetwork:
    """A convolution and a linear classifier, with batch norm or dropout between them on request."""

    batch_norm: bool = False
    dropout: float = 0.0

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        channels, height, width = image_shape
        middle = [nn.BatchNorm2d(6)] if self.batch_norm else [nn.Dropout(self.dropout)]
        layers = [
            nn.Conv2d(channels, 6, 3, padding=1),
            *middle,
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers, nn.Linear(6 * height * width, num_classes))


@component
class NoClassifier:
    """Ends in a pooling, so that it has no features before a classifier."""

    def build(self, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        return nn.Sequential(nn.Conv2d(image_shape[0], num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Poison(torch.Tensor):
    """A tensor that no torch function may be called with."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"a test tensor was used in {func}")


def _poison(tensor: torch.Tensor) -> torch.Tensor:
    return torch.Tensor._make_subclass(Poison, tensor)


def _data(per_class: int = 12) -> RealData:
    """Three classes of 1x8x8 images, class c brighter than class c - 1, in mixed order."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(3).repeat(per_class)
    images = torch.randint(0, 60, (len(labels), 1, 8, 8), generator=generator) + 80 * labels.view(-1, 1, 1, 1)
    return RealData(
        train_images=images.to(torch.uint8),
        train_labels=labels,
        test_images=_poison(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)),
        test_labels=_poison(torch.zeros(4, dtype=torch.int64)),
        class_names=("dark", "grey", "bright"),
        mean=(0.4,),
        std=(0.25,),
        source="made up",
    )


def _distil(seed: int = 0, network=None, ipc: int = 2, data: RealData | None = None, **parameters):
    method = DistributionMatching(**{"iterations": 3, "batch_real": 8, **parameters})
    network = network or TinyNetwork()
    return method.distill(data or _data(), network, ipc, "cpu", seed, lambda step, steps: None)


def test_the_loss_is_the_squared_distance_of_class_means_summed_over_classes():
    def embed(images):
        return images.flatten(1) * torch.tensor([1.0, 10.0])

    def images(*pairs):
        return torch.tensor(pairs).view(len(pairs), 1, 1, 2)

    real = [images((0.0, 1.0), (2.0, 3.0), (4.0, 5.0)), images((1.0, 1.0))]
    synthetic = [images((1.0, 2.0)), images((0.0, 1.0), (4.0, 1.0))]

    # Means by hand: class 0 (2, 30) and (1, 20), class 1 (1, 10) and (2, 10).
    expected = (1 + 100) + (1 + 0)
    assert expected == matching_loss(embed, real, synthetic).item()


def test_the_loss_has_the_gradient_of_the_published_equation():
    network = TinyNetwork().build(3, (1, 8, 8))
    generator = torch.Generator().manual_seed(1)
    real = [torch.randn(n, 1, 8, 8, generator=generator) for n in (5, 3)]
    synthetic = torch.randn(4, 1, 8, 8, generator=generator).requires_grad_()

    def features(images):
        return network[:-1](images)

    naive = torch.zeros(())
    for c in range(2):
        real_mean = features(real[c]).sum(dim=0) / len(real[c])
        synthetic_mean = features(synthetic[2 * c : 2 * c + 2]).sum(dim=0) / 2
        naive = naive + ((real_mean - synthetic_mean) ** 2).sum()
    (expected,) = torch.autograd.grad(naive, synthetic)
    (actual,) = torch.autograd.grad(matching_loss(Embedding(network, 3), real, synthetic.split(2)), synthetic)
    torch.testing.assert_close(actual, expected)


def test_an_embedding_is_what_the_classifier_is_given():
    network = TinyNetwork().build(3, (1, 8, 8))
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(network[:-1](images), Embedding(network, 3)(images))


def test_synthetic_images_move_to_the_mean_of_their_class():
    # Without augmentation the minimum is known: means of real and synthetic features agree.
    data = _data()
    distilled = _distil(data=data, init="noise", iterations=60, learning_rate=0.5, augmentation=())
    before = _distil(data=data, init="noise", iterations=1, learning_rate=1e-9, augmentation=())
    real = (data.train_images.float() / 255 - 0.4) / 0.25
    network = TinyNetwork().build(3, data.image_shape)

    def loss(images):
        by_class = [real[data.train_labels == c] for c in range(3)]
        return matching_loss(Embedding(network, 3), by_class, images.split(2)).item()

    assert loss(distilled.images) < 0.1 * loss(before.images)


def test_real_initial_images_are_different_images_of_their_own_class():
    data = _data()
    distilled = _distil(data=data, ipc=3, iterations=1, learning_rate=1e-12)
    bytes_ = (((distilled.images * 0.25 + 0.4) * 255).round()).to(torch.uint8)
    for c in range(3):
        of_class = {image.numpy().tobytes() for image in data.train_images[data.train_labels == c]}
        made = [image.numpy().tobytes() for image in bytes_[distilled.labels == c]]
        assert len(set(made) & of_class) == 3


def test_the_set_says_what_it_holds():
    distilled = _distil(ipc=2)
    assert distilled.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert tuple(distilled.images.shape) == (6, 1, 8, 8)
    assert (
        distilled.space.kind,
        distilled.space.mean,
        distilled.space.std,
    ) == ("normalised", (0.4,), (0.25,))
    assert distilled.info["method"] == "distribution-matching"


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        torch.manual_seed(len(list(tmp_path.iterdir())))  # what the process drew before must not matter
        save(_distil(seed, TinyNetwork(dropout=0.5)), tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    _distil(network=TinyNetwork(dropout=0.5))
    assert torch.equal(before, torch.get_rng_state())


def test_the_order_of_the_training_images_decides_no_label():
    sorted_, mixed = _data(), _data()
    order = sorted_.train_labels.argsort(stable=True)
    object.__setattr__(sorted_, "train_images", sorted_.train_images[order])
    object.__setattr__(sorted_, "train_labels", sorted_.train_labels[order])
    assert torch.equal(_distil(data=sorted_).images, _distil(data=mixed).images)


def test_classes_in_groups_give_the_images_of_classes_all_at_once(monkeypatch):
    at_once = _distil()
    monkeypatch.setattr("ddrank_methods.distribution_matching.IMAGES_AT_ONCE", 1)
    torch.testing.assert_close(_distil().images, at_once.images)


def test_batch_norm_sees_all_classes_in_one_batch(monkeypatch):
    at_once = _distil(network=TinyNetwork(batch_norm=True))
    monkeypatch.setattr("ddrank_methods.distribution_matching.IMAGES_AT_ONCE", 1)
    assert torch.equal(at_once.images, _distil(network=TinyNetwork(batch_norm=True)).images)


def test_progress_is_reported_after_every_update():
    seen = []
    method = DistributionMatching(iterations=3, batch_real=8)
    method.distill(_data(), TinyNetwork(), 1, "cpu", 0, lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_network_without_a_linear_classifier_is_refused():
    with pytest.raises(ConfigError, match=r"no nn\.Linear with 3 outputs"):
        _distil(network=NoClassifier())


def test_more_images_per_class_than_a_class_has_are_refused():
    with pytest.raises(DataError, match="only 12 training images, too few to start 13"):
        _distil(ipc=13)


def test_a_class_without_images_is_refused():
    data = _data()
    object.__setattr__(data, "train_labels", data.train_labels.clamp(max=1))
    with pytest.raises(DataError, match="'bright' has no training images"):
        _distil(data=data)


def test_distill_writes_the_set_and_says_where(tmp_path: Path):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    result = CliRunner().invoke(command, [str(config), "--device", "cpu", "--set", "ipc=1"])
    assert result.exception is None
    output = tmp_path / "out" / "tiny.safetensors"
    assert result.stdout.startswith(f"wrote {output}: 1 images for each of 10 classes of digits, 1x8x8")
    assert len(result.stdout.splitlines()) == 1
    distilled = load(output)
    assert tuple(distilled.images.shape) == (10, 1, 8, 8)
    assert (distilled.info["dataset"], distilled.info["method"]) == ("digits", "distribution-matching")
    assert distilled.info["config"]["method"]["iterations"] == 3


def test_distill_replaces_a_file_only_when_told_to(tmp_path: Path):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.replace("out/", ""))
    output = tmp_path / "tiny.safetensors"
    output.write_bytes(b"mine")
    refused = CliRunner().invoke(command, [str(config), "--device", "cpu"])
    assert isinstance(refused.exception, ConfigError)
    assert "exists; give --force" in str(refused.exception)
    assert output.read_bytes() == b"mine"
    forced = CliRunner().invoke(command, [str(config), "--device", "cpu", "--force"])
    assert forced.exception is None
    assert len(load(output).labels) == 20


def test_distill_refuses_images_that_diverged(tmp_path: Path):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    result = CliRunner().invoke(
        command, [str(config), "--device", "cpu", "--set", "method.learning_rate=1e38"]
    )
    assert "lower its learning rate" in str(result.exception)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_distill_finds_out_before_the_work_that_it_cannot_write(tmp_path: Path):
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG)
    (tmp_path / "out").write_text("a file where the folder should be")
    result = CliRunner().invoke(command, [str(config), "--device", "cpu"])
    assert isinstance(result.exception, ConfigError)
    assert "output: cannot write in" in str(result.exception)
    assert "of 3" not in result.stderr
