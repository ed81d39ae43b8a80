"""Trains one network on a whole real training set and keeps it, with what it takes to use it, in one file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ddrank_core.config import TeacherConfig
from ddrank_core.engine.checkpoints import About, read_about, save_checkpoint, weights_digest
from ddrank_core.engine.device import describe, deterministic, fits, keep_freed_memory, threads_for
from ddrank_core.engine.images import ImageSet
from ddrank_core.engine.keys import TrainingKeys
from ddrank_core.engine.plan import Training, full_training
from ddrank_core.engine.prepare import check_real, working_space
from ddrank_core.engine.rehearse import counting, fault
from ddrank_core.engine.seed import derive
from ddrank_core.engine.teachers import from_cache
from ddrank_core.engine.train import Setting, accuracy, build, predict, train
from ddrank_core.engine.unfinished import Keeping, forget
from ddrank_core.errors import ConfigError, DataError, DDRankError, RunFailed, one_line
from ddrank_core.events import EpochFinished, RunStarted, TrialFinished
from ddrank_core.registry import Registry
from ddrank_core.results import TrialResult
from ddrank_core.store import cache_folder
from ddrank_core.structure import Structurer, plain
from ddrank_core.types import RealData

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Emit = Callable[[str, object], None]
"""Lifecycle hook, event."""


@attrs.frozen(kw_only=True)
class KeptTeacher:
    """A teacher's checkpoint, and how it came about."""

    about: About
    trained: bool
    """False where the same training had been done before, or the weights are a library's."""
    written: bool
    """False where the file was there already."""


def train_teacher(
    config: TeacherConfig,
    where: str,
    registry: Registry,
    device: torch.device,
    output: Path,
    emit: Emit,
    *,
    save_every: int | None = None,
    replace: bool = False,
) -> KeptTeacher:
    """Leave the config's network, trained, in `output`, unless it is there; train only what no cache has.

    The last epoch's weights are kept, and tested once. With `save_every` those of every so many epochs are
    kept beside them, in `<output>-epoch0010.safetensors` and so on; an interruption leaves whole files only.

    Raises:
        ConfigError: if the config cannot be used, or `output` is something else and `replace` is not set.
        RunFailed: if the training diverges, breaks off or cannot be kept.
    """
    if config.precision != "fp32" and device.type != "cuda":
        raise ConfigError(
            f"{where}: precision: {config.precision} needs a CUDA device, and this is on {device}; use fp32"
        )
    with fault(f"{where}: dataset"):
        real = config.dataset.component.load()
    check_real(real, f"dataset {config.dataset.use}")
    keep_freed_memory(device)
    with deterministic(device), threads_for(device, _step_activations(config, real, where)):
        return _Teaching(config, where, registry, device, real).keep(output, emit, save_every, replace)


class _Teaching:
    def __init__(
        self, config: TeacherConfig, where: str, registry: Registry, device: torch.device, real: RealData
    ) -> None:
        self._config, self._where, self._device, self._real = config, where, device, real
        # As the first teacher of a run with this seed, which then finds it in the cache.
        self._seed = derive(config.seed, "teacher", 0)
        self._network = build(config.network.component, real.num_classes, real.image_shape, self._seed)
        self._space = working_space(config, real, device)
        self._training = _training(config, registry)
        self._key = self._digest()

    def keep(self, output: Path, emit: Emit, save_every: int | None, replace: bool) -> KeptTeacher:
        epochs = 0 if self._training is None else self._training.epochs
        snapshots = {e: _snapshot(output, e) for e in range(save_every or epochs, epochs, save_every or 1)}
        there = [_kept(path, self._key) for path in (output, *snapshots.values())]
        if all(there) and there[0] is not None:
            return KeptTeacher(about=there[0], trained=False, written=False)
        for path in (output, *snapshots.values()):
            if path.exists() and _kept(path, self._key) is None and not replace:
                raise ConfigError(
                    f"{self._where}: {path} exists and is not this training's; give --force to replace it, "
                    "or another file with -o"
                )
        trained = self._ready(snapshots, emit)
        about = self._about(epochs, self._test())
        save_checkpoint(self._network, output, about)
        return KeptTeacher(about=about, trained=trained, written=True)

    def _ready(self, snapshots: dict[int, Path], emit: Emit) -> bool:
        """Bring the network to its last epoch; return whether it was trained for that."""
        if self._training is None:
            return False
        cached = cache_folder() / "teachers" / f"{self._key}.safetensors"
        missing = {epoch: path for epoch, path in snapshots.items() if _kept(path, self._key) is None}
        if not missing and from_cache(self._network, cached):
            return False
        self._train(self._training, missing, emit)
        save_checkpoint(self._network, cached)
        forget((self._key,))
        return True

    def _train(self, training: Training, snapshots: dict[int, Path], emit: Emit) -> None:
        config, count, clock = self._config, len(self._real.train_labels), time.perf_counter()
        assert config.recipe is not None  # the training is made of it
        emit("ddrank_run_started", self._start(count * training.epochs))

        def after(epoch: int, new: int = 1) -> None:
            if path := snapshots.get(epoch):
                save_checkpoint(self._network, path, self._about(epoch, None))
            work = float(count * new)
            event = EpochFinished(training=config.network.use, epoch=epoch, epochs=training.epochs, work=work)
            emit("ddrank_epoch_finished", event)

        # Later than a snapshot that is missing, it could not be had any more.
        latest = min(snapshots, default=None)
        keeping = Keeping((self._key,), lambda epoch: after(epoch, new=epoch), latest=latest)
        data = self._images(self._real.train_images, self._real.train_labels)
        self._network.to(self._device)
        try:
            finite = train(
                self._network,
                data,
                training,
                config.recipe.learning_rate,
                self._seed,
                self._setting(),
                after,
                keeping,
            )
        except DDRankError:
            raise
        except Exception as error:  # the plugin boundary: components run in here
            raise RunFailed(f"{self._where}: {config.network.use}: {one_line(error)}") from error
        if not finite:
            raise RunFailed(
                f"{self._where}: {config.network.use} diverged in training; lower recipe.learning_rate"
            )
        emit("ddrank_trial_finished", self._finish(training, time.perf_counter() - clock + keeping.seconds))

    def _start(self, work: int) -> RunStarted:
        return RunStarted(
            name=self._config.name,
            device=describe(self._device),
            arms=("teacher",),
            trials=1,
            work=float(work),
        )

    def _finish(self, training: Training, seconds: float) -> TrialFinished:
        assert self._config.recipe is not None  # something was trained
        result = TrialResult(
            arm="teacher",
            phase="final",
            repeat=0,
            learning_rate=self._config.recipe.learning_rate,
            seed=self._seed,
            subset_seed=None,
            validation_accuracy=None,
            accuracy=None,
            epoch=training.epochs,
            diverged=False,
            seconds=seconds,
        )
        return TrialFinished(result=result, done=1, total=1, work=0.0)

    def _test(self) -> float:
        """Return the network's accuracy on the whole test set."""
        # The labels stay behind until every answer is given.
        data = self._images(self._real.test_images, self._real.test_labels[:0])
        answers = predict(self._network.to(self._device), data, self._setting())
        if answers is None:
            raise RunFailed(
                f"{self._where}: {self._config.network.use} gives NaN or infinite logits for test images"
            )
        return accuracy(answers, self._real.test_labels)

    def _images(self, images: Tensor, labels: Tensor) -> ImageSet:
        return ImageSet(
            images=images.to(self._device) if fits(images, self._device) else images,
            labels=labels.to(self._device),
            num_classes=self._real.num_classes,
            space=self._space,
        )

    def _setting(self) -> Setting:
        return Setting(
            device=self._device,
            precision=self._config.precision,
            space=self._space,
            teachers=lambda images: (),
        )

    def _digest(self) -> str:
        if self._training is None:
            return weights_digest(self._network)
        assert self._config.recipe is not None  # the training is made of it
        keys = TrainingKeys(self._real, self._config, self._device)
        rate = self._config.recipe.learning_rate
        return keys.of_teacher(self._config.network, self._training, rate, self._seed)

    def _about(self, epoch: int, known: float | None) -> About:
        import torch

        from ddrank_core import __version__

        config, real = self._config, self._real
        return About(
            dataset=config.dataset.use,
            class_names=real.class_names,
            mean=real.mean,
            std=real.std,
            whitening=None if config.whitening is None else config.whitening.eps,
            network=plain(config.network),
            recipe=None if config.recipe is None else plain(config.recipe),
            seed=config.seed,
            epoch=epoch,
            accuracy=known,
            key=self._key,
            weights=weights_digest(self._network),
            versions={"ddrank": __version__, "torch": torch.__version__},
        )


def _training(config: TeacherConfig, registry: Registry) -> Training | None:
    if config.recipe is None:
        return None
    structurer = Structurer(registry, Path())
    hard, cross_entropy = structurer.chosen("label-mapping", "hard"), structurer.chosen("loss", "ce")
    return full_training(config.recipe, hard, cross_entropy)


def _snapshot(output: Path, epoch: int) -> Path:
    return output.with_name(f"{output.stem}-epoch{epoch:04}{output.suffix}")


def _kept(path: Path, key: str) -> About | None:
    """Return what a checkpoint says about itself if it is of the training of that key."""
    try:
        about = read_about(path) if path.is_file() else None
    except DataError:
        return None
    return about if about is not None and about.key == key else None


def _step_activations(config: TeacherConfig, real: RealData, where: str) -> int:
    """Return the activations of a training step, and refuse a network that cannot take the images."""
    import torch

    with fault(f"{where}: network"), torch.no_grad(), torch.random.fork_rng(devices=[]):
        network = build(config.network.component, real.num_classes, real.image_shape, 0).eval()
        with counting(network) as activations:
            logits: Any = network(torch.zeros(1, *real.image_shape))
        if tuple(logits.shape) != (1, real.num_classes):
            raise ValueError(
                f"gives logits of shape {list(logits.shape)} for 1 image, {real.num_classes} classes"
            )
    recipe = config.recipe
    images = 1 if recipe is None else min(recipe.micro_batch or recipe.batch_size, len(real.train_labels))
    return sum(activations) * images
