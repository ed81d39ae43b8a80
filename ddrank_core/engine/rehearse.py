"""How large a run's steps are, and one of every arm before the first training, on throwaway networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddrank_core.config import Teacher
from ddrank_core.engine.plan import Training, asks_teachers, needs_stored_soft, replays_views
from ddrank_core.engine.prepared import Prepared, working_images
from ddrank_core.engine.seed import randomness
from ddrank_core.engine.teachers import asker, freeze, load_checkpoint
from ddrank_core.engine.train import Setting, augment, autocast, build
from ddrank_core.errors import ConfigError, DDRankError, one_line
from ddrank_core.protocols import Architecture
from ddrank_core.structure import Chosen
from ddrank_core.types import View

if TYPE_CHECKING:
    import torch


def step_activations(prepared: Prepared) -> int:
    """Return the activations of the largest step that the run will do, student forward.

    Found by a forward pass alone, which costs a run that has nothing to train next to nothing.

    Raises:
        ConfigError: one line that names the config's field.
    """
    import torch

    trainings = [arm.training for arm in prepared.plan.trained]
    counts = {_few(prepared, training) for training in trainings}
    with torch.no_grad():
        per_image = {count: _activations_per_image(prepared, count) for count in counts}
    return max(
        per_image[_few(prepared, training)] * _largest_part(prepared, training) for training in trainings
    )


def _activations_per_image(prepared: Prepared, count: int) -> int:
    built = _built(prepared, prepared.config.student, "student")
    with counting(built) as activations:
        _logits(prepared, built, _images(prepared, count), "student", _setting(prepared))
    return sum(activations) // count


def rehearse_training(prepared: Prepared) -> None:
    """Do one real training step of every arm, and of teachers to be trained, on throwaway networks.

    To be called before the first training. Nothing is written, and random generators are left as they were.

    Raises:
        ConfigError: one line that names the config's field.
    """
    config = prepared.config
    teachers = [_teacher_network(prepared, teacher, i) for i, teacher in enumerate(config.teachers)]
    setting = _setting(prepared, teachers)
    for arm in prepared.plan.trained:
        _rehearse_arm(prepared, config.student, "student", arm.name, arm.training, setting)
    if prepared.teacher_training is None or not any(asks_teachers(a.training) for a in prepared.plan.trained):
        return
    for index, teacher in enumerate(config.teachers):
        if teacher.is_trained_here:
            field = f"teachers[{index}]"
            _rehearse_arm(prepared, teacher.network, field, field, prepared.teacher_training, setting)


def _rehearse_arm(
    prepared: Prepared,
    network: Chosen[Architecture],
    field: str,
    name: str,
    training: Training,
    setting: Setting,
) -> None:
    import torch

    where, classes = prepared.where, prepared.real.num_classes
    built = _built(prepared, network, field)
    few = _images(prepared, _few(prepared, training))
    count = len(few)
    hard = torch.zeros(count, dtype=torch.int64, device=prepared.device)
    soft = torch.full((count, classes), 1 / classes, device=prepared.device)
    with fault(f"{where}: {name}: augmentation"):
        images, mixing = augment(few, training.augmentation, randomness(0, prepared.device), prepared.space)
        if images.shape != few.shape:
            raise ValueError(f"changes images of {list(few.shape[1:])} to {list(images.shape[1:])}")
    with fault(f"{where}: {name}: labels"):
        replayed = replays_views(training) and training.source == "distilled"
        stored = soft if needs_stored_soft(training) or replayed else None
        kind = prepared.views.soft_kind if replayed and prepared.views else prepared.distilled.soft_kind
        view = View(images, hard, stored, kind, mixing, num_classes=classes)
        targets = training.labels.component(view, setting.teachers)
    logits = _logits(prepared, built, images, field, setting)
    with fault(f"{where}: {name}: loss"):
        loss = training.loss.component(logits.float(), targets)
        if loss.ndim != 0 or not loss.requires_grad:
            raise ValueError("must return a scalar that depends on the logits")
    with fault(f"{where}: {name}: optimizer"):
        optimizer = training.optimizer.component.build(built.parameters(), 1e-3)
        torch.autograd.backward(loss)
        optimizer.step()
    with fault(f"{where}: {name}: schedule"):
        training.schedule.component.factor(0, training.epochs)


def _setting(prepared: Prepared, teachers: Sequence[torch.nn.Module] = ()) -> Setting:
    return Setting(
        device=prepared.device,
        precision=prepared.config.precision,
        space=prepared.space,
        teachers=asker(teachers),
    )


def _built(prepared: Prepared, network: Chosen[Architecture], field: str) -> torch.nn.Module:
    real = prepared.real
    with fault(f"{prepared.where}: {field}"):
        built = build(network.component, real.num_classes, real.image_shape, 0)
        return built.to(prepared.device).train()


def _images(prepared: Prepared, count: int) -> torch.Tensor:
    """Return the first distilled image `count` times, in the working space, on the device."""
    return working_images(prepared, first=1).to(prepared.device).repeat(count, 1, 1, 1)


def _few(prepared: Prepared, training: Training) -> int:
    """Return with how many images a training is rehearsed: two, or one where its smallest batch has one."""
    return min(2, _smallest_batch(prepared, training))


def _largest_part(prepared: Prepared, training: Training) -> int:
    """Return how many images pass through the network at once in a training's largest step."""
    return min(training.micro_batch or training.batch_size, max(_set_sizes(prepared, training)))


def _logits(
    prepared: Prepared, network: torch.nn.Module, images: torch.Tensor, field: str, setting: Setting
) -> torch.Tensor:
    """Return the network's logits, float [B, K]; the generators are as before."""
    import torch

    count, classes = len(images), prepared.real.num_classes
    with fault(f"{prepared.where}: {field}"), torch.random.fork_rng(), autocast(setting):
        with _words_for_one_image(count):
            logits: torch.Tensor = network(images)
        if logits.shape != (count, classes):
            raise ValueError(
                f"gives logits of shape {list(logits.shape)} for {count} images, {classes} classes"
            )
    return logits


@contextmanager
def counting(network: torch.nn.Module) -> Iterator[list[int]]:
    """Collect the sizes of what the network's innermost modules put out in a forward pass."""
    import torch

    sizes: list[int] = []

    def note(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _words_for_one_image(count: int) -> Iterator[None]:
    """Say what to do where a network's batch norm cannot do with a batch of one image."""
    try:
        yield
    except ValueError as error:
        if count > 1 or not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ValueError(
            "its batch norm needs batches of two images or more, and the last batch, or its last part, "
            "has one; change the recipe's batch_size or micro_batch"
        ) from error


def _set_sizes(prepared: Prepared, training: Training) -> set[int]:
    """Return how many images the training's trials train on."""
    if training.source == "full":
        return {len(prepared.real.train_labels), len(prepared.split.rest)}
    return {sum(prepared.counts)}


def _smallest_batch(prepared: Prepared, training: Training) -> int:
    """Return the images of the smallest batch of a training: batch norm cannot do with one."""
    sizes = _set_sizes(prepared, training)
    batch = min(size % training.batch_size or min(size, training.batch_size) for size in sizes)
    micro = training.micro_batch or batch
    # A batch's last part may be smaller than both.
    return min(batch % micro or min(batch, micro), training.batch_size % micro or micro)


def _teacher_network(prepared: Prepared, teacher: Teacher, index: int) -> torch.nn.Module:
    with fault(f"{prepared.where}: teachers[{index}]"):
        network = build(teacher.network.component, prepared.real.num_classes, prepared.real.image_shape, 0)
    if teacher.checkpoint is not None:
        load_checkpoint(network, teacher.checkpoint, f"{prepared.where}: teachers[{index}].checkpoint")
    return freeze(network, prepared.device)


class fault:
    """Turns what a component raises on a rehearsal into one line that names the config's field."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, DDRankError):
            return
        # The plugin boundary: a component may raise anything; a ValueError is its word to the user.
        text = str(error) if isinstance(error, ValueError) else one_line(error)
        raise ConfigError(f"{self._where}: {text}") from error
